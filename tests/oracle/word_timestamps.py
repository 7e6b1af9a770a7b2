"""Word and token times of the reference checkpoint on short digit strings, and the pieces they are made of.

    python tests/oracle/make.py word_timestamps

Makes tests/fixtures/digits/word_timestamps.json (needs SPEECHD_MODELS/micro-whisper-digits and SPEECHD_DATA/speech/digit-strings to be
used, and to be made) and tests/fixtures/alignment.json (median filter, DTW, merging of punctuation: needs nothing).

Three implementations on the same features (clip padded with zeros to 8 s, then log-mel, as transformers' processor does) and the
same text (greedy without timestamps):
    starts        numpy, common.align: openai/whisper's rules on transformers' cross-attentions; the one to test against
    openai_words  openai/whisper's own find_alignment on its own model with the same weights
    transformers  generate(return_token_timestamps=True): another rule (attentions of the decoding run itself, no row for notimestamps,
                  no eot row, z-score over the generated tokens alone), so only near the others
Made with torch 2.15.0, transformers 5.23.0, openai-whisper 20250625.
"""

import warnings

import numpy as np
import torch
from transformers import WhisperFeatureExtractor
from whisper.timing import WordTiming, find_alignment, merge_punctuations
from whisper.timing import dtw_cpu
from whisper.timing import median_filter as whisper_median_filter
from whisper.tokenizer import get_tokenizer

from common import (
    FIXTURES, align, dtw, load_openai, load_transformers, median_filter, read_clip, shared, token_starts, versions, write_json,
)  # fmt: skip

warnings.filterwarnings("ignore")

CLIPS = ["short_000", "short_002", "short_003", "short_008", "short_014", "short_027", "short_037", "short_056"]


def words_of_clips():
    folder = shared("SPEECHD_MODELS", "micro-whisper-digits")
    clips = shared("SPEECHD_DATA", "speech", "digit-strings")
    model, theirs = load_transformers(folder), load_openai(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = get_tokenizer(True, num_languages=100, language="en", task="transcribe")
    heads = model.generation_config.alignment_heads
    prompt = list(tokenizer.sot_sequence_including_notimestamps)
    rows = []
    for name in CLIPS:
        samples = read_clip(clips / f"{name}.wav")
        processed = extractor(samples, sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
        features, num_frames = processed.input_features, len(samples) // 160
        out = model.generate(
            features, attention_mask=processed.attention_mask, language="en", task="transcribe", return_timestamps=False,
            return_token_timestamps=True, max_new_tokens=60, do_sample=False, return_dict_in_generate=True,
            force_unique_generate_call=True,
        )  # fmt: skip
        generated = out["sequences"][0].tolist()
        assert generated[: len(prompt)] == prompt
        text = [t for t in generated[len(prompt) :] if t < tokenizer.eot]
        starts, probs, matrix = align(model, features[0].numpy(), prompt, text, tokenizer.eot, heads, num_frames)
        rng = np.random.default_rng(0)
        moved = max(np.abs(token_starts(matrix + 1e-4 * rng.standard_normal(matrix.shape)) - starts).max() for _ in range(5))
        words = find_alignment(theirs, tokenizer, text, features[0], num_frames)
        openai_starts = [w.start for w in words]
        mine = [starts[i] for i in np.cumsum([0] + [len(w.tokens) for w in words])[:-1]]
        assert np.allclose(openai_starts, mine, atol=1e-9), (name, openai_starts, mine)
        rows.append(
            dict(
                path=f"{name}.wav", samples=len(samples), num_frames=num_frames, text=tokenizer.decode(text), ids=text,
                starts=[round(s, 2) for s in starts.tolist()], start_slack=round(float(moved), 2),
                probabilities=[round(p, 6) for p in probs.tolist()],
                openai_words=[
                    dict(word=w.word, start=round(float(w.start), 2), end=round(float(w.end), 2),
                         probability=round(float(w.probability), 6), ids=w.tokens)
                    for w in words
                ],
                transformers=dict(
                    num_frames=int(processed.attention_mask.sum()),
                    token_timestamps=[round(t, 2) for t in out["token_timestamps"][0].tolist()[len(prompt) :]],
                    ids=generated[len(prompt) :],
                ),
            )
        )  # fmt: skip
    write_json(
        FIXTURES / "digits" / "word_timestamps.json",
        dict(
            made_by="tests/oracle/word_timestamps.py", versions=versions(), model="micro-whisper-digits",
            audio="speech/digit-strings (FSDD, CC BY-SA 4.0)", prompt=prompt, alignment_heads=heads, median_filter_width=7,
            note="starts: one per id, then endoftext (the end of the last token), before any of openai/whisper's corrections of durations; "
            "start_slack: how far any start moves when the matrix is disturbed by 1e-4",
            clips=rows,
        ),
    )  # fmt: skip


def pieces():
    rng = np.random.default_rng(7)
    medians = []
    for shape, width in (((2, 12), 7), ((1, 4), 7), ((1, 3), 7), ((2, 9), 3), ((1, 5), 1)):
        x = np.round(rng.standard_normal(shape), 3)
        y = median_filter(x, width)
        assert np.allclose(y, whisper_median_filter(torch.from_numpy(x)[None], width)[0].numpy())
        medians.append(dict(width=width, input=x.tolist(), output=y.tolist()))

    paths = []
    for n, m in ((1, 1), (1, 5), (5, 1), (4, 4), (3, 8), (6, 20), (10, 40)):
        x = np.round(rng.random((n, m)), 3)
        if n > 1 and m > 4:
            j = np.sort(rng.integers(0, m, n))  # a planted path
            for i in range(n):
                x[i, j[i] :] -= 1.0 if i == n - 1 else 0.0
                x[i, j[i] : (j[i + 1] if i + 1 < n else m)] -= 1.0
            x = np.round(x, 3)
        paths.append(x)
    paths.append(np.zeros((3, 5)))  # all ties: the way back goes left first, then up
    paths.append(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    cases = []
    for x in paths:
        i, j = dtw(x)
        theirs = dtw_cpu(x.astype(np.float64))
        assert (theirs[0] == i).all() and (theirs[1] == j).all()
        cases.append(dict(cost=np.round(x, 3).tolist(), text_indices=i.tolist(), time_indices=j.tolist()))

    merges = []
    for words in (
        [" And", " so", ",", " my", ' "', "fellow", '"', " Americans", "."],
        [" (", "laughs", ")", " well", "...", " ok", "?", "!"],
        [" -", "five", "-", "six"],
        [" “", "quote", "”", "，", "好", "。"],
        [" ¿", "qué", "?"],
        [" a", " '", " b"],
    ):
        timings = [WordTiming(w, [i], float(i), float(i + 1), 1.0) for i, w in enumerate(words)]
        merge_punctuations(timings, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        merges.append(dict(words=words, merged=[t.word for t in timings], tokens=[t.tokens for t in timings]))
    write_json(
        FIXTURES / "alignment.json",
        dict(
            made_by="tests/oracle/word_timestamps.py",
            median_filter=medians,
            dtw=cases,
            merge_punctuations=dict(
                prepend="\"'“¿([{-",
                append="\"'.。,，!！?？:：”)]}、",
                note="a word merged into a neighbour stays as an empty word; tokens move with it",
                cases=merges,
            ),
        ),
    )


if __name__ == "__main__":
    pieces()
    words_of_clips()
