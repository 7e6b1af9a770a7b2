"""A random-weight Canary checkpoint, and what transformers computes with it.

    python tests/oracle/make.py canary          (seconds)

Makes tests/fixtures/canary/: a bundle in Hugging Face layout (weights in f16; everything is computed in f32 from the rounded
weights) with expected.safetensors and expected.json beside it.

    encoded.<clip>     hidden states of the encoder of a clip alone
    logits.<clip>      of `sequences` of expected.json after it, all positions
    greedy             tokens that follow `prompt`, at most 24 of them, of each clip
    beams              the same with 3 beams
    loss               cross-entropy of `labels` after `decoder_input_ids` in a batch of both clips in training (batch statistics, no
                       dropout), mean over labels that count
    gradient_norms     of all parameters by that loss

Ids: as NeMo's canary2 has them up to the languages, then 48 characters of text as a vocabulary of characters has them.

Made with torch 2.15.0, transformers 5.24.0. `python canary.py --search` tries seeds and prints how varied their output is and how far apart
their decisions are.
"""

import sys

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CanaryConfig, CanaryForConditionalGeneration
from transformers.utils import logging as hf_logging

from common import FIXTURES, synthetic_mel, versions, write_json
from conformer_weights import randomise

hf_logging.set_verbosity_error()
OUT = FIXTURES / "canary"
CONTROL = [
    "<unk>", "<|nospeech|>", "<pad>", "<|endoftext|>", "<|startoftranscript|>", "<|pnc|>", "<|nopnc|>", "<|startofcontext|>",
    "<|itn|>", "<|noitn|>", "<|timestamp|>", "<|notimestamp|>", "<|diarize|>", "<|nodiarize|>", "<|emo:undefined|>",
    "<|en|>", "<|de|>", "<|ps|>",
]  # fmt: skip
TEXT = "▁abcdefghijklmnopqrstuvwxyz'.,?-äöüßابتثجحخدذرزسش"
ENCODER = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_kernel_size=5,
    subsampling_factor=8, subsampling_conv_channels=6, num_mel_bins=80, scale_input=False,
)  # fmt: skip
DECODER = dict(
    hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
    max_position_embeddings=64,
)  # fmt: skip
FRAMES = [203, 100]
NEW_TOKENS = 24
SEED = 31


def features(clip, frames):
    return torch.from_numpy(synthetic_mel(ENCODER["num_mel_bins"], frames, clip)).T.unsqueeze(0)


def build_tokenizer():
    vocab = {token: i for i, token in enumerate(CONTROL + list(TEXT))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL])
    return tokenizer, vocab


def matrix_std(name, n_inputs):
    if "embed_tokens" in name:
        return 0.15
    # Else a token only says itself again.
    return ((16.0 if "decoder.layers" in name else 1.5) / n_inputs) ** 0.5


def build_model(n_vocab, seed):
    torch.manual_seed(seed)
    quiet = dict(dropout=0.0, dropout_positions=0.0, layerdrop=0.0, activation_dropout=0.0, attention_dropout=0.0)
    config = CanaryConfig(
        encoder_config=dict(model_type="parakeet_encoder", **ENCODER, **quiet),
        decoder_config=dict(vocab_size=n_vocab, attention_dropout=0.0, **DECODER),
        vocab_size=n_vocab,
    )
    model = CanaryForConditionalGeneration(config)
    randomise(model, matrix_std)
    return model


def prompt_ids(vocab):
    names = ("startofcontext", "startoftranscript", "emo:undefined", "ps", "ps", "pnc", "noitn", "notimestamp", "nodiarize")
    return [vocab[f"<|{name}|>"] for name in names]


