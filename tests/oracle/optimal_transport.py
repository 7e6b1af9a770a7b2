"""Values and gradients of geomloss' SamplesLoss("sinkhorn") in float64, and values of POT's plain Sinkhorn for what is not debiased.

Writes tests/fixtures/optimal-transport.safetensors: for each case NAME its points "NAME.x" (S, D) and "NAME.y" (T, D), weights
"NAME.a" and "NAME.b", "NAME.options" (p, blur, scaling, reach or 0, debiased, position weight), "NAME.value", and the gradients
"NAME.dx" and "NAME.dy".
"""

import numpy as np
import ot
import torch
from common import FIXTURES
from geomloss import SamplesLoss
from safetensors.torch import save_file

# name: points, points, width, spread, p, blur, scaling, reach, debiased, position weight, whether weights differ
CASES = {
    "narrow": (7, 5, 3, 1.0, 2, 0.05, 0.5, None, True, 0.0, False),
    "weighted": (6, 9, 2, 1.0, 2, 0.3, 0.7, None, True, 0.0, True),
    "wide": (31, 12, 48, 1.0, 2, 0.05, 0.5, None, True, 1.0, False),
    "biased": (12, 17, 40, 1.0, 2, 0.5, 0.5, None, False, 2.0, False),
    "distances": (9, 6, 5, 1.0, 1, 0.05, 0.5, None, True, 0.0, True),
    "wide_distances": (14, 9, 48, 1.0, 1, 0.5, 0.5, None, True, 0.0, False),
    "reach": (10, 8, 20, 0.3, 2, 0.1, 0.6, 0.8, True, 0.5, False),
    "reach_biased": (5, 8, 4, 0.5, 1, 0.2, 0.5, 1.5, False, 0.0, True),
    "one": (1, 6, 4, 1.0, 2, 0.05, 0.5, None, True, 1.0, False),
    "same": (5, 5, 3, 1.0, 2, 0.05, 0.5, None, True, 0.0, False),
}


def positioned(points, weight, other):
    """Points with a coordinate from 0 to `weight`, unless a set has one point."""
    n = len(points)
    if weight == 0 or n == 1 or len(other) == 1:
        return points
    return torch.cat([points, (weight * torch.arange(n).double() / (n - 1))[:, None]], 1)


def main():
    tensors = {}
    for index, (name, case) in enumerate(CASES.items()):
        n, m, width, spread, p, blur, scaling, reach, debias, weight, differ = case
        generator = torch.Generator().manual_seed(index)

        def draw(*shape):
            return torch.randn(*shape, generator=generator)

        x, y = spread * draw(n, width), spread * (draw(m, width) + 0.3)
        if name == "same":
            y = x.clone()
        a, b = (torch.rand(k, generator=generator) + 0.1 if differ else torch.ones(k) for k in (n, m))
        a, b = a / a.sum(), b / b.sum()
        doubles = [t.double().requires_grad_() for t in (x, y)]
        points = positioned(doubles[0], weight, y), positioned(doubles[1], weight, x)
        loss = SamplesLoss("sinkhorn", p=p, blur=blur, scaling=scaling, reach=reach, debias=debias, backend="tensorized")
        value = loss(a.double(), points[0], b.double(), points[1])
        dx, dy = torch.autograd.grad(value, doubles)
        if reach is not None:
            # geomloss 0.3.1 differentiates the factor rho + e / 2 of its value; the value itself, once it has converged, changes by
            # rho + e, as differences show (and as earlier versions had it).
            rho, epsilon = reach**p, blur**p
            dx, dy = (gradient * (rho + epsilon) / (rho + epsilon / 2) for gradient in (dx, dy))
        tensors |= {
            f"{name}.{key}": t.detach().float().contiguous()
            for key, t in {"x": x, "y": y, "a": a, "b": b, "value": value, "dx": dx, "dy": dy}.items()
        }
        tensors[f"{name}.options"] = torch.tensor([p, blur, scaling, reach or 0, float(debias), weight])
    # Converged: what POT finds, whose problem has the entropy of the plan instead of its divergence from a x b.
    x, y = (torch.randn(k, 3, generator=torch.Generator().manual_seed(99 + k)) for k in (6, 4))
    a, b, epsilon = np.full(6, 1 / 6), np.full(4, 1 / 4), 0.5
    costs = (torch.cdist(x.double(), y.double()) ** 2 / 2).numpy()
    plan = ot.sinkhorn(a, b, costs, epsilon, method="sinkhorn_log", numItermax=100_000, stopThr=1e-13)
    divergence = (plan * np.log(plan / np.outer(a, b))).sum()
    tensors |= {
        "pot.x": x,
        "pot.y": y,
        "pot.epsilon": torch.tensor(epsilon),
        "pot.value": torch.tensor((plan * costs).sum() + epsilon * divergence).float(),
        "pot.cost": torch.tensor((plan * costs).sum()).float(),
    }
    save_file(tensors, FIXTURES / "optimal-transport.safetensors")


if __name__ == "__main__":
    main()
