"""Random-weight Whisper bundles and what transformers computes with them.

    python tests/oracle/make.py whisper_tiny          (about two minutes on one core)

Makes tests/fixtures/{whisper-80,whisper-128,whisper-en}/: a bundle in Hugging Face layout (weights in f16; everything is
computed in f32 from the rounded weights) with expected.safetensors and expected.json beside it.

    whisper-80    multilingual layout as in tiny..large-v2, 30 s window, 80 mel bins, heads 4 (encoder) and 2 (decoder)
    whisper-128   multilingual with 128 mel bins as in large-v3, 30 s window, width 48, 2 encoder and 3 decoder layers
    whisper-en    English only (no language or task in the prompt), 10 s window, 80 mel bins

Ids: 256 bytes in GPT-2's order (220 = space), 44 merges, then endoftext = 300, startoftranscript, the languages,
translate, transcribe, startoflm, startofprev, nospeech, notimestamps, <|0.00|> .. <|30.00|>.

Made with torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3. `python whisper_tiny.py --search NAME` tries weight seeds and
prints those whose output is varied and whose decisions are wide apart; the chosen ones stand below.
"""

import math
import sys
import warnings

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from transformers.utils import logging as hf_logging

from common import FIXTURES, align, synthetic_mel, token_starts, versions, write_json

hf_logging.set_verbosity_error()
hf_logging.disable_progress_bar()
warnings.filterwarnings("ignore")

SHAPES = {
    "whisper-80": dict(
        seed=4, num_mel_bins=80, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=96, max_source_positions=1500,
        max_target_positions=448, languages=["en", "zh", "de", "es", "ja", "fa", "ps", "th"],
        alignment_heads=[[0, 1], [1, 0]], language="ps",
    ),
    "whisper-128": dict(
        seed=24, num_mel_bins=128, d_model=48, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3,
        decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=64, max_source_positions=1500,
        max_target_positions=448, languages=["en", "zh", "de", "es", "ja", "fa", "ps", "th", "yue"],
        alignment_heads=[[1, 3], [2, 0], [2, 2]], language="fa",
    ),
    "whisper-en": dict(
        seed=13, num_mel_bins=80, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=500,
        max_target_positions=64, languages=[], alignment_heads=[[1, 0], [1, 1]], language=None,
    ),
}  # fmt: skip

MERGE_TEXT = (
    "the cat and the other hat sat on the mat in the thin rain and then the man ran in and sat on the cat "
    "one two three four five six seven eight nine zero"
)
CLIPS = 3
MAX_NEW_TOKENS = 40


# ---- tokenizer ----