def search():
    _, vocab = build_tokenizer()
    prompt = prompt_ids(vocab)
    for seed in range(200):
        model = build_model(len(vocab), seed).eval()
        distinct, margin = [], []
        for clip, frames in enumerate(FRAMES):
            ids = list(prompt)
            with torch.no_grad():
                encoded = model.model.encoder(features(clip, frames))
                for _ in range(NEW_TOKENS):
                    logits = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
                    logits[[t for t in range(len(CONTROL)) if t != vocab["<|endoftext|>"]]] = -torch.inf
                    best = logits.topk(2)
                    margin.append((best.values[0] - best.values[1]).item())
                    ids.append(best.indices[0].item())
                    if ids[-1] == vocab["<|endoftext|>"]:
                        break
            distinct.append((len(set(ids[len(prompt):])), len(ids) - len(prompt)))
        if min(d for d, _ in distinct) >= 4 and min(margin) > 0.01:
            print(seed, distinct, round(min(margin), 3), flush=True)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer, vocab = build_tokenizer()
    tokenizer.save(str(OUT / "tokenizer.json"))
    model = build_model(len(vocab), SEED).eval()
    model.config.save_pretrained(OUT)
    weights = {
        name: value.half().contiguous()
        for name, value in model.state_dict().items()
        if value.is_floating_point() and "inv_freq" not in name and "positional_embedding" not in name
        and name != "proj_out.weight"
    }  # fmt: skip
    save_file(weights, OUT / "model.safetensors")

    prompt = prompt_ids(vocab)
    n_control = len(CONTROL)
    texts = [[n_control + (7 * i + 3) % 40 for i in range(9)], [n_control + (5 * i + 1) % 40 for i in range(5)]]
    expected, report = {}, {"made_with": versions(), "frames": FRAMES, "prompt": prompt, "texts": texts}
    report["sequences"] = [prompt + text for text in texts]
    report["greedy"], report["beams"] = [], []
    banned = [[token] for token in range(n_control) if token != vocab["<|endoftext|>"]]
    with torch.no_grad():
        for clip, frames in enumerate(FRAMES):
            mel = features(clip, frames)
            expected[f"encoded.{clip}"] = model.model.encoder(mel).last_hidden_state[0]
            ids = torch.tensor([report["sequences"][clip]])
            expected[f"logits.{clip}"] = model(mel, decoder_input_ids=ids).logits[0]
            for key, beams in [("greedy", 1), ("beams", 3)]:
                found = model.generate(
                    mel, decoder_input_ids=torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, num_beams=beams,
                    do_sample=False, early_stopping=False, length_penalty=1.0, bad_words_ids=banned,
                )  # fmt: skip
                tokens = found[0].tolist()
                tokens = tokens[tokens.index(prompt[-1]) + 1:] if tokens[: len(prompt)] != prompt else tokens[len(prompt):]
                report[key].append(tokens)

    end, pad = vocab["<|endoftext|>"], vocab["<pad>"]
    longest = max(len(text) for text in texts)
    report["decoder_input_ids"] = [prompt + text + [pad] * (longest - len(text)) for text in texts]
    report["labels"] = [
        [-100] * (len(prompt) - 1) + text + [end] + [-100] * (longest - len(text)) for text in texts
    ]
    model.train()
    mel = torch.cat([features(clip, FRAMES[1]) for clip in range(2)])
    logits = model(mel, decoder_input_ids=torch.tensor(report["decoder_input_ids"])).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(report["labels"]).flatten(), ignore_index=-100)
    loss.backward()
    report["loss"] = loss.item()
    report["gradient_norms"] = {name: value.grad.double().norm().item() for name, value in model.named_parameters()}
    for name in ["model.decoder.embed_tokens.weight", "model.decoder.embedding_layernorm.weight", "proj_out.bias",
                 "model.decoder.layers.0.encoder_attn.k_proj.bias", "model.encoder.layers.1.self_attn.bias_v"]:  # fmt: skip
        expected[f"gradient.{name}"] = dict(model.named_parameters())[name].grad
    save_file({name: value.contiguous().float() for name, value in expected.items()}, OUT / "expected.safetensors")
    write_json(OUT / "expected.json", report)


if __name__ == "__main__":
    search() if sys.argv[1:] == ["--search"] else main()
