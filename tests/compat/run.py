"""Holds a speechd binary against the official OpenAI client, which is the oracle.

    python tests/compat/run.py --speechd target/debug/speechd --model MODEL_DIR [--speaker MODEL_DIR] [--audio FILE] [--only PART]...
        [--schemathesis]

Needs the packages in requirements.txt and nothing else: servers are started on free ports of this machine and stopped again.
Prints what failed, a table and which fields are honoured or refused; exits with 1 when anything failed. schemathesis takes
minutes and runs only when it is asked for. drain.py and disconnect.py are programs of their own.
"""

import argparse
import sys
import wave
from pathlib import Path

import errors
import fields
import matrix
import models
import recordings
import retries
import schema
import speech
import translator
from caller import Caller
from report import Report
from service import Service

PARTS = ["matrix", "fields", "models", "errors", "retries", "translator", "speech"]
NAMES = ["digits", "org/digits"]


def callers(url, **options):
    return [Caller(url, is_async, **options) for is_async in (False, True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speechd", required=True, type=Path, help="the program")
    parser.add_argument("--model", required=True, type=Path, help="a model's directory")
    parser.add_argument("--speaker", type=Path, help="the directory of a model that speaks; without it that part is left out")
    parser.add_argument("--audio", type=Path, default=recordings.digits(), help="a WAV file with speech")
    parser.add_argument("--only", action="append", choices=PARTS, help="leave the other parts out")
    parser.add_argument("--schemathesis", action="store_true", help="also run schemathesis, for minutes")
    parser.add_argument("--max-examples", type=int, default=500, help="of schemathesis, for each operation")
    parser.add_argument("--seed", type=int, default=1, help="of schemathesis")
    args = parser.parse_args()
    speechd, model_dir, audio = args.speechd.resolve(), args.model.resolve(), args.audio.resolve()
    parts = args.only or ([] if args.schemathesis else PARTS)
    if "speech" in (args.only or []) and not args.speaker:
        parser.error("--only speech needs --speaker")
    with wave.open(str(audio)) as file:
        duration_secs = file.getnframes() / file.getframerate()

    report = Report()
    with Service(speechd, [f"{name}={model_dir}" for name in NAMES]) as service:
        both = callers(service.url)
        if "matrix" in parts:
            matrix.run(report, both, NAMES[0], audio, duration_secs)
        if "fields" in parts:
            fields.run(report, both, NAMES[0], audio)
        if "models" in parts:
            models.run(report, both, service, NAMES)
        if "errors" in parts:
            errors.run(report, both, NAMES[0], audio)
            retries.deadline(report, service, NAMES[0], callers)
        if args.schemathesis:
            schema.run(report, service, args.max_examples, args.seed)
        with report.check("server", "ends with 0 on SIGTERM"):
            code, _ = service.stop()
            assert code == 0, f"exit code {code}"
        with report.check("server", "no panic in the log"):
            assert not [line for line in service.log if "panicked" in line], service.log[-5:]
    if "errors" in parts:
        errors.limits(report, speechd, model_dir, callers)
        retries.stream_deadline(report, speechd, model_dir, callers)
    if "translator" in parts:
        translator.run(report, speechd, callers)
    if "speech" in parts and args.speaker:
        speech.run(report, speechd, args.speaker.resolve(), callers)
    if "retries" in parts:
        retries.busy(report, speechd, model_dir, callers)
        retries.loading(report, speechd, model_dir, callers)
    report.print()
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
