"""Clients that leave: how much the server and its children still compute in the two seconds after, in every phase of a request.

    python tests/compat/disconnect.py --speechd target/debug/speechd --model MODEL_DIR [--limit 0.2] [--points 12]

Where a request is cannot be seen from outside: the last column is what the server itself counted
(speechd_cancelled_total); while windows are encoded and text is decoded, clients leave at random points.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import recordings
import wire
from service import Service

WATCH_SECS = 2.0
CANCELLED = "speechd_cancelled_total"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speechd", required=True, type=Path, help="the program")
    parser.add_argument("--model", required=True, type=Path, help="a model's directory")
    parser.add_argument("--limit", type=float, default=0.2, help="processor seconds that may be spent")
    parser.add_argument("--points", type=int, default=12, help="random points while windows are encoded and decoded")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with Service(args.speechd.resolve(), [f"m={args.model.resolve()}"]) as service:
        assert answer(service)[0] == 200
        time.sleep(1)
        print(f"processor seconds in the {WATCH_SECS:.0f} s after a client left; idle {spent(service, lambda: None):.2f}")
        print(f"{'the client left':<36}{'before, per s':>14}{'after':>8}   the server says")
        worst = 0.0
        for name, begin in PHASES + [("encoding or decoding text", working)] * args.points:
            exchanges = begin(service, rng)
            before = spent(service, lambda: None, 0.2) / 0.2 if begin is not streaming else float("nan")
            counted = cancelled(service)
            after = spent(service, lambda exchanges=exchanges: [exchange.hang_up() for exchange in exchanges])
            where = {phase: n - counted.get(phase, 0) for phase, n in cancelled(service).items() if n != counted.get(phase)}
            says = ", ".join(f"{phase} {n:.0f}" for phase, n in where.items()) or "nothing"
            worst = max(worst, after)
            failed = "   FAILED" if after > args.limit else ""
            print(f"{name:<36}{before:>14.2f}{after:>8.2f}   {says}{failed}", flush=True)
            time.sleep(0.3)
        status, body = answer(service)
        queued = service.metrics()['speechd_queue_requests{model="m"}']
        print(f"worst {worst:.2f} s; served afterwards: {status}; still queued: {queued:.0f}")
    sys.exit(1 if worst > args.limit or status != 200 or queued else 0)


def answer(service):
    return wire.Exchange(service, {"model": "m"}, ("a.wav", recordings.digits().read_bytes())).answer()


def spent(service, leave, secs=WATCH_SECS):
    """Processor seconds from just before `leave` until so many seconds later."""
    before = service.cpu_secs()
    leave()
    time.sleep(secs)
    return service.cpu_secs() - before


def cancelled(service):
    return {
        name.split('"')[1]: count for name, count in service.metrics().items() if name.startswith(CANCELLED)
    }


def wait_for(what, condition, secs=30):
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end, f"{what}: not in {secs} s"
        time.sleep(0.005)


def counter(service, name):
    return service.metrics().get(name, 0)


def upload(service, rng):
    exchange = wire.Exchange(service, {"model": "m"}, long(600), share=0.5)
    time.sleep(0.3)
    return [exchange]


def decoding_sound(service, rng):
    exchange = wire.Exchange(service, {"model": "m"}, recordings.mp3(7000))
    wait_for("decoding", lambda: service.children())
    time.sleep(0.3)
    return [exchange]


def preparing(service, rng):
    """Speech is looked for in an hour of sound."""
    decoded = 'speechd_phase_seconds_count{phase="decode"}'
    before = counter(service, decoded)
    exchange = wire.Exchange(service, {"model": "m"}, recordings.mp3(7000))
    wait_for("decoded", lambda: counter(service, decoded) > before)
    return [exchange]


def queued(service, rng):
    """Many that wait for each other; all leave, so that what is still computed is theirs."""
    exchanges = [wire.Exchange(service, {"model": "m"}, long(240)) for _ in range(25)]
    wait_for("queued", lambda: counter(service, 'speechd_queue_requests{model="m"}') == len(exchanges))
    working_on(service, 0)
    return exchanges


def working(service, rng):
    exchange = wire.Exchange(service, {"model": "m", "language": "en"}, long(240))
    working_on(service, rng.random())
    return [exchange]


def working_on(service, secs):
    steps = counter(service, "speechd_batch_size_count")
    wait_for("work", lambda: counter(service, "speechd_batch_size_count") > steps)
    time.sleep(secs)


def streaming(service, rng):
    exchange = wire.Exchange(service, {"model": "m", "stream": "true"}, long(240))
    exchange.first_event()
    return [exchange]


def long(secs):
    return recordings.repeated(recordings.digits(), secs)


PHASES = [
    ("during the upload", upload),
    ("while its sound was decoded", decoding_sound),
    ("while speech was looked for", preparing),
    ("while 25 waited", queued),
    ("during a stream", streaming),
]


if __name__ == "__main__":
    main()