def byte_alphabet():
    """GPT-2's order: the printable bytes first, then the others moved to U+0100 and up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(text, count):
    words = [list(("Ġ" if i else "") + w) for i, w in enumerate(text.split())]
    merges = []
    while len(merges) < count:
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for word in words:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def build_tokenizer(languages):
    alphabet = byte_alphabet()
    merges = learn_merges(MERGE_TEXT, 44)
    vocab = {t: i for i, t in enumerate(alphabet + ["".join(m) for m in merges])}
    assert len(vocab) == 300 and vocab["Ġ"] == 220
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev",
             "nospeech", "notimestamps"]  # fmt: skip
    tokenizer.add_special_tokens([AddedToken(f"<|{n}|>", special=True, normalized=False) for n in names])
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", special=False, normalized=False) for i in range(1501)])
    return tokenizer, {n: tokenizer.token_to_id(f"<|{n}|>") for n in names}


# ---- bundle ----


def build_model(shape, ids, vocab_size, seed):
    config = WhisperConfig(
        vocab_size=vocab_size,
        **{k: v for k, v in shape.items() if k not in ("seed", "languages", "alignment_heads", "language")},
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0,
        scale_embedding=False, bos_token_id=ids["endoftext"], eos_token_id=ids["endoftext"],
        pad_token_id=ids["endoftext"], decoder_start_token_id=ids["startoftranscript"], begin_suppress_tokens=None,
        suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    g = torch.Generator().manual_seed(seed)

    def normal(p, std, mean=0.0):
        p.copy_(mean + std * torch.randn(p.shape, generator=g))

    with torch.no_grad():
        for name, p in model.named_parameters():
            if name == "model.encoder.embed_positions.weight":
                continue  # sinusoids, fixed
            fan_in = p[0].numel() if p.ndim > 1 else 1
            if "layer_norm" in name:
                normal(p, 0.15, 1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                normal(p, 0.05)
            elif "embed_tokens" in name:
                # Logits of text vary by 3, of timestamps by 1.2: log(1501) + 0.7 is then close to the largest of 300 text
                # logits, so that both sides of the timestamp rule win at times.
                std = torch.full((vocab_size, 1), 3.0)
                std[ids["notimestamps"] + 1 :] = 1.2
                std[ids["endoftext"]] = 4.0
                normal(p, 1.0 / math.sqrt(shape["d_model"]))
                p.mul_(std)
            elif "embed_positions" in name:
                normal(p, 1.0)
            elif "q_proj" in name or "k_proj" in name:
                normal(p, 1.6 / math.sqrt(fan_in))
            elif "conv" in name:
                normal(p, 1.5 / math.sqrt(fan_in))
            else:
                normal(p, 2.5 / math.sqrt(fan_in))
    return config, model.half()


def write_bundle(name, shape, seed, folder):
    tokenizer, ids = build_tokenizer(shape["languages"])
    vocab_size = tokenizer.get_vocab_size()
    config, model = build_model(shape, ids, vocab_size, seed)
    generation = dict(
        alignment_heads=shape["alignment_heads"],
        begin_suppress_tokens=[220, ids["endoftext"]],
        bos_token_id=ids["endoftext"],
        decoder_start_token_id=ids["startoftranscript"],
        eos_token_id=ids["endoftext"],
        is_multilingual=bool(shape["languages"]),
        max_initial_timestamp_index=50,
        max_length=shape["max_target_positions"],
        no_timestamps_token_id=ids["notimestamps"],
        pad_token_id=ids["endoftext"],
        prev_sot_token_id=ids["startofprev"],
        return_timestamps=False,
        suppress_tokens=[1, 2, 7, 8, 9, 10, 25, 26, 27, 28, 29, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93]
        + [ids[n] for n in ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")],
    )
    if shape["languages"]:
        generation["lang_to_id"] = {f"<|{n}|>": ids[n] for n in shape["languages"]}
        generation["task_to_id"] = {n: ids[n] for n in ("transcribe", "translate")}
    model.generation_config = GenerationConfig(**generation)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    seconds = shape["max_source_positions"] // 50
    write_json(
        folder / "preprocessor_config.json",
        dict(
            chunk_length=seconds, feature_extractor_type="WhisperFeatureExtractor", feature_size=shape["num_mel_bins"],
            hop_length=160, n_fft=400, n_samples=16000 * seconds, nb_max_frames=100 * seconds, padding_side="right",
            padding_value=0.0, return_attention_mask=False, sampling_rate=16000,
        ),
    )  # fmt: skip
    return ids


def load(folder):
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


# ---- decoding ----


def prompts(shape, ids, timestamps):
    tail = [] if timestamps else [ids["notimestamps"]]
    if not shape["languages"]:
        return [ids["startoftranscript"], *tail]
    return [ids["startoftranscript"], ids[shape["language"]], ids["transcribe"], *tail]


def previous(ids):
    """Prompt text per clip: none, 5 tokens, 2 tokens, each after startofprev."""
    return [None, [ids["startofprev"], 256, 75, 260, 64, 271], [ids["startofprev"], 280, 70]]


def decode(model, shape, features, prev, timestamps, **kwargs):
    language = dict(language=shape["language"], task="transcribe") if shape["languages"] else {}
    out = model.generate(
        input_features=features[None],
        prompt_ids=None if prev is None else torch.tensor(prev),
        return_timestamps=timestamps,
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        force_unique_generate_call=True,
        return_dict_in_generate=True,
        output_scores=True,
        **language,
        **kwargs,
    )
    return out


def greedy(model, shape, ids, features, prev, timestamps):
    out = decode(model, shape, features, prev, timestamps)
    prompt = ([] if prev is None else prev) + prompts(shape, ids, timestamps)
    sequence = out.sequences[0].tolist()
    assert sequence[: len(prompt)] == prompt, (sequence, prompt)
    tokens = sequence[len(prompt) :]
    scores = torch.stack([s.reshape(-1) for s in out.scores])
    top = scores.topk(2, dim=-1).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    logprobs = scores.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum().item()
    return dict(prompt=prompt, tokens=tokens, smallest_margin=round(margin, 5), sum_logprob=round(logprobs, 5))


def beam(model, shape, ids, features, prev, timestamps, num_beams, length_penalty):
    out = decode(
        model, shape, features, prev, timestamps,
        num_beams=num_beams, length_penalty=length_penalty, early_stopping=False,
    )  # fmt: skip
    prompt = ([] if prev is None else prev) + prompts(shape, ids, timestamps)
    return dict(
        prompt=prompt,
        tokens=out.sequences[0].tolist()[len(prompt) :],
        sequence_score=round(out.sequences_scores[0].item(), 6),
    )


def inputs(shape):
    return [
        torch.from_numpy(synthetic_mel(shape["num_mel_bins"], 2 * shape["max_source_positions"], clip))
        for clip in range(CLIPS)
    ]


def search(name, seeds):
    """Scores seeds by how varied the greedy output is; prints those with wide margins."""
    shape = SHAPES[name]
    folder = FIXTURES / ".search"
    for seed in seeds:
        ids = write_bundle(name, shape, seed, folder)
        model = load(folder)
        rows = [
            greedy(model, shape, ids, x, p, timestamps)
            for timestamps in (False, True)
            for x, p in zip(inputs(shape), previous(ids))
        ]
        lengths = [len(r["tokens"]) for r in rows]
        ended = [r["tokens"][-1] == ids["endoftext"] for r in rows]
        distinct = [len(set(r["tokens"])) for r in rows]
        stamps = [sum(t > ids["notimestamps"] for t in r["tokens"]) for r in rows]
        margin = min(r["smallest_margin"] for r in rows)
        mark = "*" if margin > 0.004 and 1 < sum(ended) and len(set(map(tuple, (r["tokens"] for r in rows)))) == 6 else " "
        print(mark, seed, "len", lengths, "eot", sum(ended), "distinct", distinct, "stamps", stamps, "margin", margin, flush=True)


# ---- everything for one bundle ----


def make(name):
    shape = SHAPES[name]
    folder = FIXTURES / name
    ids = write_bundle(name, shape, shape["seed"], folder)
    model = load(folder)
    tensors, mels = {}, inputs(shape)
    window = 2 * shape["max_source_positions"]

    expected = dict(
        made_by="tests/oracle/whisper_tiny.py",
        versions=versions(),
        special_ids=ids,
        input_formula="clip c: x[m,t] = 0.9 sin(0.11 (c+1) m + 0.013 t) + 0.5 cos(0.0007 (m+1) t + c), f64 then f32; "
        f"{shape['num_mel_bins']} bins, {window} frames",
        clips=CLIPS,
    )

    # encoder
    frames = [0, 1, 2, shape["max_source_positions"] // 2, shape["max_source_positions"] - 2, shape["max_source_positions"] - 1]
    with torch.no_grad():
        encoded = [model.model.encoder(x[None]).last_hidden_state[0] for x in mels]
    tensors["encoder.frames"] = torch.stack([e[frames] for e in encoded])
    tensors["encoder.mean"] = torch.stack([e.mean(0) for e in encoded])
    expected["encoder_frames"] = frames

    # teacher-forced logits, each row alone
    prev = previous(ids)
    forced = []
    for clip in range(CLIPS):
        row = (prev[clip] or []) + prompts(shape, ids, False) + [[40, 258, 17], [270], []][clip]
        with torch.no_grad():
            logits = model(input_features=mels[clip][None], decoder_input_ids=torch.tensor([row])).logits[0]
        tensors[f"logits.{clip}"] = logits
        forced.append(row)
    expected["teacher_forced"] = dict(rows=forced, tensors="logits.<clip> [len(row), vocab], unfiltered")

    # language and no speech
    with torch.no_grad():
        first = torch.stack(
            [
                model(input_features=x[None], decoder_input_ids=torch.tensor([[ids["startoftranscript"]]])).logits[0, 0]
                for x in mels
            ]
        )
    if shape["languages"]:
        lang_ids = [ids[n] for n in shape["languages"]]
        detected = model.detect_language(input_features=torch.stack(mels), num_segment_frames=window).tolist()
        probs = first[:, lang_ids].softmax(-1)
        assert detected == [lang_ids[i] for i in probs.argmax(-1).tolist()]
        expected["language"] = dict(
            detected=detected,
            probabilities=[{n: round(p, 7) for n, p in zip(shape["languages"], row)} for row in probs.tolist()],
        )
    expected["no_speech"] = dict(
        note="softmax over the whole vocabulary, unfiltered, at the sot position (causal, so whatever follows); the second list "
        "is the same with the previous-text prompts in front",
        probability=[float(f"{p:.6g}") for p in first.softmax(-1)[:, ids["nospeech"]].tolist()],
        probability_with_prompt=[
            float(f"{tensors[f'logits.{c}'][len(prev[c] or [])].softmax(-1)[ids['nospeech']].item():.6g}")
            for c in range(CLIPS)
        ],
    )

    # decoding
    settings = dict(
        language=shape["language"], task="transcribe" if shape["languages"] else None, max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False, force_unique_generate_call=True, temperature="unset (no fallback)",
        suppress_tokens="generation_config", begin_suppress_tokens="generation_config",
        note="one item per call; prompt_ids differ per clip; tokens exclude the prompt and include endoftext when it was produced",
    )  # fmt: skip
    expected["generate"] = settings
    pairs = list(zip(mels, prev))
    expected["greedy"] = [greedy(model, shape, ids, x, p, False) for x, p in pairs]
    expected["greedy_timestamps"] = [greedy(model, shape, ids, x, p, True) for x, p in pairs]
    for key, timestamps, beams, penalty in (
        ("beam5", False, 5, 1.0),
        ("beam5_timestamps", True, 5, 1.0),
        ("beam3_penalty_0.6", False, 3, 0.6),
    ):
        expected[key] = dict(
            num_beams=beams, length_penalty=penalty, early_stopping=False, return_timestamps=timestamps,
            rows=[beam(model, shape, ids, x, p, timestamps, beams, penalty) for x, p in pairs],
        )  # fmt: skip

    # word alignment of the greedy text
    rows = []
    for clip in range(CLIPS):
        text = [t for t in expected["greedy"][clip]["tokens"] if t < ids["endoftext"]]
        num_frames = [window, window // 2, window // 3][clip]
        starts, probs, matrix = align(
            model, mels[clip].numpy(), prompts(shape, ids, False), text, ids["endoftext"], shape["alignment_heads"], num_frames
        )
        tensors[f"alignment.{clip}"] = torch.from_numpy(matrix[:4].astype(np.float32))
        rows.append(
            dict(text=text, num_frames=num_frames, starts=[round(s, 2) for s in starts.tolist()],
                 start_slack=slack(matrix, starts),
                 probabilities=[round(p, 7) for p in probs.tolist()])
        )  # fmt: skip
    expected["alignment"] = dict(
        note="starts: one per text token, then endoftext (its start is the end of the last token); heads and width from the "
        "configuration; alignment.<clip> [4, num_frames / 2]: first rows of what DTW saw, before negation; start_slack: how far "
        "any start moves when that matrix is disturbed by 1e-4", rows=rows
    )

    training(model, shape, ids, mels, tensors, expected)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    write_json(folder / "expected.json", expected)


def slack(matrix, starts):
    """The largest change of a start over five disturbances of 1e-4: 0 means that rounding can't move the path."""
    rng = np.random.default_rng(0)
    moved = [token_starts(matrix + 1e-4 * rng.standard_normal(matrix.shape)) for _ in range(5)]
    return round(float(max(np.abs(m - starts).max() for m in moved)), 2)


