"""Long recordings through the reference checkpoint (8 s window): both published sequential loops.

    python tests/oracle/make.py longform

Makes tests/fixtures/digits/longform.json. Needs SPEECHD_MODELS/micro-whisper-digits and SPEECHD_DATA/speech/digit-strings.

    transformers[.conditioned]  generate(return_timestamps=True, return_segments=True) on features of the whole file (no zeros appended;
                                short last windows are filled with mel zeros). Temperature 0, no thresholds: no fallback.
    openai[.conditioned]        openai/whisper's transcribe() with its window set to 8 s, temperature 0, all thresholds off,
                                suppress_tokens=[] (the checkpoint has none). Features of the file with 8 s of zeros appended, then cut;
                                short last windows are filled with mel zeros.
    openai.words                the same with word_timestamps=True, which moves the seek point to the end of the last word.

The checkpoint was never trained on previous text: what `conditioned` shows is the loop, not quality.
Made with torch 2.15.0, transformers 5.23.0, openai-whisper 20250625, jiwer 4.0.0.
"""

import csv
import warnings

import jiwer
import torch
import whisper
from transformers import WhisperFeatureExtractor
from whisper.tokenizer import get_tokenizer

from common import FIXTURES, load_openai, load_transformers, read_clip, shared, versions, write_json

warnings.filterwarnings("ignore")

MAX_NEW_TOKENS = 45  # 96 positions less startofprev, 47 previous tokens and 3 of the prompt


def wer(reference, text):
    return round(jiwer.wer(reference, text), 4)


def by_transformers(model, extractor, tokenizer, samples, conditioned):
    processed = extractor(
        samples, sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest", return_attention_mask=True
    )
    out = model.generate(
        processed.input_features, attention_mask=processed.attention_mask, language="en", task="transcribe",
        return_timestamps=True, return_segments=True, condition_on_prev_tokens=conditioned, temperature=0.0,
        do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS,
    )  # fmt: skip
    segments = [
        dict(
            start=round(float(s["start"]), 2),
            end=round(float(s["end"]), 2),
            ids=s["tokens"].tolist(),
            text=tokenizer.decode([t for t in s["tokens"].tolist() if t < tokenizer.eot]),
        )
        for s in out["segments"][0]
    ]
    return processed.input_features.shape[-1], segments


def by_openai(model, samples, conditioned, words):
    result = whisper.transcribe(
        model, samples, language="en", task="transcribe", temperature=0.0, condition_on_previous_text=conditioned,
        compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None, suppress_tokens=[],
        word_timestamps=words, fp16=False, verbose=None,
    )  # fmt: skip
    segments = []
    for s in result["segments"]:
        segment = dict(
            seek=s["seek"], start=round(float(s["start"]), 2), end=round(float(s["end"]), 2), ids=s["tokens"],
            text=s["text"], avg_logprob=round(float(s["avg_logprob"]), 5), no_speech_prob=float(f"{s['no_speech_prob']:.4g}"),
            compression_ratio=round(float(s["compression_ratio"]), 5),
        )  # fmt: skip
        if words:
            segment["words"] = [
                [w["word"], round(float(w["start"]), 2), round(float(w["end"]), 2), round(float(w["probability"]), 4)]
                for w in s["words"]
            ]
        segments.append(segment)
    return segments


def main():
    folder = shared("SPEECHD_MODELS", "micro-whisper-digits")
    clips = shared("SPEECHD_DATA", "speech", "digit-strings")
    model, theirs = load_transformers(folder), load_openai(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = get_tokenizer(True, num_languages=100, language="en", task="transcribe")
    with open(clips / "refs.tsv", encoding="utf-8") as file:
        references = {r["path"]: r["text"] for r in csv.DictReader(file, delimiter="\t") if r["path"].startswith("long")}

    rows, texts = [], {}
    for path, reference in references.items():
        samples = read_clip(clips / path)
        row = dict(path=path, samples=len(samples), reference=reference)
        for conditioned in (False, True):
            row["frames"], segments = by_transformers(model, extractor, tokenizer, samples, conditioned)
            row["transformers" + (".conditioned" if conditioned else "")] = segments
        row["openai"] = by_openai(theirs, samples, False, False)
        row["openai.conditioned"] = by_openai(theirs, samples, True, False)
        row["openai.words"] = by_openai(theirs, samples, False, True)
        row["wer"] = {}
        for key in ("transformers", "transformers.conditioned", "openai", "openai.conditioned", "openai.words"):
            text = " ".join("".join(s["text"] for s in row[key]).split())
            texts.setdefault(key, []).append(text)
            row["wer"][key] = wer(reference, text)
        rows.append(row)
        print(path, row["wer"], flush=True)
    write_json(
        FIXTURES / "digits" / "longform.json",
        dict(
            made_by="tests/oracle/longform.py", versions=versions(), model="micro-whisper-digits",
            audio="speech/digit-strings (FSDD, CC BY-SA 4.0)", max_new_tokens=MAX_NEW_TOKENS,
            note="text ids include timestamps; transformers keeps both of a closing pair in the last segment of a window; openai's sample_len "
            "is its default, 48; words: [word, start, end, probability]",
            wer={k: wer(list(references.values()), v) for k, v in texts.items()},
            clips=rows,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
