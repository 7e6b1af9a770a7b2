"""SIGTERM with requests in flight: all of them are answered, /readyz says no at once, the exit code is 0.

    python tests/compat/drain.py --speechd target/debug/speechd --model MODEL_DIR [--requests 50] [--streams 15]
"""

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

import recordings
import wire
from service import Service

SETTINGS = {"serve": {"drain_delay_secs": 0.5, "drain_secs": 240.0}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speechd", required=True, type=Path, help="the program")
    parser.add_argument("--model", required=True, type=Path, help="a model's directory")
    parser.add_argument("--requests", type=int, default=50, help="in flight when the signal comes")
    parser.add_argument("--streams", type=int, default=15, help="how many of them are streams")
    parser.add_argument("--secs", type=int, default=60, help="length of each recording")
    args = parser.parse_args()
    recording = recordings.repeated(recordings.digits(), args.secs)
    with Service(args.speechd.resolve(), [f"m={args.model.resolve()}"], SETTINGS) as service:
        alone = wire.Exchange(service, {"model": "m"}, recording).answer()
        assert alone[0] == 200, alone
        answers, threads = [None] * args.requests, []
        exchanges = []
        for index in range(args.requests):
            fields = {"model": "m"} | ({"stream": "true"} if index < args.streams else {})
            exchange = wire.Exchange(service, fields, recording)
            exchanges.append(exchange)
            threads.append(threading.Thread(target=read, args=(exchange, answers, index)))
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # what is in the sockets' buffers is read

        in_flight = sum(answer is None for answer in answers)
        signalled = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        flipped = not_ready_after(service, signalled)
        for thread in threads:
            thread.join()
        answered_secs = time.monotonic() - signalled
        code = service.process.wait(60)
        ended_secs = time.monotonic() - signalled

    failed = [answer for index, answer in enumerate(answers) if not is_right(answer, index < args.streams, alone[1])]
    print(f"in flight at SIGTERM     {in_flight} of {args.requests} ({args.streams} streams), {args.secs} s each")
    print(f"failed                   {len(failed)}")
    print("/readyz says no after    " + (f"{1e3 * flipped:.0f} ms" if flipped is not None else "never"))
    print(f"all answered after       {answered_secs:.2f} s")
    print(f"exit code {code} after     {ended_secs:.2f} s")
    for answer in failed[:5]:
        print(f"  failed: {answer!r:.300}")
    bad = failed or code != 0 or flipped is None or flipped > 0.1 or in_flight < 0.8 * args.requests
    sys.exit(1 if bad else 0)


def read(exchange, answers, index):
    try:
        answers[index] = exchange.answer()
    except Exception as error:  # noqa: BLE001
        answers[index] = (None, repr(error).encode())


def not_ready_after(service, signalled):
    """Seconds from the signal until /readyz is no 200 any more; None if it never was anything else."""
    while time.monotonic() - signalled < 5:
        try:
            status, _, _ = service.get("/readyz")
        except OSError:
            return None  # the listener is closed, and nobody was told before
        if status == 503:
            return time.monotonic() - signalled
    return None


def is_right(answer, is_stream, alone):
    status, body = answer
    if status != 200:
        return False
    if not is_stream:
        return body == alone
    *deltas, done = wire.events(body)
    return done.get("type") == "transcript.text.done" and done["text"] == "".join(event["delta"] for event in deltas)


if __name__ == "__main__":
    main()
