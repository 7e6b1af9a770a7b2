"""Regenerates the fixtures: `python tests/oracle/make.py` for all (minutes on one core), or with names: `make.py whisper_tiny wer`.

Needs the packages in requirements.txt. What needs recordings or the reference checkpoint looks in SPEECHD_DATA and
SPEECHD_MODELS, or in ../shared beside the project. CI needs none of this: the output is committed.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NO_FIXTURES = ("make", "common", "conformer_weights", "bench_arms", "bench_peers", "bench_transport")
SCRIPTS = sorted(
    (p.stem for p in HERE.glob("*.py") if p.stem not in NO_FIXTURES),
    key=lambda name: (name != "whisper_tiny", name),  # first: tokenizer.py reads one of its bundles
)


def main():
    names = sys.argv[1:] or SCRIPTS
    unknown = [n for n in names if n not in SCRIPTS]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    for name in names:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)


if __name__ == "__main__":
    main()
