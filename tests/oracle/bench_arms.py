"""What the encoder of a speech translator should learn first: cross-entropy, CTC, both, or CTC with optimal transport.

`python tests/oracle/bench_arms.py SPEECHD OUT [--seeds 0 1 2] [--arms ce ctc ctc+ce ctc+ot ctc+ot-frozen] [--data DIR]
[--updates MT SIAMESE ST] [--set key=value ...]` runs the chain of mt_en_ps, siamese_en_ps and st_en_ps for each seed and arm with equal
updates, goes on where it was stopped, and prints BLEU on test sentences that no stage has seen, and how far states of held-out speech
are from those of its text. The text translator of a seed is shared by its arms. Means over seeds have 95 % intervals by Student's t.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

# Weights of cross-entropy, CTC and optimal transport, and whether the encoder of texts stays as the decoder knows it.
ARMS = {
    "ce": (1, 0, 0, False),
    "ctc": (0, 1, 0, False),
    "ctc+ce": (1, 1, 0, False),
    "ctc+ot": (0, 1, 0.1, False),
    "ctc+ot-frozen": (0, 1, 0.1, True),
}
STAGES = ["mt_en_ps", "siamese_en_ps", "st_en_ps"]
# Two-sided 97.5 % points of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def interval(values):
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:8.3f}"
    half = STUDENT[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:8.3f} ({mean - half:.3f} to {mean + half:.3f})"


def figure(run, name):
    """The last value of a figure in a run's log."""
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line["value"] for line in lines if line["name"] == name][-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("speechd", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["ce", "ctc", "ctc+ce", "ctc+ot"])
    parser.add_argument("--data", type=Path, help="manifests of phrases-en-ps; made by the runs where it is not given")
    parser.add_argument("--updates", type=int, nargs=3, metavar=("MT", "SIAMESE", "ST"), help="of the stages; else as recipes say")
    parser.add_argument("--set", action="append", default=[], help="of every run, such as train.parts=1")
    args = parser.parse_args()
    out = args.out.resolve()
    updates = dict(zip(STAGES, args.updates or []))

    def data(part):
        return str(args.data.resolve() / f"{part}.jsonl") if args.data else f"phrases-en-ps:{part}"

    def train(recipe, folder, train_part, settings):
        if (folder / "model").is_dir():
            return
        given = [f'data.train=["{data(train_part)}"]', f'data.dev=["{data("dev")}"]', *settings, *args.set]
        if recipe in updates:
            given.append(f"train.max_steps={updates[recipe]}")
        sets = [word for setting in given for word in ("--set", setting)]
        subprocess.run([args.speechd, "train", recipe, "--out", folder, "--quiet", *sets], check=True)

    results = {}
    for seed in args.seeds:
        texts = out / f"mt-{seed}"
        train("mt_en_ps", texts, "text", [f"seed={seed}"])
        for arm in args.arms:
            ce, ctc, ot, freezes = ARMS[arm]
            loss = (
                f"loss={{ cross_entropy.weight = {ce:.1f}, cross_entropy.label_smoothing = 0.1, "
                f"ctc.weight = {ctc:.1f}, optimal_transport.weight = {ot:.1f}, "
                f"optimal_transport.freeze_text = {str(freezes).lower()} }}"
            )
            heard, speech = out / f"siamese-{arm}-{seed}", out / f"st-{arm}-{seed}"
            train("siamese_en_ps", heard, "train", [f"seed={seed}", f"model.base={texts / 'model'}", loss])
            bases = [f"model.base={heard / 'model'}", f"model.parts.decoder={texts / 'model'}"]
            train("st_en_ps", speech, "train", [f"seed={seed}", *bases])
            test = args.data.resolve() / "test.jsonl" if args.data else speech / "data/phrases-en-ps/test.jsonl"
            evaluate = [args.speechd, "evaluate", test, "--model", speech / "model", "--task", "translate", "--json", "--quiet"]
            told = json.loads(subprocess.run(evaluate, check=True, capture_output=True, text=True).stdout)
            scores = {
                "BLEU": told["reports"][0]["bleu"]["score"],
                "distance": figure(heard, "dev/speech_text_distance"),
                "spread": figure(heard, "dev/speech_spread"),
            }
            results.setdefault(arm, []).append(scores)
            print(f"seed {seed}, {arm}: {scores}", flush=True)
    for arm, scores in results.items():
        columns = (f"{name} {interval([score[name] for score in scores])}" for name in scores[0])
        print(f"{arm:8} {'   '.join(columns)}")


if __name__ == "__main__":
    main()
