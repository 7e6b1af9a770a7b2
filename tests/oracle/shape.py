"""Scaling laws of encoder and decoder fitted by scipy: Huber's loss on the residuals of the log loss, exponents and floor not negative.

    python tests/oracle/make.py shape

Makes tests/fixtures/shape.json: for each case the runs (sizes and loss), where Huber's loss becomes linear, and what
scipy.optimize.least_squares (trf) finds from several starts: alpha, exponents, floor and the objective. Normalisers are geometric means.
"""

from importlib.metadata import version

import numpy as np
from common import FIXTURES, write_json
from scipy.optimize import least_squares

LAYERS = [1, 2, 4]
# What blocks share, and a block: of the encoder, of the decoder.
STACKS = [(120_000, 790_000), (1_000, 1_050_000)]


def grid(seeds):
    sizes = [[fixed + layers * block for layers in LAYERS] for fixed, block in STACKS]
    return np.array([(e, d) for e in sizes[0] for d in sizes[1] for _ in range(seeds)], float)


def loss(sizes, alpha, exponents, floor):
    normalisers = np.exp(np.log(sizes).mean(0))
    return alpha * ((normalisers / sizes) ** np.array(exponents)).prod(1) + floor


def fit(sizes, losses, delta):
    """The best of several starts; bounds are scipy's own."""
    logs = np.log(sizes) - np.log(sizes).mean(0)
    n_sizes = sizes.shape[1]

    def residuals(theta):
        return np.log(np.exp(theta[0] - logs @ theta[1:-1]) + theta[-1]) - np.log(losses)

    def jacobian(theta):
        reducible = np.exp(theta[0] - logs @ theta[1:-1])
        share = reducible / (reducible + theta[-1])
        return np.column_stack([share, -logs * share[:, None], 1 / (reducible + theta[-1])])

    low = [-np.inf] + [0.0] * (n_sizes + 1)
    best = None
    for floor in (0.05, 0.3, 0.6, 0.9, 0.98):
        start = [np.log(losses.mean() * (1 - floor) + 1e-3)] + [0.2] * n_sizes + [floor * losses.min()]
        found = least_squares(
            residuals, start, jacobian, (low, np.inf), loss="huber", f_scale=delta, x_scale="jac",
            ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=20_000,
        )  # fmt: skip
        if best is None or found.cost < best.cost:
            best = found
    theta = best.x
    return dict(alpha=float(np.exp(theta[0])), exponents=theta[1:-1].tolist(), floor=float(theta[-1]), objective=float(best.cost))


def main():
    generator = np.random.default_rng(20250702)
    cases = []
    for name, seeds, alpha, exponents, floor, noise, delta, outlier in [
        ("little noise", 2, 0.8, (0.35, 0.2), 1.4, 0.003, 2e-3, 0.0),
        ("noise of the losses", 3, 1.5, (0.2, 0.45), 0.9, 0.02, 1e-2, 0.0),
        ("a run that went wrong", 2, 0.8, (0.35, 0.2), 1.4, 0.003, 1e-3, 0.6),
        ("the decoder does not matter", 2, 0.8, (0.4, 0.0), 1.4, 0.005, 2e-3, 0.0),
        ("no floor", 2, 2.0, (0.12, 0.1), 0.0, 0.01, 5e-3, 0.0),
    ]:
        sizes = grid(seeds)
        losses = loss(sizes, alpha, exponents, floor) + noise * generator.standard_normal(len(sizes))
        losses[5] += outlier
        losses = losses.round(5)
        totals = sizes.sum(1, keepdims=True)
        runs = [[int(e), int(d), float(value)] for (e, d), value in zip(sizes, losses)]
        cases.append(
            dict(name=name, huber_delta=delta, runs=runs, law=fit(sizes, losses, delta), total=fit(totals, losses, delta))
        )
    write_json(FIXTURES / "shape.json", dict(made_by="tests/oracle/shape.py", scipy=version("scipy"), cases=cases))


if __name__ == "__main__":
    main()
