"""One utterance in six formats.

    python tests/oracle/make.py formats

Makes tests/fixtures/digits/utterance.{wav,flac,mp3,opus,ogg,m4a} from one digit string (16 kHz mono) and utterance.json: the text and ids
that transformers makes of each with micro-whisper-digits, greedy without timestamps. All must agree, and the script fails if
they don't. Encoded by ffmpeg 5.1.9 (libmp3lame, libopus, libvorbis, its own AAC), decoded again by it for the check. Opus is 48 kHz by nature.
Needs ffmpeg, SPEECHD_MODELS/micro-whisper-digits and SPEECHD_DATA/speech/digit-strings.
"""

import subprocess
import warnings

import numpy as np
import torch
from transformers import WhisperFeatureExtractor
from whisper.tokenizer import get_tokenizer

from common import FIXTURES, load_transformers, read_clip, shared, versions, write_json

warnings.filterwarnings("ignore")

CLIP, REFERENCE = "short_012", "two seven six one"
ENCODE = {
    "wav": ["-c:a", "pcm_s16le"],
    "flac": ["-c:a", "flac"],
    "mp3": ["-c:a", "libmp3lame", "-b:a", "64k"],
    "opus": ["-c:a", "libopus", "-b:a", "48k", "-serial_offset", "1"],
    "ogg": ["-c:a", "libvorbis", "-q:a", "3", "-serial_offset", "1"],
    "m4a": ["-c:a", "aac", "-b:a", "64k"],
}


def ffmpeg(*arguments, **kwargs):
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments]
    return subprocess.run(command, check=True, **kwargs).stdout


def decode(path):
    raw = ffmpeg("-i", path, "-f", "f32le", "-ac", "1", "-ar", "16000", "-", stdout=subprocess.PIPE)
    return np.frombuffer(raw, dtype=np.float32)


def main():
    folder = shared("SPEECHD_MODELS", "micro-whisper-digits")
    source = shared("SPEECHD_DATA", "speech", "digit-strings", f"{CLIP}.wav")
    original = read_clip(source)
    model = load_transformers(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = get_tokenizer(True, num_languages=100, language="en", task="transcribe")
    files = {}
    for extension, options in ENCODE.items():
        path = FIXTURES / "digits" / f"utterance.{extension}"
        container = ["-f", "ogg"] if extension == "opus" else []
        ffmpeg("-i", source, "-map_metadata", "-1", "-bitexact", *options, *container, path)
        samples = decode(path)
        features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        out = model.generate(
            features, language="en", task="transcribe", return_timestamps=False, max_new_tokens=60, do_sample=False,
            return_dict_in_generate=True, output_scores=True, force_unique_generate_call=True,
        )  # fmt: skip
        ids = [t for t in out.sequences[0].tolist()[4:] if t < tokenizer.eot]
        top = torch.stack([s[0] for s in out.scores]).topk(2, dim=-1).values
        files[path.name] = dict(
            bytes=path.stat().st_size, decoded_samples_16k=len(samples), ids=ids, text=tokenizer.decode(ids),
            smallest_margin=round((top[:, 0] - top[:, 1]).min().item(), 3),
        )  # fmt: skip
        print(path.name, files[path.name])
    texts = {f["text"].strip() for f in files.values()}
    assert texts == {REFERENCE}, texts
    write_json(
        FIXTURES / "digits" / "utterance.json",
        dict(made_by="tests/oracle/formats.py", versions=versions(), model="micro-whisper-digits", clip=f"{CLIP}.wav",
             samples=len(original), reference=REFERENCE, ids=files["utterance.wav"]["ids"], files=files),
    )  # fmt: skip


if __name__ == "__main__":
    main()
