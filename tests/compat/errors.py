"""Every class of error: the right exception with message, type, code, param and request id, and exactly one HTTP request for
whatever would fail again the same way."""

import contextlib
import socket
import threading

import openai

import recordings
from service import Service

NAMES = ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "m\0", "x" * 10_000, "ｄigits", ""]


def run(report, callers, model, audio):
    for caller in callers:
        deterministic(report, caller, model, audio)


def deterministic(report, caller, model, audio):
    def create(**fields):
        return lambda client: client.audio.transcriptions.create(**(dict(model=model, file=audio) | fields))

    def check(name, kind, method, **expected):
        with report.check("errors", f"{name}, {caller.name}"):
            error = caller.refused(method, kind, **expected)
            if "status" in expected:
                assert error.status_code == expected["status"]

    sound = audio.read_bytes()
    for name, file in [
        ("an empty file", ("a.wav", b"")),
        ("a file that is no sound", ("a.wav", b"\x00\x01" * 4000)),
        ("a text", ("a.mp3", b"There is no sound in this.\n" * 50)),
        ("half a header", ("a.wav", sound[:20])),
    ]:
        check(name, openai.BadRequestError, create(file=file), param="file")
    for name in NAMES:
        kind = openai.NotFoundError if name else openai.APIStatusError
        with report.check("errors", f"model={name[:30]!r}, {caller.name}"):
            method = create(model=name)
            if name:
                caller.refused(method, kind, code="model_not_found", param="model")
            else:
                # Empty is no name; whether that is missing or unknown is a matter of taste.
                try:
                    caller.call(method)
                except (openai.BadRequestError, openai.NotFoundError) as error:
                    assert error.param == "model" and len(caller.sent) == 1
                else:
                    raise AssertionError("it was served")
    check("an unknown path", openai.NotFoundError, lambda client: client.get("/audio/none", cast_to=object))
    check("a wrong method", openai.APIStatusError, lambda client: client.get("/audio/transcriptions", cast_to=object))
    as_json = lambda client: client.post("/audio/transcriptions", body={"model": model}, cast_to=object)  # noqa: E731
    with report.check("errors", f"JSON instead of a form, {caller.name}"):
        assert caller.refused(as_json, openai.APIStatusError).status_code == 415
    with report.check("errors", f"a compressed body, {caller.name}"):
        method = create(extra_headers={"content-encoding": "gzip"})
        assert caller.refused(method, openai.APIStatusError).status_code == 415


def limits(report, speechd, model_dir, make_callers):
    """What depends on the settings: keys and sizes."""
    settings = {"serve": {"max_upload_bytes": 200_000}, "uploads": {"max_duration_secs": 5.0}}
    with Service(speechd, [f"m={model_dir}"], settings, keys=["first-key", "second-key"]) as service:
        audio = recordings.digits()
        create = lambda client: client.audio.transcriptions.create(model="m", file=audio)  # noqa: E731
        for caller in make_callers(service.url, key="second-key"):
            with report.check("errors", f"one of several keys, {caller.name}"):
                assert caller.transcribe(model="m", file=audio).text
            with report.check("errors", f"413: an upload over the limit, {caller.name}"):
                method = lambda client: client.audio.transcriptions.create(model="m", file=("a.wav", bytes(300_000)))  # noqa: E731
                error = caller.refused(method, openai.APIStatusError)
                assert error.status_code == 413, error
            with report.check("errors", f"a recording over the limit, {caller.name}"):
                method = lambda client: client.audio.transcriptions.create(model="m", file=recordings.mp3(8))  # noqa: E731
                error = caller.refused(method, openai.BadRequestError, param="file")
                assert "5" in error.body["message"], error
        for name, key in [("wrong", "third-key"), ("a prefix", "second-ke"), ("longer", "second-key2")]:
            for caller in make_callers(service.url, key=key):
                with report.check("errors", f"401: key {name}, {caller.name}"):
                    caller.refused(create, openai.AuthenticationError, code="invalid_api_key")
                    caller.refused(lambda client: client.models.list(), openai.AuthenticationError)
        with report.check("errors", "401: no key"):
            for path, expected in [("/v1/models", 401), ("/livez", 200), ("/readyz", 200)]:
                assert service.get(path)[0] == expected, path
        with report.check("errors", "keys are not in the log"):
            assert not [line for line in service.log if "second-key" in line or "third-key" in line]


@contextlib.contextmanager
def stalled_hub():
    """A hub that accepts every connection and says nothing, until its socket is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def accept():
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()

    def close():
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()

    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", close
    finally:
        close()
