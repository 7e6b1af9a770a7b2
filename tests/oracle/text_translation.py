"""Random-weight translators of text, one Marian and two T5s, and what transformers writes with them.

    python tests/oracle/make.py text_translation          (seconds)

Makes tests/fixtures/text-translation/<name>/, each a model's directory as transformers saves it with expected.json beside it:

    marian     source.spm, target.spm and vocab.json, as the models of Helsinki-NLP have them
    t5         tied embeddings, ReLU, told what to do by a prefix (`task_specific_params`), as t5-small is
    madlad     an output layer of its own, gated GELU, told the language by a token (`<2ps>`), as MADLAD-400 is

    cases      of each of `texts`: ids of the source with all that precedes and ends it, ids that are written by greedy search without
               the start, and their text

Texts are longer than the first buckets of relative positions, and so is what is written: decoders have other buckets than encoders.

Made with torch 2.15.0, transformers 5.24.0, sentencepiece 0.2.3.
"""

import json

import sentencepiece as spm
import torch
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.utils import logging as hf_logging

from common import FIXTURES, versions, write_json
from sentencepiece_models import LINES, train

hf_logging.set_verbosity_error()
OUT = FIXTURES / "text-translation"
TEXTS = [
    "We are met on a great battle field of that war.",
    "people of the earth",
    "zebra 42 Ω",
    "that government of the people by the people for the people shall not perish from the earth",
]
MAX_LENGTH = 48


def randomise(model, seed, std):
    """Weights that make a decoder say different things: those of transformers' own start say one token again and again."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_positions" not in name:
                parameter.normal_(0.0, std(name, parameter))
            elif "norm" not in name:
                parameter.normal_(0.0, 0.1)


def std(name, parameter, embedding=0.15, attention=1.0):
    if "relative_attention_bias" in name:
        return 2.0
    if "shared" in name or "embed_tokens" in name or "lm_head" in name:
        # Else a token only says itself again.
        return embedding
    spread = ((16.0 if "decoder" in name else 3.0) / parameter.shape[-1]) ** 0.5
    return attention * spread if "q_proj" in name or "k_proj" in name else spread


def cases(model, source_ids, decode):
    rows = []
    for text in TEXTS:
        ids = source_ids(text)
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor([ids]), do_sample=False, num_beams=1, return_dict_in_generate=True, output_scores=True
            )
        written = output.sequences[0].tolist()[1:]
        # What is decided by less is decided otherwise elsewhere.
        best = [scores[0].topk(2).values.tolist() for scores in output.scores]
        assert min(first - second for first, second in best) > 1e-4, (text, best)
        rows.append(dict(text=text, ids=ids, written=written, translation=decode(written)))
    return rows


def finish(folder, model, rows):
    varied = [len(set(row["written"])) for row in rows]
    print(folder.name, "written:", [len(row["written"]) for row in rows], "different:", varied)
    assert max(len(row["written"]) for row in rows) > 24 and max(varied) > 4
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "expected.json", dict(versions(), cases=rows))


def marian():
    folder = OUT / "marian"
    folder.mkdir(parents=True, exist_ok=True)
    # Not a letter of Pashto: what a model cannot spell is unknown to it.
    english = train(model_type="unigram", vocab_size=120, lines=LINES[:8])
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(english)
    pieces = spm.SentencePieceProcessor(model_proto=english)
    names = [pieces.id_to_piece(i) for i in range(3, pieces.get_piece_size())]
    # Neither in SentencePiece's order nor with its special tokens, as published: the end comes first, what fills up last.
    names = ["</s>", "<unk>", *sorted(names), "<pad>"]
    vocab = {name: i for i, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"), source_lang="en", target_lang="ps",
    )  # fmt: skip
    pad = vocab["<pad>"]
    config = MarianConfig(
        vocab_size=len(vocab), d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64, activation_function="swish", scale_embedding=True,
        decoder_start_token_id=pad, pad_token_id=pad, eos_token_id=0, forced_eos_token_id=0, dropout=0.0,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    randomise(model, 3, lambda name, parameter: std(name, parameter, 0.3, 5.0))
    with torch.no_grad():
        model.final_logits_bias.normal_(0.0, 0.3)
        # Were it allowed, it would be said: only the list of bad words keeps it out.
        model.final_logits_bias[0, pad] = 30.0
    model.generation_config = GenerationConfig(
        decoder_start_token_id=pad, pad_token_id=pad, eos_token_id=0, forced_eos_token_id=0, bad_words_ids=[[pad]],
        max_length=MAX_LENGTH,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = MarianMTModel.from_pretrained(folder).eval()
    rows = cases(model, lambda text: tokenizer(text).input_ids, lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    finish(folder, model, rows)


def t5(name, seed, languages, prefix, tied, **options):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    model = train(model_type="unigram", vocab_size=140, lines=LINES[:8], user_defined_symbols=languages)
    pieces = spm.SentencePieceProcessor(model_proto=model)
    special = ["<pad>", "</s>", "<unk>"]
    vocab = [(piece, 0.0) for piece in special]
    for i in range(3, pieces.get_piece_size()):
        vocab.append((pieces.id_to_piece(i), pieces.get_score(i)))
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    tokenizer.add_special_tokens({"additional_special_tokens": languages})
    config = T5Config(
        vocab_size=len(vocab), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=tied, **options,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone())
    randomise(model, seed, std)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, max_length=MAX_LENGTH,
    )  # fmt: skip
    rows = cases(model, lambda text: tokenizer(prefix + text).input_ids, lambda ids: tokenizer.decode(ids, skip_special_tokens=True))
    config.save_pretrained(folder)
    # By hand: transformers ties what its file does not, and says so of all of them.
    if not tied:
        saved = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**saved, "tie_word_embeddings": False}, indent=2) + "\n")
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = {key: value.clone() for key, value in model.state_dict().items() if "embed_tokens" not in key}
    if tied:
        own.pop("lm_head.weight")
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    finish(folder, model, rows)


def main():
    marian()
    german = "translate English to German: "
    prefixes = {"translation_en_to_de": {"prefix": german, "max_length": 300, "num_beams": 4}}
    t5(
        "t5", 22, [], german, True, feed_forward_proj="relu", relative_attention_num_buckets=8,
        relative_attention_max_distance=20, task_specific_params=prefixes,
    )  # fmt: skip
    t5("madlad", 22, ["<2de>", "<2ps>"], "<2ps> ", False, feed_forward_proj="gated-gelu", relative_attention_num_buckets=32)


if __name__ == "__main__":
    main()
