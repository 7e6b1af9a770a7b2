"""Clients that leave: how much the server and its children still compute in the two seconds after, in every phase of a request.

    python tests/compat/disconnect.py --speechd target/debug/speechd --model MODEL_DIR [--limit 0.2] [--points 12]

Where a request is cannot be seen from outside: the last column is what the server itself counted
(speechd_cancelled_total); while windows are encoded and text is decoded, clients leave at random points. A phase
fails as well when not all of its requests were counted, or none where they should have been.
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
# However slow the machine: what is waited for comes in the end, or something was answered before its client could leave.
PATIENCE_SECS = 600
# Many times the work for each window: nothing is done before its client leaves. None is refused for taking too long.
SLOW = {"model": "m", "language": "en", "beam_size": "8"}
SETTINGS = {"serve": {"request_timeout_secs": 36000.0}}
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
    with Service(args.speechd.resolve(), [f"m={args.model.resolve()}"], SETTINGS) as service:
        assert answer(service)[0] == 200
        time.sleep(1)
        print(f"processor seconds in the {WATCH_SECS:.0f} s after a client left; idle {spent(service, lambda: None):.2f}")
        print(f"{'the client left':<36}{'before, per s':>14}{'after':>8}   the server says")
        worst, n_failed = 0.0, 0
        phases = PHASES + [("encoding or decoding text", working, ENGINE)] * args.points
        for name, begin, where in phases:
            exchanges = begin(service, rng)
            before = spent(service, lambda: None, 0.2) / 0.2
            counted = cancelled(service)
            after = spent(service, lambda exchanges=exchanges: [exchange.hang_up() for exchange in exchanges])
            left = {phase: n - counted.get(phase, 0) for phase, n in cancelled(service).items() if n != counted.get(phase)}
            says = ", ".join(f"{phase} {n:.0f}" for phase, n in left.items()) or "nothing"
            worst = max(worst, after)
            is_reached = sum(left.values()) == len(exchanges) and left.keys() & where
            failed = "   FAILED" if after > args.limit else "" if is_reached else "   NOT REACHED"
            n_failed += bool(failed)
            print(f"{name:<36}{before:>14.2f}{after:>8.2f}   {says}{failed}", flush=True)
            time.sleep(0.3)
        status, body = answer(service)
        queued = service.metrics()['speechd_queue_requests{model="m"}']
        print(f"worst {worst:.2f} s; served afterwards: {status}; still queued: {queued:.0f}")
    sys.exit(1 if n_failed or status != 200 or queued else 0)


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


def wait_for(what, condition, exchanges=()):
    """Asks until it is so. It never will be once one of the requests is answered."""
    end = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert not any(exchange.is_answered() for exchange in exchanges), f"{what}: answered before"
        assert time.monotonic() < end, f"{what}: not in {PATIENCE_SECS} s"
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
    """Many that wait for each other; all leave, so that what is still computed is theirs. Each is counted once it is
    decoded, which takes the longer the busier the machine is, with the first of them among other things."""
    exchanges = [wire.Exchange(service, SLOW, long(240)) for _ in range(25)]
    waiting = 'speechd_queue_requests{model="m"}'
    wait_for("queued", lambda: counter(service, waiting) == len(exchanges), exchanges)
    working_on(service, exchanges, 0)
    return exchanges


def working(service, rng):
    exchange = wire.Exchange(service, SLOW, long(240))
    working_on(service, [exchange], rng.random())
    return [exchange]


def working_on(service, exchanges, secs):
    steps = counter(service, "speechd_batch_size_count")
    wait_for("work", lambda: counter(service, "speechd_batch_size_count") > steps, exchanges)
    time.sleep(secs)


def streaming(service, rng):
    exchange = wire.Exchange(service, SLOW | {"stream": "true"}, long(240))
    exchange.first_event()
    return [exchange]


def long(secs):
    return recordings.repeated(recordings.digits(), secs)


# With where the server may say that a request was when its client left.
ENGINE = {"encode", "decode_steps"}
PHASES = [
    ("during the upload", upload, {"upload"}),
    ("while its sound was decoded", decoding_sound, {"decode"}),
    ("while speech was looked for", preparing, {"prepare"}),
    ("while 25 waited", queued, {"queue"}),
    ("during a stream", streaming, ENGINE),
]


if __name__ == "__main__":
    main()
