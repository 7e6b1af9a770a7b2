"""What the oracle scripts share: where things lie, input formulas, and the word alignment of openai/whisper in numpy.

The formulas are the contract with the Rust tests: everything is computed in float64 and rounded to float32 once, at the end.
"""

import json
import math
import os
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)

ORACLE = Path(__file__).resolve().parent
ROOT = ORACLE.parent.parent
FIXTURES = ORACLE.parent / "fixtures"


def shared(variable, *tail):
    """`SPEECHD_DATA` / `SPEECHD_MODELS`, else `../shared/<data|models>` beside the project."""
    default = ROOT.parent / "shared" / {"SPEECHD_DATA": "data", "SPEECHD_MODELS": "models"}[variable]
    path = Path(os.environ.get(variable, default)).joinpath(*tail)
    if not path.exists():
        raise SystemExit(f"{path} is missing: set {variable}")
    return path


def versions():
    import tokenizers
    import transformers

    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
    }


def write_json(path, value):
    """One line per leaf list, so that a changed number is a one-line diff and files stay small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_render(value, 0) + "\n", encoding="utf-8")


def _render(value, depth):
    flat = json.dumps(value, ensure_ascii=False)
    nested = isinstance(value, (dict, list)) and (
        isinstance(value, dict) or any(isinstance(v, (dict, list)) for v in value)
    )
    if not nested or not value or len(flat) < 100:
        return flat
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        items = [f"{pad}{json.dumps(k, ensure_ascii=False)}: {_render(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + _render(v, depth + 1) for v in value) + f"\n{end}]"


def synthetic_mel(bins, frames, clip):
    """x[m, t] = 0.9 sin(0.11 (clip + 1) m + 0.013 t) + 0.5 cos(0.0007 (m + 1) t + clip), as float32 [bins, frames]."""
    m = np.arange(bins, dtype=np.float64)[:, None]
    t = np.arange(frames, dtype=np.float64)[None, :]
    x = 0.9 * np.sin(0.11 * (clip + 1) * m + 0.013 * t) + 0.5 * np.cos(0.0007 * (m + 1) * t + clip)
    return x.astype(np.float32)


def synthetic_waveform(samples, rate=16000):
    """With t = i / rate and u_i the noise below:
    x[i] = 0.4 sin(2 pi (220 t + 300 t^2)) + 0.2 sin(2 pi 1234.5 t) + 0.05 u_i, as float32.
    Noise: s starts at 12345; before each sample s = (1664525 s + 1013904223) mod 2^32; u = s / 2^31 - 1."""
    out = np.empty(samples, dtype=np.float64)
    s = 12345
    for i in range(samples):
        s = (1664525 * s + 1013904223) % (1 << 32)
        t = i / rate
        out[i] = (
            0.4 * math.sin(2 * math.pi * (220 * t + 300 * t * t))
            + 0.2 * math.sin(2 * math.pi * 1234.5 * t)
            + 0.05 * (s / 2**31 - 1)
        )
    return out.astype(np.float32)


def median_filter(x, width):
    """Over the last axis, edges reflected without repeating the edge; unchanged if the axis is not longer than width // 2."""
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.sort(windows, axis=-1)[..., half]


def dtw(cost_matrix):
    """openai/whisper's timing.py dtw_cpu: cost in float32, diagonal only if strictly smallest, then up (text) only if
    strictly smallest, else left (time)."""
    n, m = cost_matrix.shape
    x = cost_matrix.astype(np.float64)
    cost = np.full((n + 1, m + 1), np.inf, dtype=np.float32)
    trace = -np.ones((n + 1, m + 1), dtype=np.int8)
    cost[0, 0] = 0
    for j in range(1, m + 1):
        for i in range(1, n + 1):
            diagonal, up, left = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
            if diagonal < up and diagonal < left:
                c, t = diagonal, 0
            elif up < diagonal and up < left:
                c, t = up, 1
            else:
                c, t = left, 2
            cost[i, j] = x[i - 1, j - 1] + c
            trace[i, j] = t
    trace[0, :] = 2
    trace[:, 0] = 1
    i, j, path = n, m, []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        step = trace[i, j]
        if step != 2:
            i -= 1
        if step != 1:
            j -= 1
    path = np.array(path[::-1])
    return path[:, 0], path[:, 1]