def training(model, shape, ids, mels, tensors, expected):
    """Loss and gradients of one batch, then ten AdamW steps on it."""
    stamp = ids["notimestamps"] + 1
    head = prompts(shape, ids, False)
    timed = prompts(shape, ids, True)
    rows = [
        head + [40, 258, 17, 270, 75] + [ids["endoftext"]],
        timed + [stamp, 260, 64, stamp + 120, stamp + 120, 280, stamp + 400] + [ids["endoftext"]],
        head + [70] + [ids["endoftext"]],
    ]
    width = max(map(len, rows)) - 1
    decoder_input = torch.full((CLIPS, width), ids["endoftext"])
    labels = torch.full((CLIPS, width), -100)
    for i, row in enumerate(rows):
        skip = len(head if row[: len(head)] == head else timed) - 1
        decoder_input[i, : len(row) - 1] = torch.tensor(row[:-1])
        labels[i, skip : len(row) - 1] = torch.tensor(row[skip + 1 :])
    batch = torch.stack(mels)

    def losses(smoothing=0.0):
        logits = model(input_features=batch, decoder_input_ids=decoder_input).logits
        return torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=-100, label_smoothing=smoothing
        )

    # The sinusoids are constants; transformers 5 forgets to freeze them when weights are loaded.
    model.model.encoder.embed_positions.requires_grad_(False)
    model.train()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad():
        smoothed = losses(0.1).sum().item()
    per_token = losses()
    weight = (labels != -100).sum().item()
    loss = per_token.sum() / weight
    loss.backward()
    for name in (
        "model.encoder.conv1.weight", "model.encoder.conv1.bias", "model.encoder.layers.0.self_attn.q_proj.bias",
        "model.encoder.layers.0.fc1.weight", "model.encoder.layer_norm.weight",
        "model.decoder.layers.0.self_attn_layer_norm.bias", "model.decoder.layers.0.encoder_attn.k_proj.weight",
        "model.decoder.layers.1.encoder_attn.out_proj.weight", "model.decoder.layers.1.fc2.bias",
        "model.decoder.layer_norm.bias",
    ):  # fmt: skip
        tensors[f"grad.{name}"] = dict(trained)[name].grad.clone()
    tensors["grad.model.decoder.embed_positions.weight[:16]"] = model.model.decoder.embed_positions.weight.grad[:16].clone()
    tensors["grad.model.decoder.embed_tokens.weight[296:312]"] = model.model.decoder.embed_tokens.weight.grad[296:312].clone()
    expected["training"] = dict(
        decoder_input_ids=decoder_input.tolist(),
        labels=labels.tolist(),
        note="labels -100 carry no loss: the prompt and the padding; dropout 0; the encoder's sinusoids and nothing else are frozen; "
        "token embedding and output share one weight",
        loss_sum=round(per_token.sum().item(), 5),
        loss_weight=weight,
        loss=round(loss.item(), 6),
        row_loss_sums=[round(x, 5) for x in per_token.sum(1).tolist()],
        loss_sum_label_smoothing_0_1=round(smoothed, 5),
        gradient_norms={n: float(f"{p.grad.norm().item():.6g}") for n, p in trained},
        gradient_norm=float(f"{torch.stack([p.grad.norm() for _, p in trained]).norm().item():.6g}"),
    )
    # as llm.c's test_gpt2: forward, backward and optimiser in one fixture
    optimiser = torch.optim.AdamW([p for _, p in trained], lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    curve, norms = [], []
    for _ in range(10):
        optimiser.zero_grad()
        loss = losses().sum() / weight
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0).item())
        optimiser.step()
        curve.append(loss.item())
    expected["training"]["adamw"] = dict(
        lr=1e-3, betas=[0.9, 0.98], eps=1e-8, weight_decay=0.01, decays="every trained parameter", clip_grad_norm=1.0,
        losses=[round(x, 5) for x in curve], gradient_norms_before_clipping=[float(f"{x:.6g}") for x in norms],
    )  # fmt: skip


def main():
    for name in SHAPES:
        make(name)


if __name__ == "__main__":
    if "--search" in sys.argv:
        name = sys.argv[sys.argv.index("--search") + 1]
        search(name, range(int(sys.argv[-2]), int(sys.argv[-1])))
    else:
        main()
