"""What a schema cannot say, for schemathesis: `file` is sound and `model` a model that is served, and some fields go with certain
others only. Three of four requests are made to agree with that, so that they reach the model; one stays as it was drawn.
Values that break the schema are left alone, for the server to refuse."""

import recordings
import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import Binary

SOUND = Binary(recordings.mp3(0.5)[1])
MODEL = "digits"
TEXTS = {"model", "prompt", "language"}
LISTS_OF_TEXTS = {"hotwords[]", "keywords[]", "languages[]"}
# Which `0` and `1` turn off and on, too.
SWITCHES = {"stream", "fallback", "condition_on_previous_text"}
FORMATS = {"json", "text", "srt", "vtt", "verbose_json"}

schemathesis.openapi.format("binary", strategies.sampled_from([True] * 7 + [False]).flatmap(
    lambda is_sound: strategies.just(SOUND) if is_sound else strategies.binary().map(Binary)
))  # fmt: skip


@schemathesis.hook
def flatmap_body(context, body):
    if not isinstance(body, dict):
        return strategies.just(body)
    return strategies.sampled_from([True, True, True, False]).map(lambda is_tidy: tidied(dict(body)) if is_tidy else body)


@schemathesis.hook
def filter_body(context, body):
    """All values of a form arrive as text. So some break the schema here and not there: a list of one instead of its element, none
    instead of nothing, anything at all for a text or for one of several."""
    if not isinstance(body, dict):
        return True
    return all(arrives(name, value) for name, value in body.items())


def arrives(name, value):
    """Whether the server can tell that a value of this type breaks the schema, and means to."""
    if isinstance(value, list) and len(value) < 2 and not name.endswith("[]"):
        return False
    if name in SWITCHES:
        return isinstance(value, bool) or value not in (0, 1, "0", "1")
    if name in TEXTS:
        return isinstance(value, str)
    if name == "cascade":
        # A switch or any name, and `0` is a switch.
        return isinstance(value, (bool, str))
    if name in LISTS_OF_TEXTS:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    return True


def tidied(body):
    """The same request without contradictions, as far as its values are allowed at all."""
    if isinstance(body.get("model"), str):
        body["model"] = MODEL
    if isinstance(body.get("language"), str):
        body["language"] = "en"
    if isinstance(body.get("languages[]"), list) and all(isinstance(text, str) for text in body["languages[]"]):
        body["languages[]"] = ["en"] * len(body["languages[]"])
        if body.get("language") == "en":
            del body["language"]
    if isinstance(body.get("cascade"), (bool, str)):
        # There is no translator behind the model.
        body["cascade"] = False
    if "chunking_strategy" in body and body.get("vad") in ("auto", "on", "off"):
        del body["vad"]
    if body.get("fallback") is True and body.get("temperature") != 0:
        body["fallback"] = False
    format = body.get("response_format", "json")
    if isinstance(format, str) and format in FORMATS:
        if body.get("timestamp_granularities[]") in (["word"], ["segment"], ["word", "segment"]):
            body["response_format"] = format = "verbose_json"
        if format != "json" and body.get("include[]") == ["logprobs"]:
            del body["include[]"]
        if format not in ("json", "text") and body.get("stream") is True:
            body["stream"] = False
    return body
