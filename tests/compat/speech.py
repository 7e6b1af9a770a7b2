"""`client.audio.speech`, `.voices` and `.voice_consents`: a model that speaks, as the official client asks it."""

import base64
import io
import json
import wave

import openai

import recordings
from service import Service

ENDPOINT, VOICES, CONSENTS = "speech", "voices", "voice_consents"
MODEL, TEXT = "org/voice", "Good morning, and a long day to all of you."
# What each format begins with.
STARTS = {"mp3": (b"\xff\xfb", b"\xff\xf3", b"ID3"), "opus": (b"OggS",), "flac": (b"fLaC",), "wav": (b"RIFF",), "pcm": (b"",)}
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm"}
HONOURED = [
    ("speed", dict(speed=2.0)),
    ("instructions", dict(instructions="")),
    ("stream_format", dict(stream_format="audio")),
    ("language, seed, steps, guidance, temperature (ours)",
     dict(extra_body={"language": "en", "seed": 7, "steps": 4, "guidance": 1.0, "temperature": 0.5})),
]  # fmt: skip
REFUSED = [
    ("input", dict(input=""), "input"),
    ("input", dict(input="a" * 4097), "input"),
    ("voice", dict(voice="nobody"), "voice"),
    ("voice", dict(voice={"id": "voice_none"}), "voice"),
    ("instructions", dict(instructions="like a pirate"), "instructions"),
    ("response_format=aac", dict(response_format="aac"), "response_format"),
    ("response_format", dict(extra_body={"response_format": "doc"}), "response_format"),
    ("speed", dict(speed=0.1), "speed"),
    ("speed", dict(speed=4.5), "speed"),
    ("stream_format", dict(extra_body={"stream_format": "frames"}), "stream_format"),
    ("language (ours)", dict(extra_body={"language": "klingon"}), "language"),
    ("steps (ours)", dict(extra_body={"steps": 0}), "steps"),
    ("unknown fields", dict(extra_body={"frobnicate": 1}), "frobnicate"),
]


def run(report, speechd, model_dir, callers):
    with Service(speechd, [f"{MODEL}={model_dir}"]) as service:
        for caller in callers(service.url):
            speech(report, caller, service)
            brought(report, caller)


def fields(**more):
    return dict(model=MODEL, input=TEXT, voice="alloy") | more


def spoken(caller, **more):
    """All bytes of a speech, and its type."""
    response = caller.call(lambda client: client.audio.speech.create(**fields(**more)))
    return response.content, response.response.headers["content-type"]


