"""Every other field: honoured, or refused by a 400 that names it. None is ignored."""

import httpx2
import openai

import recordings
import shapes

TRANSCRIPTIONS, TRANSLATIONS = "transcriptions", "translations"
A_SPEAKER = "data:audio/wav;base64,UklGRg=="

# field, what is sent
HONOURED = [
    ("language", dict(language="en")),
    ("languages[]", dict(languages=["en", "de"])),
    ("keywords[]", dict(keywords=["seven", "two"])),
    ("prompt", dict(prompt="one two three")),
    ("temperature", dict(temperature=0.0)),
    ("temperature", dict(temperature=0.2)),
    ("chunking_strategy", dict(chunking_strategy="auto")),
    ("chunking_strategy", dict(chunking_strategy={"type": "server_vad"})),
    (
        "chunking_strategy",
        dict(
            chunking_strategy=dict(type="server_vad", prefix_padding_ms=200, silence_duration_ms=400, threshold=0.4)
        ),
    ),
    ("stream", dict(stream=False)),
    ("hotwords (ours)", dict(extra_body={"hotwords": "seven"})),
    ("beam_size (ours)", dict(extra_body={"beam_size": 2})),
    ("patience (ours)", dict(extra_body={"beam_size": 2, "patience": 1.0})),
    ("length_penalty (ours)", dict(extra_body={"beam_size": 2, "length_penalty": 0.5})),
    ("best_of, seed (ours)", dict(temperature=0.2, extra_body={"best_of": 2, "seed": 7})),
    ("fallback (ours)", dict(extra_body={"fallback": False})),
    ("compression_ratio_threshold (ours)", dict(extra_body={"compression_ratio_threshold": "off"})),
    ("logprob_threshold (ours)", dict(extra_body={"logprob_threshold": -2.0})),
    ("no_speech_threshold (ours)", dict(extra_body={"no_speech_threshold": 0.9})),
    ("condition_on_previous_text (ours)", dict(extra_body={"condition_on_previous_text": False})),
    ("max_new_tokens (ours)", dict(extra_body={"max_new_tokens": 20})),
    ("vad (ours)", dict(extra_body={"vad": "on"})),
]

# field, what is sent, the parameter that the error names
REFUSED = [
    ("language", dict(language="klingon"), "language"),
    ("languages[]", dict(languages=["en", "klingon"]), "languages"),
    ("languages[]", dict(languages=["en", "de"], language="en"), "languages"),
    ("temperature", dict(temperature=1.5), "temperature"),
    ("temperature", dict(temperature=-0.5), "temperature"),
    ("temperature", dict(extra_body={"temperature": "warm"}), "temperature"),
    ("response_format=diarized_json", dict(response_format="diarized_json"), "response_format"),
    ("response_format", dict(extra_body={"response_format": "doc"}), "response_format"),
    ("known_speaker_names[]", dict(known_speaker_names=["anna"]), "known_speaker_names"),
    ("known_speaker_references[]", dict(known_speaker_references=[A_SPEAKER]), "known_speaker_references"),
    ("include[]", dict(include=["logprobs"], response_format="verbose_json"), "include"),
    ("include[]", dict(include=["logprobs"], response_format="text"), "include"),
    ("include[]", dict(include=["everything"]), "include"),
    ("timestamp_granularities[]", dict(timestamp_granularities=["syllable"], response_format="verbose_json"),
     "timestamp_granularities"),
    ("chunking_strategy", dict(extra_body={"chunking_strategy": "never"}), "chunking_strategy"),
    ("chunking_strategy", dict(chunking_strategy={"type": "semantic_vad"}), "chunking_strategy"),
    ("chunking_strategy", dict(chunking_strategy={"type": "server_vad", "threshold": 1.5}), "chunking_strategy"),
    ("chunking_strategy", dict(chunking_strategy={"type": "server_vad", "silence_duration_ms": -1}),
     "chunking_strategy"),
    ("chunking_strategy", dict(chunking_strategy={"type": "server_vad", "eagerness": "high"}), "chunking_strategy"),
    ("stream", dict(extra_body={"stream": "maybe"}), "stream"),
    ("chunking_strategy", dict(chunking_strategy="auto", extra_body={"vad": "off"}), "chunking_strategy"),
    ("beam_size (ours)", dict(extra_body={"beam_size": 0}), "beam_size"),
    ("patience (ours)", dict(extra_body={"patience": "much"}), "patience"),
    ("fallback (ours)", dict(temperature=0.5, extra_body={"fallback": True}), "fallback"),
    ("max_new_tokens (ours)", dict(extra_body={"max_new_tokens": 100_000}), "max_new_tokens"),
    ("vad (ours)", dict(extra_body={"vad": "perhaps"}), "vad"),
    ("unknown fields", dict(extra_body={"frobnicate": "1"}), "frobnicate"),
]  # fmt: skip

TRANSLATION_REFUSED = [
    ("response_format", dict(extra_body={"response_format": "diarized_json"}), "response_format"),
    ("stream (ours)", dict(extra_body={"stream": "maybe"}), "stream"),
    ("stream (ours)", dict(response_format="srt", extra_body={"stream": True}), "stream"),
    ("cascade (ours)", dict(extra_body={"cascade": True}), "cascade"),
    ("language (ours)", dict(extra_body={"language": "klingon"}), "language"),
    ("to_language (ours)", dict(extra_body={"to_language": "ps"}), "to_language"),
    ("timestamp_granularities[]", dict(extra_body={"timestamp_granularities": ["word"]}), "timestamp_granularities"),
    ("temperature", dict(temperature=2.0), "temperature"),
]


