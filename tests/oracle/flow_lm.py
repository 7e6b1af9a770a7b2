"""torch's forms of what a flow language model computes: causal blocks with rotary positions over voice, text and speech, the AdaLN head, an aligner,
and a causal Vocos.

Writes tests/fixtures/flow-lm/, a bundle of random weights with two voices (tones) that knows lower-case English and Pashto letters, and
tests/fixtures/flow-lm.safetensors: inputs of three sequences of different lengths, what comes out, and for every weight NAME the gradient of a
sum of all of it, "gradient.NAME".
"""

import json
import math

import numpy as np
import soundfile
import torch
from common import FIXTURES
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

VOCODER_WIDTH, VOCODER_INNER, VOCODER_LAYERS, VOCODER_KERNEL, FLOOR = 8, 16, 2, 3, 1e-3
WIDTH, HEADS, TEXT_LAYERS, LAYERS, HEAD_WIDTH, HEAD_LAYERS, ALIGNER = 16, 2, 1, 2, 12, 2, 6
MELS, FRAMES, ADVANCE = 20, 4, 3
PATCH = MELS * FRAMES
SYMBOLS = list(" !'(),-.:;?abcdefghijklmnopqrstuvwxyz") + list("ءآأؤئابتثجحخدذرزسشصضطظعغـفقكلمنهوىيټپځڅچډړژښکګڼۀیېۍ")
TEXTS = [[len(SYMBOLS), 12, 13, 0, 14, len(SYMBOLS)], [len(SYMBOLS), 20, len(SYMBOLS)], [len(SYMBOLS), len(SYMBOLS)]]
POINTERS = [[0, 0, 2, 3, 5], [0, 1], [1, 1, 1]]
PROMPTS = [2, 3, 0]
FRAME_COUNTS = [17, 8, 9]


