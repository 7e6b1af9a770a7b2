"""Times the optimal transport of this project beside geomloss, in turns on idle cores: `cargo build --release --benches` first, then
`python tests/oracle/bench_transport.py PATH_OF_THE_BENCH`. Both compute values and gradients of 16 pairs of 375 and 60 points of 512
numbers in f32; geomloss gets the coordinate that tells positions apart as a 513th.
"""

import statistics
import subprocess
import sys
import time

import torch
from geomloss import SamplesLoss

TURNS = 3


def theirs(debias):
    torch.manual_seed(0)
    x, y = (2 * torch.rand(16, n, 512) - 1 for n in (375, 60))
    loss = SamplesLoss("sinkhorn", p=2, blur=0.05, scaling=0.5, debias=debias, backend="tensorized")

    def positioned(points):
        places = torch.arange(points.shape[1]) / (points.shape[1] - 1)
        return torch.cat([points, places[None, :, None].expand(16, -1, 1)], 2)

    times = []
    for _ in range(TURNS):
        leaves = [t.clone().requires_grad_() for t in (x, y)]
        began = time.perf_counter()
        loss(*map(positioned, leaves)).sum().backward()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def main():
    ours, geomloss = {"debiased": [], "biased": []}, {"debiased": [], "biased": []}
    for _ in range(TURNS):
        printed = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=True).stdout
        for line in printed.splitlines():
            kind, millis = line.split()
            ours[kind].append(float(millis))
        for kind in geomloss:
            geomloss[kind].append(theirs(kind == "debiased"))
    for kind in ours:
        mine, other = statistics.median(ours[kind]), statistics.median(geomloss[kind])
        print(f"{kind}: {mine:.0f} ms, geomloss {other:.0f} ms, ratio {mine / other:.2f}")


if __name__ == "__main__":
    main()
