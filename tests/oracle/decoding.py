"""What openai/whisper decodes from the reference checkpoint: its beam search and scores beside those of transformers.

    python tests/oracle/make.py decoding

Makes tests/fixtures/digits/decoding.json (needs SPEECHD_MODELS/micro-whisper-digits and SPEECHD_DATA/speech/digit-strings). One call of
decode() per clip and setting: clip padded with zeros to 8 s, temperature 0, suppress_tokens=[] (the checkpoint has none; that still bans
sot, startofprev, startoflm, transcribe, translate and nospeech), sample_len its default 48. Greedy ids must equal the checkpoint's
own expected.json, which transformers made; the script fails otherwise. Made with torch 2.15.0, openai-whisper 20250625.
"""

import json
import warnings

import torch
from transformers import WhisperFeatureExtractor
from whisper.tokenizer import get_tokenizer

from common import FIXTURES, load_openai, openai_decode, read_clip, shared, versions, write_json

warnings.filterwarnings("ignore")

CLIPS = [f"short_{i:03}.wav" for i in (0, 1, 4, 8, 13, 14, 22, 27, 37, 47, 56, 58)]
SETTINGS = {
    "greedy": dict(without_timestamps=True),
    "greedy_timestamps": dict(),
    "beam5": dict(without_timestamps=True, beam_size=5),
    "beam5_timestamps": dict(beam_size=5),
    "beam5_patience_2": dict(without_timestamps=True, beam_size=5, patience=2.0),
}


def main():
    folder = shared("SPEECHD_MODELS", "micro-whisper-digits")
    clips = shared("SPEECHD_DATA", "speech", "digit-strings")
    published = {c["path"]: c for c in json.loads((folder / "expected.json").read_text())["clips"]}
    model = load_openai(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = get_tokenizer(True, num_languages=100, language="en", task="transcribe")
    rows = []
    for path in CLIPS:
        samples = read_clip(clips / path)
        features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features[0]
        row = dict(path=path, text=published[path]["text"])
        for key, options in SETTINGS.items():
            row[key] = openai_decode(model, tokenizer, features, suppress_tokens=[], **options)
        assert row["greedy"]["tokens"] == published[path]["greedy_ids"], path
        row["beam5_equals_transformers"] = row["beam5"]["tokens"] == published[path]["beam5_ids"]
        with torch.no_grad():
            _, probabilities = model.detect_language(features, tokenizer)
        best = sorted(probabilities.items(), key=lambda p: -p[1])[:3]
        row["language_top3"] = [[n, float(f"{p:.6g}")] for n, p in best]
        rows.append(row)
    write_json(
        FIXTURES / "digits" / "decoding.json",
        dict(made_by="tests/oracle/decoding.py", versions=versions(), model="micro-whisper-digits", settings=SETTINGS, clips=rows),
    )


if __name__ == "__main__":
    main()