def token_starts(matrix):
    """Seconds at which each row of the averaged attention is first visited by the best path (50 frames per second)."""
    text_indices, time_indices = dtw(-matrix)
    jumps = np.pad(np.diff(text_indices), (1, 0), constant_values=1).astype(bool)
    return time_indices[jumps] / 50


@torch.no_grad()
def align(model, features, prompt, text_ids, eot, heads, num_frames, width=7):
    """Token start times as openai/whisper's timing.py finds them.

    features [bins, frames]; prompt = sot sequence + notimestamps. Cross-attention is taken as probabilities over ALL encoder
    positions, then cut to num_frames // 2 and renormalised: the same numbers as a softmax over the cut scores.
    Returns start seconds of each text token and of eot, the token probabilities, and the matrix that DTW saw [tokens + 1, frames].
    """
    ids = torch.tensor([list(prompt) + list(text_ids) + [eot]])
    out = model(input_features=torch.from_numpy(features)[None], decoder_input_ids=ids, output_attentions=True)
    weights = np.stack([out.cross_attentions[layer][0, head].double().numpy() for layer, head in heads])
    weights = weights[:, :, : num_frames // 2]
    weights = weights / weights.sum(-1, keepdims=True)
    std, mean = weights.std(axis=-2, keepdims=True), weights.mean(axis=-2, keepdims=True)
    weights = median_filter((weights - mean) / std, width)
    # openai/whisper cuts at len(sot_sequence), which keeps the notimestamps row, and drops the last row (eot). Row i of
    # the rest is the query that *predicts* token i, so jumps are: text tokens in order, then eot.
    matrix = weights.mean(axis=0)[len(prompt) - 1 : -1]
    starts = token_starts(matrix)
    probs = out.logits[0, len(prompt) - 1 : -2, :eot].double().softmax(-1).numpy()
    token_probs = probs[np.arange(len(text_ids)), list(text_ids)] if len(text_ids) else np.zeros(0)
    return starts, token_probs, matrix


# ---- the reference checkpoint, in both implementations ----


def read_clip(path):
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    return samples


def load_transformers(folder):
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def load_openai(folder):
    """The same weights in openai/whisper's own model, with its window length changed from 30 s to the checkpoint's.

    The window is a module constant there; everything else (loop, rules, timing) is left as published.
    """
    import whisper
    from safetensors.torch import load_file
    from whisper.model import ModelDimensions, Whisper

    config = json.loads((Path(folder) / "config.json").read_text())
    generation = json.loads((Path(folder) / "generation_config.json").read_text())
    dims = ModelDimensions(
        n_mels=config["num_mel_bins"], n_audio_ctx=config["max_source_positions"], n_audio_state=config["d_model"],
        n_audio_head=config["encoder_attention_heads"], n_audio_layer=config["encoder_layers"],
        n_vocab=config["vocab_size"], n_text_ctx=config["max_target_positions"], n_text_state=config["d_model"],
        n_text_head=config["decoder_attention_heads"], n_text_layer=config["decoder_layers"],
    )  # fmt: skip
    model = Whisper(dims)
    names = [
        ("model.", ""), (".layers.", ".blocks."), ("encoder_attn_layer_norm", "cross_attn_ln"),
        ("self_attn_layer_norm", "attn_ln"), ("encoder_attn", "cross_attn"), ("self_attn", "attn"), ("q_proj", "query"),
        ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"), ("fc1", "mlp.0"), ("fc2", "mlp.2"),
        ("final_layer_norm", "mlp_ln"), ("encoder.layer_norm", "encoder.ln_post"), ("decoder.layer_norm", "decoder.ln"),
        ("embed_tokens", "token_embedding"), ("encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("decoder.embed_positions.weight", "decoder.positional_embedding"),
    ]  # fmt: skip
    state = {}
    for key, value in load_file(Path(folder) / "model.safetensors").items():
        if key == "proj_out.weight":
            continue
        for old, new in names:
            key = key.replace(old, new)
        state[key] = value.float()
    model.load_state_dict(state)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in generation["alignment_heads"]:
        heads[layer, head] = True
    model.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)

    transcribe = __import__("sys").modules["whisper.transcribe"]
    decoding = __import__("sys").modules["whisper.decoding"]
    seconds = dims.n_audio_ctx // 50
    transcribe.N_FRAMES, transcribe.N_SAMPLES, decoding.CHUNK_LENGTH = 100 * seconds, 16000 * seconds, seconds
    assert whisper.audio.HOP_LENGTH == 160
    return model.eval()
