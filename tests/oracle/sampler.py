"""Bucket bounds, assignment and full batches by lhotse.

    python tests/oracle/make.py sampler

Makes tests/fixtures/sampler.json. Durations are whole milliseconds, as manifests have them. Batches are of durations in descending
order, where lhotse's cannot exceed their budget: after an item that is not the longest it closes a batch too late, which ours do
not repeat. Made with lhotse 1.33.0.
"""

from importlib.metadata import version

import numpy as np
from lhotse.dataset.sampling.base import TimeConstraint
from lhotse.dataset.sampling.dynamic import DurationBatcher
from lhotse.dataset.sampling.dynamic_bucketing import FixedBucketBatchSizeConstraint, estimate_duration_buckets
from lhotse.testing.dummies import dummy_cut

from common import FIXTURES, write_json

CORPORA = [("log-normal", 7), ("uniform", 8), ("clipped", 9)]


def durations(kind, rng, n=60):
    if kind == "uniform":
        secs = rng.uniform(0.5, 20, n)
    else:
        secs = 6 * np.exp(0.6 * rng.standard_normal(n))
        secs = np.minimum(secs, 9) if kind == "clipped" else secs
    return [round(float(s), 3) for s in secs]


def cuts(secs):
    return [dummy_cut(i, duration=s) for i, s in enumerate(secs)]


def flags(secs, constraint):
    """(close, exceeded) after each cut."""
    out = []
    for cut in cuts(secs):
        constraint.add(cut)
        out.append([constraint.close_to_exceeding(), constraint.exceeded()])
    return out


def main():
    cases = []
    for kind, seed in CORPORA:
        rng = np.random.default_rng(seed)
        secs = durations(kind, rng)
        bounds = {n: [float(b) for b in estimate_duration_buckets(cuts(secs), n)] for n in (2, 5, 12)}
        caps = [*bounds[5], max(secs)]
        fixed = FixedBucketBatchSizeConstraint(caps, [1] * len(caps))
        probes = [*secs[:20], *caps]
        batches = []
        for budget, quadratic, most in ((40, None, None), (40, 15, None), (60, None, 7)):
            limits = dict(max_duration=budget, max_cuts=most, quadratic_duration=quadratic)
            batcher = DurationBatcher(cuts(sorted(secs, reverse=True)), constraint=TimeConstraint(**limits))
            batches.append(
                dict(budget=budget, quadratic=quadratic, max_items=most, sizes=[len(b) for b in batcher],
                     flags=flags(secs[:12], TimeConstraint(**limits)))
            )  # fmt: skip
        cases.append(
            dict(name=kind, durations=secs, bounds=[dict(n_buckets=n, bounds=b) for n, b in bounds.items()],
                 caps=caps, probes=probes,
                 assigned=[fixed.select_bucket(caps, example_len=p) for p in probes], batches=batches)
        )  # fmt: skip
    write_json(FIXTURES / "sampler.json", dict(made_by="tests/oracle/sampler.py", lhotse=version("lhotse"), cases=cases))


if __name__ == "__main__":
    main()
