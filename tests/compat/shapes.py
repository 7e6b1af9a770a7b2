"""What a response must look like, whatever was said."""

import re

from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)

LANGUAGE = re.compile(r"[a-z][a-z ]+")


def words(text):
    return " ".join(text.split())


def plain(result, language=None):
    """response_format=json"""
    assert type(result) in (Transcription, Translation), type(result)
    assert isinstance(result.text, str)
    if isinstance(result, Transcription):
        check_usage(result.usage)
        assert result._request_id, "no request id"


def check_usage(usage):
    assert usage is not None, "no usage"
    if usage.type == "duration":
        assert usage.seconds > 0
    else:
        assert usage.type == "tokens" and usage.total_tokens == usage.input_tokens + usage.output_tokens, usage


def verbose(result, has_words, has_segments, duration_secs=None, language="english"):
    """response_format=verbose_json; `None`: either way. `language` is that of a translation."""
    assert type(result) in (TranscriptionVerbose, TranslationVerbose), type(result)
    assert isinstance(result.duration, float), f"duration is {result.duration!r}"
    if duration_secs is not None:
        assert abs(result.duration - duration_secs) < 0.05, f"{result.duration} of {duration_secs} s"
    assert LANGUAGE.fullmatch(result.language), result.language
    segments = result.segments or []
    if has_segments is not None:
        assert bool(segments) == has_segments, f"{len(segments)} segments"
    end = 0.0
    for index, segment in enumerate(segments):
        assert segment.id == index, f"segment {index} has id {segment.id}"
        assert end <= segment.start <= segment.end <= result.duration + 0.02, f"segment {index}: {segment}"
        end = segment.end
        assert segment.tokens and all(isinstance(token, int) for token in segment.tokens)
        assert isinstance(segment.seek, int) and segment.seek >= 0
        assert segment.avg_logprob <= 0 and segment.compression_ratio >= 0 and 0 <= segment.no_speech_prob <= 1
        assert 0 <= segment.temperature <= 1
    if segments:
        assert words("".join(segment.text for segment in segments)) == words(result.text), "segments are not the text"
    check_coverage(result)
    if isinstance(result, TranslationVerbose):
        assert result.language == language, result.language
        return
    assert result.usage and result.usage.type == "duration", result.usage
    assert bool(result.words) == has_words, f"words: {result.words!r:.100}"
    end = 0.0
    for word in result.words or []:
        assert end <= word.start <= word.end <= result.duration + 0.02, f"{word} after {end}"
        end = word.end
        inside = not segments or any(s.start - 0.01 <= word.start and word.end <= s.end + 0.01 for s in segments)
        assert inside, f"{word} is in no segment"
    if result.words:
        assert "".join(word.word for word in result.words).replace(" ", "") == result.text.replace(" ", "")


def check_coverage(result):
    """Seconds of speech, those that were decoded, and where the others are: keys of ours."""
    coverage = (result.model_extra or {}).get("coverage")
    assert coverage is not None, "no coverage"
    assert set(coverage) == {"speech_seconds", "decoded_seconds", "gaps"}, coverage
    assert 0 <= coverage["decoded_seconds"] <= coverage["speech_seconds"] + 1e-6 <= result.duration + 0.02, coverage
    for gap in coverage["gaps"]:
        assert gap["start"] < gap["end"] and gap["reason"], gap


def text(result):
    """response_format=text"""
    assert type(result) is str, type(result)
    assert not result.startswith(("{", '"')), result
    return result


SRT_TIME = re.compile(r"(\d\d):(\d\d):(\d\d),(\d\d\d)")
VTT_TIME = re.compile(r"(?:(\d\d):)?(\d\d):(\d\d)\.(\d\d\d)")


def cues(blocks, time):
    """The cues' texts; their times are in order."""
    spoken, last = [], 0.0
    for block in blocks:
        times, *lines = block.split("\n")
        start, end = (seconds(time, part) for part in times.split(" --> "))
        assert last <= start <= end, f"{times} after {last}"
        assert lines and all(lines), f"an empty line in a cue: {block!r}"
        last = end
        spoken += lines
    return words(" ".join(spoken))


def seconds(time, text):
    found = time.fullmatch(text)
    assert found, f"{text!r} is no time"
    hours, minutes, secs, milliseconds = (int(part or 0) for part in found.groups())
    assert minutes < 60 and secs < 60, text
    return 3600 * hours + 60 * minutes + secs + milliseconds / 1000


def srt(result):
    """response_format=srt; its text."""
    blocks = text(result).strip().split("\n\n")
    for number, block in enumerate(blocks, 1):
        assert block.split("\n")[0] == str(number), f"cue {number}: {block!r}"
    return cues([block.split("\n", 1)[1] for block in blocks], SRT_TIME)


def vtt(result):
    """response_format=vtt; its text."""
    head, *blocks = text(result).strip().split("\n\n")
    assert head == "WEBVTT", head
    return cues(blocks, VTT_TIME)


def stream(events):
    """The text of a stream."""
    kinds = [type(event) for event in events]
    assert kinds and kinds[-1] is TranscriptionTextDoneEvent, kinds
    assert set(kinds[:-1]) <= {TranscriptionTextDeltaEvent}, kinds
    *deltas, done = events
    assert all(event.type == "transcript.text.delta" for event in deltas) and done.type == "transcript.text.done"
    assert all(isinstance(event.delta, str) and event.delta for event in deltas), "an empty delta"
    joined = "".join(event.delta for event in deltas)
    assert joined == done.text, f"deltas {joined!r} are not {done.text!r}"
    if done.usage is not None:
        assert done.usage.type == "tokens", done.usage
        assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens, done.usage
    return done.text


def logprobs(entries, spoken):
    """Tokens whose bytes are the text, each with a log-probability."""
    assert entries, "no logprobs"
    for entry in entries:
        assert isinstance(entry.token, str) and entry.logprob <= 0, entry
        assert all(byte == int(byte) and 0 <= byte < 256 for byte in entry.bytes), entry
    joined = b"".join(bytes(int(byte) for byte in entry.bytes) for entry in entries).decode("utf-8")
    assert words(joined) == words(spoken), f"logprobs of {joined!r}, text {spoken!r}"