def shown(fields):
    return ", ".join(f"{name}={value}" for name, value in fields.items())[:80]


def run(report, callers, model, audio):
    spoken = callers[0].transcribe(model=model, file=audio).text
    for caller in callers:
        transcriptions(report, caller, model, audio)
        logprobs(report, caller, model, audio, spoken)
        files(report, caller, model)
        translations(report, caller, model, audio)
    form_spellings(report, callers[0], model, audio)


def transcriptions(report, caller, model, audio):
    for field, sent in HONOURED:
        with report.check("fields", f"{shown(sent)}, {caller.name}", (TRANSCRIPTIONS, field), "honoured"):
            result = caller.transcribe(model=model, file=audio, **sent)
            shapes.plain(result)
            assert result.text.strip(), "no text"
    for field, sent, param in REFUSED:
        with report.check("fields", f"{shown(sent)}, {caller.name}", (TRANSCRIPTIONS, field), "refused"):
            method = lambda client, sent=sent: client.audio.transcriptions.create(model=model, file=audio, **sent)  # noqa: E731
            caller.refused(method, openai.BadRequestError, param=param)


def logprobs(report, caller, model, audio, spoken):
    field = (TRANSCRIPTIONS, "include[]")
    with report.check("fields", f"include=['logprobs'], {caller.name}", field, "honoured"):
        result = caller.transcribe(model=model, file=audio, include=["logprobs"])
        assert result.text == spoken
        shapes.logprobs(result.logprobs, spoken)
    with report.check("fields", f"include=['logprobs'], stream, {caller.name}", field, "honoured"):
        *deltas, done = caller.transcribe(model=model, file=audio, include=["logprobs"], stream=True)
        assert done.text == spoken
        shapes.logprobs(done.logprobs, spoken)
        shapes.logprobs([entry for delta in deltas for entry in delta.logprobs or []], spoken)
    with report.check("fields", f"no logprobs unless asked for, {caller.name}", field, "honoured"):
        assert caller.transcribe(model=model, file=audio).logprobs is None


def files(report, caller, model):
    """Every kind of file, by its name, without one and with the wrong one."""
    field = (TRANSCRIPTIONS, "file")
    wav = recordings.digits().read_bytes()
    ways = {extension: recordings.digits(extension) for extension in recordings.FORMATS}
    ways |= {"bytes": wav, "without an extension": ("speech", wav), "a content type": ("speech", wav, "audio/wav"),
             "the wrong extension": ("speech.mp3", wav, "audio/mpeg")}  # fmt: skip
    expected = None
    for name, file in ways.items():
        with report.check("fields", f"file: {name}, {caller.name}", field, "honoured"):
            text = caller.transcribe(model=model, file=file).text.strip()
            expected = expected or text
            assert text == expected, f"{text!r} is not {expected!r}"


def translations(report, caller, model, audio):
    def check(name, field="model", **sent):
        name = f"translations: {name}, {caller.name}"
        return report.check("fields", name, (TRANSLATIONS, field), "honoured"), dict(model=model, file=audio, **sent)

    shape = {"json": shapes.plain, "text": shapes.text, "srt": shapes.srt, "vtt": shapes.vtt,
             "verbose_json": lambda result: shapes.verbose(result, None, None)}  # fmt: skip
    for format, of in shape.items():
        checking, sent = check(format, f"response_format={format}", response_format=format)
        with checking:
            of(caller.translate(**sent))
    for field, sent in [
        ("prompt", dict(prompt="one two")),
        ("temperature", dict(temperature=0.0)),
        ("language (ours)", dict(extra_body={"language": "en"})),
        ("to_language (ours)", dict(extra_body={"to_language": "en"})),
        ("stream (ours)", dict(extra_body={"stream": False})),
        ("cascade (ours)", dict(extra_body={"cascade": False})),
    ]:
        checking, sent = check(shown(sent), field, **sent)
        with checking:
            shapes.plain(caller.translate(**sent))
    for field, sent, param in TRANSLATION_REFUSED:
        name = f"translations: {shown(sent)}, {caller.name}"
        with report.check("fields", name, (TRANSLATIONS, field), "refused"):
            method = lambda client, sent=sent: client.audio.translations.create(model=model, file=audio, **sent)  # noqa: E731
            caller.refused(method, openai.BadRequestError, param=param)


def form_spellings(report, caller, model, audio):
    """What curl users write: lists without brackets, the strategy as JSON."""
    spellings = {
        "include without []": {"include": "logprobs"},
        "chunking_strategy as JSON": {"chunking_strategy": '{"type": "server_vad", "threshold": 0.5}'},
        "languages without []": {"languages": "en"},
    }
    for name, fields in spellings.items():
        with report.check("fields", name, (TRANSCRIPTIONS, "names without []"), "honoured"):
            url = caller.options["base_url"] + "/audio/transcriptions"
            files = {"file": ("speech.wav", audio.read_bytes())}
            response = httpx2.post(url, data={"model": model, **fields}, files=files, timeout=60)
            assert response.status_code == 200, response.text
            assert response.json()["text"].strip()
            if "include" in fields:
                assert response.json()["logprobs"]
