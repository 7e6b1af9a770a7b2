"""A random-weight CTC model, and what transformers computes with it.

    python tests/oracle/make.py parakeet          (seconds)

Makes tests/fixtures/parakeet/: a bundle in Hugging Face layout (weights in f16; everything is computed in f32 from the rounded
weights) with expected.safetensors and expected.json beside it.

    logits.<clip>      of a clip alone
    greedy             ids of each clip, runs joined and blanks left out
    texts              what the tokenizer makes of them
    loss               CTC of `labels` in a padded batch of both clips, summed, without dropout and by the running statistics

Made with torch 2.15.0, transformers 5.24.0.
"""

import itertools

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import ParakeetCTCConfig, ParakeetForCTC, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from common import FIXTURES, synthetic_mel, versions, write_json
from conformer_weights import randomise

hf_logging.set_verbosity_error()
OUT = FIXTURES / "parakeet"
TEXT = "▁abcdefghijklmnopqrstuvwxyz'"
ENCODER = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_kernel_size=9,
    subsampling_factor=8, subsampling_conv_channels=6, num_mel_bins=80, scale_input=True, convolution_bias=False,
    attention_bias=False,
)  # fmt: skip
FRAMES = [203, 100]
LABELS = [[3, 3, 8, 1, 20], [5, 9]]


def features(clip, frames):
    return torch.from_numpy(synthetic_mel(ENCODER["num_mel_bins"], frames, clip)).T.unsqueeze(0)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(["<unk>", *TEXT, "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<pad>")])
    tokenizer.save(str(OUT / "tokenizer.json"))
    blank = vocab["<pad>"]

    torch.manual_seed(3)
    quiet = dict(dropout=0.0, dropout_positions=0.0, layerdrop=0.0, activation_dropout=0.0, attention_dropout=0.0)
    config = ParakeetCTCConfig(
        encoder_config=dict(model_type="parakeet_encoder", **ENCODER, **quiet), vocab_size=len(vocab), pad_token_id=blank,
        ctc_loss_reduction="sum",
    )  # fmt: skip
    model = ParakeetForCTC(config).eval()
    randomise(model, lambda name, n_inputs: (3.0 / n_inputs) ** 0.5)
    model.config.save_pretrained(OUT)
    weights = {n: v.half().contiguous() for n, v in model.state_dict().items() if v.is_floating_point() and "inv_freq" not in n}
    save_file(weights, OUT / "model.safetensors")

    expected, report = {}, {"made_with": versions(), "frames": FRAMES, "labels": LABELS, "greedy": [], "texts": []}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    batch = torch.zeros(2, FRAMES[0], ENCODER["num_mel_bins"])
    mask = torch.zeros(2, FRAMES[0], dtype=torch.bool)
    with torch.no_grad():
        for clip, frames in enumerate(FRAMES):
            mel = features(clip, frames)
            batch[clip, :frames], mask[clip, :frames] = mel[0], True
            logits = model(mel).logits[0]
            expected[f"logits.{clip}"] = logits
            ids = [key for key, _ in itertools.groupby(logits.argmax(-1).tolist()) if key != blank]
            report["greedy"].append(ids)
            report["texts"].append(fast.decode(ids, skip_special_tokens=True))
        labels = torch.full((2, max(map(len, LABELS))), blank)
        for row, ids in enumerate(LABELS):
            labels[row, : len(ids)] = torch.tensor(ids)
        report["loss"] = model(batch, attention_mask=mask, labels=labels).loss.item()
    save_file({name: value.contiguous().float() for name, value in expected.items()}, OUT / "expected.safetensors")
    write_json(OUT / "expected.json", report)


if __name__ == "__main__":
    main()
