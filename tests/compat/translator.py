"""The translator that is part of the program, as the official client asks it: the language goes into `extra_body`."""

from pathlib import Path

import openai

import shapes
from service import Service

MODEL = "translate-en-ps"
TARGET = {"to_language": "ps"}
CLIP = Path(__file__).resolve().parents[2] / "models/bundled" / MODEL / "phrases.wav"
FORMATS = {"json": shapes.plain, "text": shapes.text, "srt": shapes.srt, "vtt": shapes.vtt,
           "verbose_json": lambda result: shapes.verbose(result, None, True, language="pashto")}  # fmt: skip


def run(report, speechd, callers):
    # Nobody names a model: those inside are served.
    with Service(speechd, []) as service:
        for caller in callers(service.url):
            fields, spoken = dict(model=MODEL, file=CLIP), ""
            with report.check("translator", f"some text, {caller.name}", ("translations", "file"), "honoured"):
                spoken = caller.translate(**fields, extra_body=TARGET).text
                report.note("translator", f"{CLIP.name}: {spoken!r}")
                assert spoken.strip(), "nothing is written"
            for name, shape in FORMATS.items():
                field = ("translations", f"response_format={name}")
                with report.check("translator", f"{name}, {caller.name}", field, "honoured"):
                    result = caller.translate(**fields, response_format=name, extra_body=TARGET)
                    text = shape(result) if name in ("text", "srt", "vtt") else result.text
                    shape(result)
                    assert shapes.words(text) == shapes.words(spoken), f"{text!r} is not {spoken!r}"
            for told, what in [({}, "no language"), ({"to_language": "en"}, "to_language=en")]:
                with report.check("translator", f"{what}, {caller.name}", ("translations", "to_language (ours)"), "refused"):
                    method = lambda client, told=told: client.audio.translations.create(**fields, extra_body=told)  # noqa: E731
                    error = caller.refused(method, openai.BadRequestError, param="to_language")
                    assert "into ps only" in str(error), error
