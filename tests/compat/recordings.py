"""Something to say: the committed digits, and longer recordings made of them."""

import io
import wave
from pathlib import Path

DIGITS = Path(__file__).resolve().parent.parent / "fixtures" / "digits"
FORMATS = ["wav", "flac", "mp3", "m4a", "ogg", "opus"]


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


def mp3(duration_secs):
    """The digits over and over as an MP3 file of this length, as (name, bytes): small, and slow to decode."""
    sound = digits("mp3").read_bytes()
    # 64 kbit/s at 16 kHz. The first frame holds no sound but says how many frames follow it.
    frame_bytes, frame_secs = 288, 0.036
    start = sound.index(b"Info") - 13 + frame_bytes
    frames = sound[start : start + (len(sound) - start) // frame_bytes * frame_bytes]
    n_bytes = round(duration_secs / frame_secs) * frame_bytes
    return f"{duration_secs}s.mp3", (frames * (n_bytes // len(frames) + 1))[:n_bytes]