def speech(report, caller, service):
    pcm = b""
    for name, starts in STARTS.items():
        with report.check(ENDPOINT, f"{name}, {caller.name}", (ENDPOINT, f"response_format={name}"), "honoured"):
            content, content_type = spoken(caller, response_format=name)
            assert content_type == TYPES[name], content_type
            assert len(content) > 1000 and content.startswith(starts), content[:16]
            pcm = content if name == "pcm" else pcm
    with report.check(ENDPOINT, f"a WAV of unknown length, {caller.name}", (ENDPOINT, "response_format=wav"), "honoured"):
        content, _ = spoken(caller, response_format="wav")
        assert content[4:8] == content[40:44] == b"\xff" * 4, content[:44]
        with wave.open(io.BytesIO(content)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert content[44:] == pcm, "not the sound of the PCM"
    with report.check(ENDPOINT, f"server-sent events, {caller.name}", (ENDPOINT, "stream_format"), "honoured"):
        content, content_type = spoken(caller, response_format="pcm", stream_format="sse")
        assert content_type == "text/event-stream", content_type
        events = [json.loads(line[6:]) for line in content.decode().splitlines() if line.startswith("data: ")]
        *deltas, done = events
        assert {event["type"] for event in deltas} == {"speech.audio.delta"} and done["type"] == "speech.audio.done"
        assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == pcm, "not the sound of the PCM"
        usage = done["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0, usage
    with report.check(ENDPOINT, f"with_streaming_response, {caller.name}", (ENDPOINT, "stream_format"), "honoured"):
        pieces = caller.call(streamed_async if caller.is_async else streamed)
        assert b"".join(pieces) == pcm, f"{len(pieces)} pieces"
    with report.check(ENDPOINT, f"sound comes while it is made, {caller.name}", (ENDPOINT, "stream_format"), "honoured"):
        early = early_async if caller.is_async else early_sync
        n_running, n_more = caller.call(lambda client: early(client, service))
        assert n_running == 1, f"the model has {n_running:.0f} requests when the first sound is here"
        assert n_more > 3, f"{n_more} further pieces"
    for name, more in HONOURED:
        with report.check(ENDPOINT, f"{name}, {caller.name}", (ENDPOINT, name), "honoured"):
            assert len(spoken(caller, **more)[0]) > 1000
    for name, more, param in REFUSED:
        with report.check(ENDPOINT, f"{name} {more}"[:80] + f", {caller.name}", (ENDPOINT, name), "refused"):
            method = lambda client, more=more: client.audio.speech.create(**fields(**more))  # noqa: E731
            caller.refused(method, openai.BadRequestError, param=param)
    with report.check(ENDPOINT, f"a model that speaks does not hear, {caller.name}", ("transcriptions", "model"), "refused"):
        audio = recordings.digits()
        method = lambda client: client.audio.transcriptions.create(model=MODEL, file=audio)  # noqa: E731
        caller.refused(method, openai.BadRequestError, param="model")


def streamed(client):
    with client.audio.speech.with_streaming_response.create(**fields(response_format="pcm")) as response:
        return list(response.iter_bytes(4096))


def running(service):
    return service.metrics()[f'speechd_queue_requests{{model="{MODEL}"}}']


def early_sync(client, service):
    """Requests that the model has when the first sound of a long text is here, and how many pieces are to come."""
    with client.audio.speech.with_streaming_response.create(**fields(input=TEXT * 80, response_format="pcm")) as response:
        pieces = response.iter_bytes()
        next(pieces)
        return running(service), sum(1 for _ in pieces)


async def early_async(client, service):
    async with client.audio.speech.with_streaming_response.create(**fields(input=TEXT * 80, response_format="pcm")) as response:
        pieces = response.iter_bytes()
        await anext(pieces)
        return running(service), len([None async for _ in pieces])


async def streamed_async(client):
    async with client.audio.speech.with_streaming_response.create(**fields(response_format="pcm")) as response:
        return [piece async for piece in response.iter_bytes(4096)]


def brought(report, caller):
    audio = recordings.digits()
    consent = voice = None
    with report.check(CONSENTS, f"create, {caller.name}", (CONSENTS, "create"), "honoured"):
        create = lambda client: client.audio.voice_consents.create(name="me", language="en-US", recording=audio)  # noqa: E731
        consent = caller.call(create)
        assert (consent.object, consent.name, consent.language) == ("audio.voice_consent", "me", "en-US"), consent
    with report.check(CONSENTS, f"list, retrieve, update, {caller.name}", (CONSENTS, "list, retrieve, update"), "honoured"):
        listed = caller.call(listed_async if caller.is_async else lambda client: list(client.audio.voice_consents.list(limit=1)))
        assert consent.id in [found.id for found in listed], listed
        assert caller.call(lambda client: client.audio.voice_consents.retrieve(consent.id)) == consent
        renamed = caller.call(lambda client: client.audio.voice_consents.update(consent.id, name="I"))
        assert renamed.name == "I" and renamed.id == consent.id, renamed
    with report.check(VOICES, f"create, {caller.name}", (VOICES, "create"), "honoured"):
        create = lambda client: client.audio.voices.create(name="mine", consent=consent.id, audio_sample=audio)  # noqa: E731
        voice = caller.call(create)
        assert (voice.object, voice.type, voice.name) == ("audio.voice", "audio_sample", "mine"), voice
    for given in [voice.id, {"id": voice.id}] if voice else []:
        with report.check(VOICES, f"speak with {type(given).__name__}, {caller.name}", (ENDPOINT, "voice"), "honoured"):
            assert len(spoken(caller, voice=given)[0]) > 1000
    for name, more, param in [
        ("type=prompt", dict(type="prompt", prompt="an old man"), "type"),
        ("consent", dict(consent="cons_none", audio_sample=audio), "consent"),
    ]:
        with report.check(VOICES, f"{name}, {caller.name}", (VOICES, name), "refused"):
            method = lambda client, more=more: client.audio.voices.create(name="a", **more)  # noqa: E731
            caller.refused(method, openai.BadRequestError, param=param)
    with report.check(VOICES, f"delete, {caller.name}", (VOICES, "delete"), "honoured"):
        deleted = caller.call(lambda client: client.audio.voices.delete(voice.id))
        assert deleted.deleted and deleted.object == "audio.voice.deleted" and deleted.id == voice.id, deleted
        caller.refused(lambda client: client.audio.voices.delete(voice.id), openai.NotFoundError)
    with report.check(CONSENTS, f"delete, {caller.name}", (CONSENTS, "delete"), "honoured"):
        deleted = caller.call(lambda client: client.audio.voice_consents.delete(consent.id))
        assert deleted.deleted and deleted.object == "audio.voice_consent", deleted
        caller.refused(lambda client: client.audio.voice_consents.retrieve(consent.id), openai.NotFoundError)


async def listed_async(client):
    return [consent async for consent in client.audio.voice_consents.list(limit=1)]
