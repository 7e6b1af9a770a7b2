"""A random-weight FastConformer encoder and NeMo's features, as transformers' Parakeet has them.

    python tests/oracle/make.py fast_conformer          (seconds)

Makes tests/fixtures/fast-conformer/: config.json (an `encoder_config`), model.safetensors (f16; everything is computed in f32
from the rounded weights), expected.safetensors and expected.json.

    encoded.<clip>     hidden states of a clip alone
    padded             of both clips in a batch, the second shorter, with its mask; zeros where it is padded
    trained            of both clips cut to the same length, in training: batch statistics, no dropout
    gradient.<name>    of the sum of `trained` times synthetic_mel(D, T', 7) over that of clip 0 and clip 1 together
    running.<name>     running statistics after that one batch
    limited.<any of these>
                       where every position attends to CONTEXT alone, as NeMo's masks have it (conformer_encoder.py: _create_masks);
                       without the running statistics, and fewer gradients
    features.<bins>    of synthetic_waveform(21000), frames x bins

Made with torch 2.15.0, transformers 5.24.0.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import ParakeetEncoder, ParakeetEncoderConfig, ParakeetFeatureExtractor

from common import FIXTURES, synthetic_mel, synthetic_waveform, versions, write_json
from conformer_weights import randomise

OUT = FIXTURES / "fast-conformer"
SHAPE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_kernel_size=5,
    subsampling_factor=8, subsampling_conv_channels=6, num_mel_bins=80, scale_input=True,
)  # fmt: skip
FRAMES = [203, 100]
TRAINED_FRAMES = 96
CONTEXT = [3, 2]  # positions before and after
GRADIENTS = [
    "subsampling.layers.0.weight", "subsampling.layers.2.weight", "subsampling.layers.3.weight", "layers.0.self_attn.bias_u",
    "layers.0.self_attn.bias_v", "layers.0.self_attn.relative_k_proj.weight", "layers.0.conv.norm.weight",
    "layers.0.conv.depthwise_conv.weight", "layers.1.conv.pointwise_conv1.weight", "layers.1.feed_forward1.linear1.weight",
]  # fmt: skip


def features(clip, frames):
    return torch.from_numpy(synthetic_mel(SHAPE["num_mel_bins"], frames, clip)).T.unsqueeze(0)  # (1, T, F)


def model():
    torch.manual_seed(11)
    config = ParakeetEncoderConfig(
        **SHAPE, dropout=0.0, dropout_positions=0.0, layerdrop=0.0, activation_dropout=0.0, attention_dropout=0.0
    )
    encoder = ParakeetEncoder(config)
    randomise(encoder, lambda name, n_inputs: (1.5 / n_inputs) ** 0.5)
    return encoder


def limit(encoder, before, after):
    """Hides from every position what lies more than so many before and after it."""

    def banded(module, args, kwargs):
        t = kwargs["hidden_states"].shape[1]
        band = torch.ones(t, t, dtype=torch.bool).triu(-before).tril(after)
        mask = kwargs["attention_mask"]
        return args, kwargs | {"attention_mask": band if mask is None else mask & band}

    for layer in encoder.layers:
        layer.self_attn.register_forward_pre_hook(banded, with_kwargs=True)


def encoded(encoder):
    """What clips become alone and in a padded batch, and how many positions each has."""
    expected = {}
    with torch.no_grad():
        for clip, frames in enumerate(FRAMES):
            expected[f"encoded.{clip}"] = encoder(features(clip, frames)).last_hidden_state[0]
        batch = torch.zeros(2, FRAMES[0], SHAPE["num_mel_bins"])
        mask = torch.zeros(2, FRAMES[0], dtype=torch.bool)
        for clip, frames in enumerate(FRAMES):
            batch[clip, :frames] = features(clip, frames)[0]
            mask[clip, :frames] = True
        out = encoder(batch, attention_mask=mask)
        expected["padded"] = out.last_hidden_state * out.attention_mask.unsqueeze(-1)
    return expected, out.attention_mask.sum(-1).tolist()


def trained(encoder, gradients):
    """A training step: what comes out, these of its gradients, and the norms of all of them."""
    encoder.train()
    out = encoder(torch.cat([features(clip, TRAINED_FRAMES) for clip in range(2)])).last_hidden_state
    target = torch.from_numpy(synthetic_mel(SHAPE["hidden_size"], out.shape[1], 7)).T
    (out * target).sum().backward()
    expected = {"trained": out.detach()}
    norms = {name: value.grad.double().norm().item() for name, value in encoder.named_parameters()}
    for name, value in encoder.named_parameters():
        if name in gradients:
            expected[f"gradient.{name}"] = value.grad
    return expected, norms


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    encoder = model().eval()
    weights = {n: v.half() for n, v in encoder.state_dict().items() if v.is_floating_point() and "inv_freq" not in n}
    save_file(weights, OUT / "model.safetensors")
    (OUT / "config.json").write_text(json.dumps({"encoder_config": SHAPE}, indent=1) + "\n")

    expected, lengths = encoded(encoder)
    more, norms = trained(encoder, GRADIENTS)
    expected |= more
    for name, value in encoder.named_buffers():
        if "running" in name:
            expected[f"running.{name}"] = value
    limited = model().eval()
    limit(limited, *CONTEXT)
    found, _ = encoded(limited)
    more, limited_norms = trained(limited, [name for name in GRADIENTS if "self_attn" in name])
    expected |= {f"limited.{name}": value for name, value in (found | more).items()}
    for bins in [80, 128]:
        extractor = ParakeetFeatureExtractor(feature_size=bins)
        found = extractor(synthetic_waveform(21000), sampling_rate=16000, return_tensors="pt")
        n = int(found["attention_mask"].sum())
        expected[f"features.{bins}"] = found["input_features"][0, :n]
    save_file({name: value.contiguous().float() for name, value in expected.items()}, OUT / "expected.safetensors")
    write_json(
        OUT / "expected.json",
        {"made_with": versions(), "frames": FRAMES, "positions": lengths, "trained_frames": TRAINED_FRAMES,
         "gradient_norms": norms, "context": CONTEXT, "limited_gradient_norms": limited_norms},
    )  # fmt: skip


if __name__ == "__main__":
    main()
