"""A client that leaves: how much the server and its children still compute in the two seconds after, in every phase of a request.

    python tests/compat/disconnect.py --speechd target/debug/speechd --model MODEL_DIR [--limit 0.2]
"""

import argparse
import sys
import time
from pathlib import Path

import recordings
import wire
from service import Service

WATCH_SECS = 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speechd", required=True, type=Path, help="the program")
    parser.add_argument("--model", required=True, type=Path, help="a model's directory")
    parser.add_argument("--limit", type=float, default=0.2, help="processor seconds that may be spent")
    args = parser.parse_args()
    with Service(args.speechd.resolve(), [f"m={args.model.resolve()}"]) as service:
        wire.Exchange(service, {"model": "m"}, ("a.wav", recordings.digits().read_bytes())).answer()
        time.sleep(1)
        idle = spent(service, lambda: None)
        print(f"{'phase':<34}{'before':>10}{'after':>10}   processor seconds in {WATCH_SECS:.0f} s; idle {idle:.2f}")
        worst = 0.0
        for name, phase in PHASES.items():
            leave = phase(service)
            before = spent(service, lambda: None, 0.5) * WATCH_SECS / 0.5 if leave else 0.0
            after = spent(service, leave)
            worst = max(worst, after)
            print(f"{name:<34}{before:>10.2f}{after:>10.2f}" + ("   FAILED" if after > args.limit else ""), flush=True)
            time.sleep(0.5)
        text = wire.Exchange(service, {"model": "m"}, ("a.wav", recordings.digits().read_bytes())).answer()
        print(f"served afterwards: {text[1][:80]}")
        assert service.process.poll() is None
    sys.exit(1 if worst > args.limit or text[0] != 200 else 0)


def spent(service, leave, secs=WATCH_SECS):
    """Processor seconds from just before `leave` until so many seconds later."""
    before = service.cpu_secs()
    leave()
    time.sleep(secs)
    return service.cpu_secs() - before


def start(service, file, fields=None, share=1.0, after=0.0):
    exchange = wire.Exchange(service, {"model": "m"} | (fields or {}), file, share)
    time.sleep(after)
    return exchange


def long(secs):
    return recordings.repeated(recordings.digits(), secs)


def upload(service):
    return start(service, long(600), share=0.5, after=0.3).hang_up


def queued(service):
    """One that waits behind others; all of them leave, so that what is still computed is theirs."""
    exchanges = [start(service, long(600)) for _ in range(4)]
    time.sleep(1.0)

    def leave():
        for exchange in reversed(exchanges):
            exchange.hang_up()

    return leave


def decoding_sound(service):
    return start(service, recordings.long_mp3(7200), after=0.6).hang_up


def encoding(service):
    """Greedy, without times: most of the work is the encoder's."""
    return start(service, long(1800), {"language": "en"}, after=1.5).hang_up


def decoding_text(service):
    """Ten hypotheses: most of the work is the decoder's."""
    return start(service, long(1800), {"language": "en", "beam_size": "10"}, after=1.5).hang_up


def streaming(service):
    exchange = start(service, long(1800), {"stream": "true"})
    exchange.first_event()
    return exchange.hang_up


PHASES = {
    "during the upload": upload,
    "queued": queued,
    "decoding sound": decoding_sound,
    "encoding": encoding,
    "decoding text": decoding_text,
    "streaming": streaming,
}


if __name__ == "__main__":
    main()