def sinusoids(length, width):
    step = math.log(10_000) / (width // 2 - 1)
    waves = torch.exp(-step * torch.arange(width // 2, dtype=torch.float64))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * waves[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class Model:
    """Weights by name, each drawn when it is first asked for."""

    def __init__(self):
        self.weights = {}

    def get(self, name, *shape, std=0.3, mean=0.0):
        if name not in self.weights:
            weight = (mean + std * torch.randn(*shape, dtype=torch.float64)).float().double()
            self.weights[name] = weight.requires_grad_()
        return self.weights[name]

    def linear(self, name, x, n_out, bias=True):
        weight = self.get(f"{name}.weight", n_out, x.shape[-1])
        return functional.linear(x, weight, self.get(f"{name}.bias", n_out, std=0.1) if bias else None)

    def norm(self, name, x, eps=1e-5):
        width = x.shape[-1]
        weight = self.get(f"{name}.weight", width, mean=1.0, std=0.1)
        return functional.layer_norm(x, (width,), weight, self.get(f"{name}.bias", width, std=0.1), eps)

    def conv(self, name, x, n_out, kernel):
        weight = self.get(f"{name}.weight", n_out, x.shape[-1], kernel)
        bias = self.get(f"{name}.bias", n_out, std=0.1)
        return functional.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2).transpose(1, 2)

    def block(self, name, x, causal):
        """One sequence (L, D); a causal one has rotary positions."""
        h = self.norm(f"{name}.self_attn_layer_norm", x)
        query = self.linear(f"{name}.self_attn.q_proj", h, WIDTH)
        key = self.linear(f"{name}.self_attn.k_proj", h, WIDTH, bias=False)
        value = self.linear(f"{name}.self_attn.v_proj", h, WIDTH)
        heads = [y.reshape(len(x), HEADS, -1).transpose(0, 1) for y in (query, key, value)]
        if causal:
            heads[:2] = [rotated(y) for y in heads[:2]]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=causal).transpose(0, 1).reshape(len(x), WIDTH)
        x = x + self.linear(f"{name}.self_attn.out_proj", mixed, WIDTH)
        h = functional.gelu(self.linear(f"{name}.fc1", self.norm(f"{name}.final_layer_norm", x), 2 * WIDTH))
        return x + self.linear(f"{name}.fc2", h, WIDTH)

    def text(self, ids):
        table = self.get("text_encoder.embed_tokens.weight", len(SYMBOLS) + 1, WIDTH)
        x = math.sqrt(WIDTH) * table[ids] + sinusoids(len(ids), WIDTH)
        for layer in range(TEXT_LAYERS):
            x = self.block(f"text_encoder.layers.{layer}", x, causal=False)
        return self.norm("text_encoder.layer_norm", x)

    def states(self, text, prompt, said, pointers):
        """States of patches (S, D), the text that of symbols, the prompt (P, patch), what is said (S, patch)."""
        segments, begin = self.get("segments", 3, WIDTH), self.get("begin", 1, WIDTH)
        encoded = self.text(text)
        heard = torch.cat([begin, self.linear("input", said, WIDTH)[:-1]])
        speech = heard + self.linear("symbol", encoded[pointers], WIDTH) + segments[2]
        x = torch.cat([self.linear("input", prompt, WIDTH) + segments[0], encoded + segments[1], speech])
        for layer in range(LAYERS):
            x = self.block(f"layers.{layer}", x, causal=True)
        return self.norm("norm", x)[-len(said) :]

    def time(self, name, times):
        half = 128
        speeds = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64) / half)
        angles = 1_000 * times[:, None] * speeds[None]
        h = functional.silu(self.linear(f"flow_head.{name}.fc1", torch.cat([angles.cos(), angles.sin()], 1), HEAD_WIDTH))
        return self.linear(f"flow_head.{name}.fc2", h, HEAD_WIDTH)

    def velocity(self, x, start, end, states):
        condition = self.linear("flow_head.condition", states, HEAD_WIDTH)
        condition = functional.silu(condition + 0.5 * (self.time("time_from", start) + self.time("time_to", end)))
        x = self.linear("flow_head.input", x, HEAD_WIDTH)
        plain = lambda y: functional.layer_norm(y, (HEAD_WIDTH,), eps=1e-6)
        for layer in range(HEAD_LAYERS):
            name = f"flow_head.layers.{layer}"
            shift, scale, gate = self.linear(f"{name}.modulation", condition, 3 * HEAD_WIDTH).chunk(3, -1)
            h = functional.silu(self.linear(f"{name}.fc1", plain(x) * (1 + scale) + shift, HEAD_WIDTH))
            x = x + gate * self.linear(f"{name}.fc2", h, HEAD_WIDTH)
        shift, scale = self.linear("flow_head.modulation", condition, 2 * HEAD_WIDTH).chunk(2, -1)
        return self.linear("flow_head.output", plain(x) * (1 + scale) + shift, PATCH)

    def continuation(self, states, said):
        hidden = self.linear("continuation.state", states, WIDTH) + self.linear("continuation.patch", said, WIDTH, bias=False)
        hidden = functional.silu(hidden)
        return self.linear("end_head", hidden, 1)[:, 0], self.linear("advance_head", hidden, ADVANCE + 1)

    def sound(self, features):
        """Features (B, T, F) to samples, as a causal Vocos has it: before a signal there is silence, and nothing in the middle of it."""

        def conv(name, x, n_out, groups, before):
            before = torch.full((len(x), VOCODER_KERNEL - 1, x.shape[-1]), before, dtype=torch.float64)
            weight = self.get(f"{name}.weight", n_out, x.shape[-1] // groups, VOCODER_KERNEL)
            x = torch.cat([before, x], 1).transpose(1, 2)
            return functional.conv1d(x, weight, self.get(f"{name}.bias", n_out, std=0.1), groups=groups).transpose(1, 2)

        x = self.norm("vocoder.backbone.norm", conv("vocoder.backbone.embed", features, VOCODER_WIDTH, 1, math.log(FLOOR)), 1e-6)
        for layer in range(VOCODER_LAYERS):
            name = f"vocoder.backbone.convnext.{layer}"
            h = self.norm(f"{name}.norm", conv(f"{name}.dwconv", x, VOCODER_WIDTH, VOCODER_WIDTH, 0.0), 1e-6)
            h = functional.gelu(self.linear(f"{name}.pwconv1", h, VOCODER_INNER))
            x = x + self.linear(f"{name}.pwconv2", h, VOCODER_WIDTH) * self.get(f"{name}.gamma", VOCODER_WIDTH)
        x = self.linear("vocoder.head.out", self.norm("vocoder.backbone.final_layer_norm", x, 1e-6), 2 * 513)
        magnitudes, phases = x.transpose(1, 2).chunk(2, 1)
        spectrum = torch.polar(magnitudes.exp().clamp(max=100.0), phases)
        window = torch.hann_window(1024, dtype=torch.float64)
        return torch.istft(spectrum, 1024, 256, window=window, length=256 * (features.shape[1] - 1))

    def alignment(self, mels, text):
        """What all monotone ways of one recording (T, F) through a text cost."""
        table = self.get("aligner.embed_symbols.weight", len(SYMBOLS) + 1, ALIGNER)
        voice = self.linear("aligner.voice", mels.mean(0), ALIGNER)
        hidden = (self.conv("aligner.keys.0", table[text][None], ALIGNER, 3) + voice).relu()
        hidden = self.conv("aligner.keys.1", hidden, ALIGNER, 3).relu()[0]
        means = self.linear("aligner.means", hidden, MELS)
        scores = -0.5 * ((mels[:, None] - means[None]) ** 2).sum(-1) + torch.tensor(prior(len(mels), len(text)))
        # Logarithms of sums over ways that have come to each position.
        ways = torch.cat([scores[0, :1], torch.full((len(text) - 1,), -1e30, dtype=torch.float64)])
        for frame in scores[1:]:
            from_before = torch.cat([torch.full((1,), -1e30, dtype=torch.float64), ways[:-1]])
            ways = torch.logaddexp(ways, from_before) + frame
        return -ways[-1]


def rotated(x):
    """(H, L, D / H): pairs of the first and the second half, turned by their places."""
    half = x.shape[-1] // 2
    speeds = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speeds[None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def prior(n_frames, n_positions):
    from scipy.stats import betabinom

    frames, positions = np.arange(n_frames)[:, None], np.arange(n_positions)[None]
    return betabinom.logpmf(positions, n_positions - 1, frames + 1, n_frames - frames)


def main():
    torch.manual_seed(11)
    model = Model()
    n_said = sum(map(len, POINTERS))
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).float().double()
    prompts, said, noise = draw(sum(PROMPTS), PATCH), draw(n_said, PATCH), draw(n_said, PATCH)
    times = torch.rand(2, n_said, dtype=torch.float64).sort(0).values.float().double()
    mels = [draw(n, MELS) for n in FRAME_COUNTS]
    states, at, prompt_at = [], 0, 0
    for text, pointers, n_prompt in zip(TEXTS, POINTERS, PROMPTS):
        own = slice(at, at + len(pointers))
        states.append(model.states(text, prompts[prompt_at : prompt_at + n_prompt], said[own], pointers))
        at, prompt_at = at + len(pointers), prompt_at + n_prompt
    states = torch.cat(states)
    velocity = model.velocity(noise, times[0], times[1], states)
    ends, advances = model.continuation(states, said)
    alignment = sum(model.alignment(mel, text) for mel, text in zip(mels, TEXTS))
    directions = {"states": draw(*states.shape), "velocity": draw(*velocity.shape), "ends": draw(n_said), "advances": draw(*advances.shape)}
    outputs = {"states": states, "velocity": velocity, "ends": ends, "advances": advances}
    total = sum((outputs[name] * direction).sum() for name, direction in directions.items()) + alignment
    total.backward()

    longest = max(FRAME_COUNTS)
    padded = torch.stack([functional.pad(mel, (0, 0, 0, longest - len(mel))) for mel in mels])
    tensors = {"prompts": prompts, "said": said, "noise": noise, "times": times, "mels": padded, "alignment": alignment.reshape(1), **outputs}
    tensors |= {f"direction.{name}": value for name, value in directions.items()}
    tensors |= {f"gradient.{name}": weight.grad for name, weight in model.weights.items()}

    # A vocoder comes along, which does not learn with the rest.
    features = (draw(2, 7, MELS) - 3.0).float().double()
    sound = {"features": features, "sound": model.sound(features)}
    tensors |= sound
    save_file({name: value.detach().float().contiguous() for name, value in tensors.items()}, FIXTURES / "flow-lm.safetensors")

    folder = FIXTURES / "flow-lm"
    folder.mkdir(exist_ok=True)
    weights = {name: weight.detach().float().contiguous() for name, weight in model.weights.items()}
    save_file(weights, folder / "model.safetensors")
    spec = {
        "sample_rate": 16_000, "preemphasis": None, "dither": 0.0, "n_fft": 1024, "window_samples": 1024, "window": "hann_periodic",
        "hop_samples": 256, "padding": "reflect", "spectrum": "magnitude", "n_mels": MELS, "mel_scale": "htk", "mel_norm": "none",
        "min_hz": 0.0, "max_hz": 8000.0, "log": {"ln": {"floor": FLOOR}}, "dynamic_range": None, "normalizer": "none",
        "drop_last_frame": False,
    }
    config = {
        "model_type": "flow_lm", "feature_spec": spec, "mel_mean": [-3.0] * MELS, "mel_std": [2.0] * MELS, "patch_frames": FRAMES,
        "unit": "characters", "symbols": SYMBOLS, "languages": ["en", "ps"], "voices": ["anna", "ben"], "max_text_positions": 120,
        "max_patches": 200, "max_prompt_patches": 16, "max_advance": ADVANCE, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH, "num_text_layers": TEXT_LAYERS, "head_hidden_size": HEAD_WIDTH,
        "num_head_layers": HEAD_LAYERS, "aligner_size": ALIGNER, "flow_map": False,
        "sampling": {"steps": 1, "guidance": 1.0, "temperature": 0.7},
        "vocoder": {
            "feature_spec": spec, "hidden_size": VOCODER_WIDTH, "intermediate_size": VOCODER_INNER, "num_layers": VOCODER_LAYERS,
            "kernel_size": VOCODER_KERNEL,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    for name, hertz in [("anna", 330.0), ("ben", 110.0)]:
        seconds = np.arange(int(1.2 * 16_000)) / 16_000
        wave = sum(np.sin(2 * np.pi * hertz * k * seconds) / k for k in range(1, 8)) * 0.15
        soundfile.write(folder / f"voice-{name}.flac", wave, 16_000)


if __name__ == "__main__":
    main()
