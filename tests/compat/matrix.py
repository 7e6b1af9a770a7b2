"""{json, text, srt, vtt, verbose_json} x {stream, not} x {no, word, segment, both times} x {sync, async}."""

import openai

import shapes

FORMATS = ["json", "text", "srt", "vtt", "verbose_json"]
GRANULARITIES = [None, ["word"], ["segment"], ["word", "segment"]]
# Events carry text: a stream cannot be in a format that is made of the whole.
STREAMED = ["json", "text"]


def run(report, callers, model, audio, duration_secs):
    spoken = callers[0].transcribe(model=model, file=audio).text
    report.note("matrix", f"{audio.name}: {spoken!r}")
    assert spoken.strip(), f"{audio} has no text"
    for caller in callers:
        for format in FORMATS:
            for is_stream in (False, True):
                for granularities in GRANULARITIES:
                    cell(report, caller, model, audio, duration_secs, spoken, format, is_stream, granularities)


def cell(report, caller, model, audio, duration_secs, spoken, format, is_stream, granularities):
    fields = dict(model=model, file=audio, response_format=format)
    if is_stream:
        fields["stream"] = True
    if granularities:
        fields["timestamp_granularities"] = granularities
    times = "+".join(granularities or ["no times"])
    name = f"{format}, {'stream' if is_stream else 'whole'}, {times}, {caller.name}"
    endpoint = "transcriptions"
    # Several things may be wrong at once; whichever is named will do.
    wrong = []
    if granularities and format != "verbose_json":
        wrong.append("timestamp_granularities")
    if is_stream and format not in STREAMED:
        wrong += ["response_format", "stream"]
    if wrong:
        field = "timestamp_granularities[]" if wrong[0] == "timestamp_granularities" else "stream"
        with report.check("matrix", name, (endpoint, field), "refused"):
            method = lambda client: client.audio.transcriptions.create(**fields)  # noqa: E731
            error = caller.refused(method, openai.BadRequestError)
            assert (error.param or "").split("[")[0] in wrong, f"param {error.param} is none of {wrong}"
        return
    field = "stream" if is_stream else f"response_format={format}"
    if granularities:
        field = "timestamp_granularities[]"
    with report.check("matrix", name, (endpoint, field), "honoured"):
        result = caller.transcribe(**fields)
        if is_stream:
            text = shapes.stream(result)
            assert text == spoken, f"{text!r} is not {spoken!r}"
        elif format == "json":
            shapes.plain(result)
            assert result.text == spoken
        elif format == "verbose_json":
            wanted = granularities or ["segment"]
            # Segments that nobody asked for beside words do no harm.
            shapes.verbose(result, "word" in wanted, True if "segment" in wanted else None, duration_secs)
            assert result.text == spoken
        else:
            text = {"text": shapes.text, "srt": shapes.srt, "vtt": shapes.vtt}[format](result)
            assert shapes.words(text) == shapes.words(spoken), f"{text!r} is not {spoken!r}"
