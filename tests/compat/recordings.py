"""Something to say: the committed digits, and longer recordings made of them."""

import io
import wave
from pathlib import Path

DIGITS = Path(__file__).resolve().parent.parent / "fixtures" / "digits"
FORMATS = ["wav", "flac", "mp3", "m4a", "ogg", "opus"]
"""What is said in the digits, and what micro-whisper-digits hears in each of the formats."""
TEXT = "two seven six one"


def digits(extension="wav"):
    return DIGITS / f"utterance.{extension}"


def repeated(path, duration_secs):
    """A WAV file's sound over and over, with a second of silence in between, as (name, bytes)."""
    with wave.open(str(path)) as source:
        parameters, sound = source.getparams(), source.readframes(source.getnframes())
    pause = bytes(parameters.framerate * parameters.sampwidth * parameters.nchannels)
    length = int(duration_secs * parameters.framerate) * parameters.sampwidth * parameters.nchannels
    out = io.BytesIO()
    with wave.open(out, "wb") as target:
        target.setparams(parameters)
        target.writeframes(((sound + pause) * (length // len(sound + pause) + 1))[:length])
    return f"{duration_secs}s.wav", out.getvalue()


def long_mp3(duration_secs):
    """An MP3 file of this length that takes long to decode and has little to say: frames may follow one another for ever."""
    frames = digits("mp3").read_bytes()
    clip_secs = 2.0
    return f"{duration_secs}s.mp3", frames * int(duration_secs / clip_secs)
