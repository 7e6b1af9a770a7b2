"""What the client tries again, and when: 429 and 503 with a hint after the hinted time, a model that will never load not at all."""

import contextlib
import time

import openai

import recordings
import wire
from errors import stalled_hub
from service import Service

# Two requests are taken, further ones told to come back.
SMALL = {"serve": {"max_queued_requests": 2}}
# The clock of a client that was told to wait may be so much early.
SLACK_SECS = 0.002


def hints(caller):
    """The seconds between the client's requests, and what the response before each had said."""
    gaps = []
    for (_, status, headers), (sent, _) in zip(caller.received, caller.sent[1:], strict=False):
        answered = caller.received[len(gaps)][0]
        gaps.append((status, float(headers["retry-after-ms"]) / 1000, sent - answered))
    return gaps


def check_hints(caller):
    for number, (status, hinted, waited) in enumerate(hints(caller), 1):
        assert 0 < hinted <= 120, f"a hint of {hinted} s"
        assert waited >= hinted - SLACK_SECS, f"request {number + 1} came {waited:.3f} s after {status}, hint {hinted} s"
    counts = [int(headers["x-stainless-retry-count"]) for _, headers in caller.sent]
    assert counts == list(range(len(counts))), counts


def busy(report, speechd, model_dir, make_callers):
    with Service(speechd, [f"m={model_dir}"], SMALL) as service:
        long = recordings.repeated(recordings.digits(), 55)
        slow = recordings.repeated(recordings.digits(), 240)
        for caller in make_callers(service.url, max_retries=2):
            with report.check("retries", f"429 is tried again after the hinted time, {caller.name}"), full(service, slow):
                fields = dict(model="m", file=long)
                with contextlib.suppress(openai.RateLimitError):
                    caller.transcribe(**fields)
                assert caller.received[0][1] == 429, [status for _, status, _ in caller.received]
                assert len(caller.sent) >= 2, "it was not tried again"
                check_hints(caller)
                report.note("retries", f"429: waited {[f'{h:.2f} s (hint) {w:.2f} s' for _, h, w in hints(caller)]}")
        for caller in make_callers(service.url, max_retries=0):
            with report.check("errors", f"429, {caller.name}"), full(service, slow):
                method = lambda client: client.audio.transcriptions.create(model="m", file=long)  # noqa: E731
                error = caller.refused(method, openai.RateLimitError)
                assert error.response.headers["retry-after"] and error.response.headers["retry-after-ms"]
        for caller in make_callers(service.url, max_retries=40):
            with report.check("retries", f"a client that comes back is served, {caller.name}"), full(service, slow):
                assert caller.transcribe(model="m", file=long).text
                assert len(caller.sent) > 1
                check_hints(caller)


@contextlib.contextmanager
def full(service, file):
    """A queue that is full for a while."""
    waiting = []
    end = time.monotonic() + 30
    while time.monotonic() < end:
        # Much work: none of them is done before the last one came, however fast the machine.
        exchange = wire.Exchange(service, {"model": "m", "beam_size": "8"}, file)
        exchange.connection.sock.settimeout(0.3)
        try:
            # Only a refusal is answered at once.
            if exchange.connection.getresponse().status == 429:
                break
        except TimeoutError:
            waiting.append(exchange)
    else:
        raise AssertionError(f"{len(waiting)} requests did not fill the queue")
    try:
        yield
    finally:
        for exchange in waiting:
            exchange.hang_up()
        time.sleep(0.3)


def loading(report, speechd, model_dir, make_callers):
    """A model that is being fetched from a hub that does not answer, and then cannot be."""
    audio = recordings.digits()
    with stalled_hub() as (endpoint, close):
        environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
        models = [f"m={model_dir}", "slow=org/slow"]
        with Service(speechd, models, environment=environment, wait=False) as service:
            create = lambda client: client.audio.transcriptions.create(model="slow", file=audio)  # noqa: E731
            with report.check("errors", "alive but not ready while a model loads"):
                assert service.get("/livez")[0] == 200
                assert service.get("/readyz")[0] == 503 and service.get("/startupz")[0] == 503
            for caller in make_callers(service.url, max_retries=0):
                with report.check("errors", f"503 while a model loads, {caller.name}"):
                    caller.refused(create, openai.InternalServerError, code="model_loading", param="model")
                with report.check("errors", f"the others serve while a model loads, {caller.name}"):
                    wait_for(lambda caller=caller: served(caller, audio))
            for caller in make_callers(service.url, max_retries=1):
                with report.check("retries", f"503 is tried again after the hinted time, {caller.name}"):
                    caller.refused(create, openai.InternalServerError, code="model_loading", requests=2)
                    check_hints(caller)
                    report.note("retries", f"503: {[f'{h:.2f} s (hint) {w:.2f} s' for _, h, w in hints(caller)]}")
            close()
            with report.check("errors", "ready with the others when a model cannot be loaded"):
                wait_for(lambda: service.get("/readyz")[0] == 200)
            for caller in make_callers(service.url):
                with report.check("errors", f"503 that stays is not tried again, {caller.name}"):
                    caller.refused(create, openai.InternalServerError, param="model")


def served(caller, audio):
    try:
        return caller.transcribe(model="m", file=audio).text
    except openai.InternalServerError:
        return None


def wait_for(condition, secs=60):
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end, f"nothing happened in {secs} s"
        time.sleep(0.05)


def deadline(report, service, model, make_callers):
    """The client says how long it waits; the server does not work longer than that, and says so once."""
    long = recordings.repeated(recordings.digits(), 600)
    fields = dict(model=model, file=long, extra_headers={"x-stainless-read-timeout": "0.5"})
    for caller in make_callers(service.url):
        with report.check("errors", f"504 at the client's own deadline, {caller.name}"):
            create = lambda client: client.audio.transcriptions.create(**fields)  # noqa: E731
            error = caller.refused(create, openai.InternalServerError, code="timeout")
            assert error.status_code == 504, error


def stream_deadline(report, speechd, model_dir, make_callers):
    """A stream sends all the time, so only the server's own limit ends it, and says so inside."""
    with Service(speechd, [f"m={model_dir}"], {"serve": {"request_timeout_secs": 2.0}}) as service:
        long = recordings.repeated(recordings.digits(), 1200)
        for caller in make_callers(service.url):
            with report.check("errors", f"an error inside a stream, {caller.name}"):
                try:
                    events = caller.transcribe(model="m", file=long, stream=True)
                except openai.APIError as error:
                    assert error.code == "timeout" and error.body["message"], error
                    assert len(caller.sent) == 1, f"{len(caller.sent)} requests"
                    assert not isinstance(error, openai.APIStatusError), "it came before the stream"
                else:
                    raise AssertionError(f"{len(events)} events and no error")
