"""Archives as NVIDIA NeMo saves them, of models with random weights, and what transformers computes with these.

    python tests/oracle/make.py nemo          (seconds)

Makes tests/fixtures/nemo/: ctc.nemo (a tar; weights in f32) and canary.nemo (a gzipped tar; weights in f16, one tokenizer for each
language), with expected.safetensors and expected.json beside them. Names are NeMo's, as transformers' own converters read them
(convert_nemo_to_hf.py of Parakeet, convert_canary_nemo_to_hf.py), and so are configurations.

    ctc.logits.<clip>        of a clip alone
    ctc_texts                what SentencePiece makes of the likeliest tokens, runs joined and blanks left out
    canary.encoded.<clip>    hidden states of the encoder
    canary.logits.<clip>     of `sequences` after it
    canary_texts             what NeMo's aggregate tokenizer makes of the text in them

NeMo tells positions in its decoder by sines and cosines in turn (transformer_modules.py: FixedPositionalEncoding), transformers by
all sines before all cosines. The weights of canary.nemo are NeMo's: transformers' modules compute with them as they are, and with
NeMo's table in the place of their own.

Made with torch 2.15.0, transformers 5.24.0, sentencepiece 0.2.3.
"""

import gzip
import io
import itertools
import math
import re
import tarfile

import sentencepiece as spm
import torch
import yaml
from safetensors.torch import save_file
from transformers import CanaryConfig, CanaryForConditionalGeneration, ParakeetCTCConfig, ParakeetForCTC
from transformers.audio_utils import mel_filter_bank
from transformers.utils import logging as hf_logging

from common import FIXTURES, synthetic_mel, versions, write_json
from conformer_weights import randomise
from sentencepiece_models import LINES, train

hf_logging.set_verbosity_error()
OUT = FIXTURES / "nemo"
FRAMES = [203, 100]
QUIET = dict(dropout=0.0, dropout_positions=0.0, layerdrop=0.0, activation_dropout=0.0, attention_dropout=0.0)
SIZES = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_kernel_size=5,
    subsampling_factor=8, subsampling_conv_channels=4, num_mel_bins=80,
)  # fmt: skip
SPECIAL = [
    "<|nospeech|>", "<pad>", "<|endoftext|>", "<|startoftranscript|>", "<|pnc|>", "<|nopnc|>", "<|startofcontext|>", "<|itn|>",
    "<|noitn|>", "<|timestamp|>", "<|notimestamp|>", "<|diarize|>", "<|nodiarize|>", "<|emo:undefined|>", "<|en|>", "<|ps|>",
]  # fmt: skip

ENCODER_NAMES = {
    r"^encoder\.subsampling\.layers\.": "encoder.pre_encode.conv.",
    r"^encoder\.subsampling\.linear\.": "encoder.pre_encode.out.",
    r"\.conv\.norm\.": ".conv.batch_norm.",
    r"^(encoder\..*)\.([qkv])_proj\.": r"\1.linear_\2.",
    r"^(encoder\..*)\.o_proj\.": r"\1.linear_out.",
    r"\.relative_k_proj\.": ".linear_pos.",
    r"\.bias_([uv])$": r".pos_bias_\1",
    r"^ctc_head\.": "decoder.decoder_layers.0.",
}
DECODER_NAMES = {
    r"^decoder\.embed_tokens\.": "transf_decoder._embedding.token_embedding.",
    r"^decoder\.embedding_layernorm\.": "transf_decoder._embedding.layer_norm.",
    r"^decoder\.norm\.": "transf_decoder._decoder.final_layer_norm.",
    r"^decoder\.layers\.": "transf_decoder._decoder.layers.",
    r"\.input_layernorm\.": ".layer_norm_1.",
    r"\.post_attention_layernorm\.": ".layer_norm_2.",
    r"\.final_layernorm\.": ".layer_norm_3.",
    r"(_decoder\.layers\.\d+)\.self_attn\.": r"\1.first_sub_layer.",
    r"\.encoder_attn\.": ".second_sub_layer.",
    r"\.mlp\.fc1\.": ".third_sub_layer.dense_in.",
    r"\.mlp\.fc2\.": ".third_sub_layer.dense_out.",
    r"_sub_layer\.q_proj\.": "_sub_layer.query_net.",
    r"_sub_layer\.k_proj\.": "_sub_layer.key_net.",
    r"_sub_layer\.v_proj\.": "_sub_layer.value_net.",
    r"_sub_layer\.o_proj\.": "_sub_layer.out_projection.",
    r"^proj_out\.": "log_softmax.mlp.layer0.",
}


def features(clip, frames):
    return torch.from_numpy(synthetic_mel(80, frames, clip)).T.unsqueeze(0)


def renamed(name, table):
    for pattern, replacement in table.items():
        name = re.sub(pattern, replacement, name)
    return name


def with_random_weights(model, seed):
    torch.manual_seed(seed)
    randomise(model, lambda name, n_inputs: 0.5 if "embed_tokens" in name else (3.0 / n_inputs) ** 0.5)
    return model.eval()


def weights(model, table, prefix=""):
    state = {}
    for name, value in model.state_dict().items():
        if "inv_freq" in name or "positional_embedding" in name:
            continue
        state[renamed(name.removeprefix(prefix), table)] = value.clone()
    state["preprocessor.featurizer.window"] = torch.hann_window(400, periodic=False)
    filters = mel_filter_bank(257, 80, 0, 8000, 16000, norm="slaney", mel_scale="slaney")
    state["preprocessor.featurizer.fb"] = torch.from_numpy(filters).float().T.unsqueeze(0).contiguous()
    return state


def preprocessor():
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "sample_rate": 16000,
        "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann", "features": 80, "n_fft": 512,
        "log": True, "frame_splicing": 1, "dither": 1.0e-05, "pad_to": 0, "pad_value": 0.0,
    }  # fmt: skip


def encoder(xscaling, **more):
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 80, "feat_out": -1,
        "n_layers": SIZES["num_hidden_layers"], "d_model": SIZES["hidden_size"], "subsampling": "dw_striding",
        "subsampling_factor": 8, "subsampling_conv_channels": SIZES["subsampling_conv_channels"], "causal_downsampling": False,
        "reduction": None, "reduction_position": None, "reduction_factor": 1, "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos", "n_heads": SIZES["num_attention_heads"], "att_context_size": [-1, -1],
        "att_context_style": "regular", "xscaling": xscaling, "untie_biases": True, "pos_emb_max_len": 5000,
        "conv_kernel_size": SIZES["conv_kernel_size"], "conv_norm_type": "batch_norm", "conv_context_size": None, "dropout": 0.1,
        "dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1, "stochastic_depth_drop_prob": 0.0,
        "stochastic_depth_mode": "linear", "stochastic_depth_start_layer": 1, **more,
    }  # fmt: skip


def save(path, config, state, tokenizers, compressed):
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)
    members = {"model_config.yaml": yaml.safe_dump(config, sort_keys=False).encode(), "model_weights.ckpt": checkpoint.getvalue()}
    members |= tokenizers
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        folder = tarfile.TarInfo(".")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, contents in members.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    path.write_bytes(gzip.compress(tar.getvalue(), mtime=0) if compressed else tar.getvalue())


def ctc(expected, report):
    vocabulary = train(model_type="bpe", vocab_size=60, character_coverage=1.0, lines=LINES[:8])
    tokenizer = spm.SentencePieceProcessor(model_proto=vocabulary)
    blank = tokenizer.vocab_size()
    config = ParakeetCTCConfig(
        encoder_config=dict(
            model_type="parakeet_encoder", scale_input=True, attention_bias=False, convolution_bias=False, **SIZES, **QUIET
        ),
        vocab_size=blank + 1, pad_token_id=blank,
    )  # fmt: skip
    model = with_random_weights(ParakeetForCTC(config), 5)
    report["ctc_greedy"], report["ctc_texts"] = [], []
    with torch.no_grad():
        for clip, frames in enumerate(FRAMES):
            logits = model(features(clip, frames)).logits[0]
            expected[f"ctc.logits.{clip}"] = logits
            ids = [key for key, _ in itertools.groupby(logits.argmax(-1).tolist()) if key != blank]
            report["ctc_greedy"].append(ids)
            report["ctc_texts"].append(tokenizer.decode(ids))
    pieces = [tokenizer.id_to_piece(i) for i in range(blank)]
    nemo = {
        "sample_rate": 16000, "log_prediction": True, "ctc_reduction": "mean_volume", "skip_nan_grad": False,
        "tokenizer": {
            "dir": "/data/tokenizer", "type": "bpe", "model_path": "nemo:2b6cff4d3a0b4f8c9e1d_tokenizer.model",
            "vocab_path": "nemo:07c1c3c1_vocab.txt", "spe_tokenizer_vocab": "nemo:9d1b_tokenizer.vocab",
        },
        "preprocessor": preprocessor(),
        "spec_augment": {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "freq_masks": 2, "time_masks": 10},
        "encoder": encoder(True, use_bias=False),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": 16, "num_classes": blank, "vocabulary": pieces,
        },
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE", "nemo_version": "2.0.0",
    }  # fmt: skip
    state = weights(model, ENCODER_NAMES)
    files = {"2b6cff4d3a0b4f8c9e1d_tokenizer.model": vocabulary, "07c1c3c1_vocab.txt": "\n".join(pieces).encode()}
    save(OUT / "ctc.nemo", nemo, state, files, compressed=False)


def canary(expected, report):
    parts = {
        "spl_tokens": train(model_type="bpe", vocab_size=len(SPECIAL) + 4, user_defined_symbols=SPECIAL, lines=["a"], bos_id=-1, eos_id=-1),
        "en": train(model_type="bpe", vocab_size=60, lines=LINES[:8], bos_id=-1, eos_id=-1),
        "ps": train(model_type="bpe", vocab_size=60, lines=LINES[8:] + ["a and the"], bos_id=-1, eos_id=-1),
    }
    tokenizers = {name: spm.SentencePieceProcessor(model_proto=part) for name, part in parts.items()}
    sizes = {name: tokenizer.vocab_size() for name, tokenizer in tokenizers.items()}
    offsets = dict(zip(sizes, itertools.accumulate([0, *sizes.values()])))
    n_vocab = 8 * math.ceil(sum(sizes.values()) / 8)
    special = lambda name: tokenizers["spl_tokens"].piece_to_id(name)  # noqa: E731
    width, n_positions = SIZES["hidden_size"], 64
    config = CanaryConfig(
        encoder_config=dict(model_type="parakeet_encoder", scale_input=False, **SIZES, **QUIET),
        decoder_config=dict(
            vocab_size=n_vocab, hidden_size=width, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=n_positions, attention_dropout=0.0,
        ),
        vocab_size=n_vocab,
    )  # fmt: skip
    model = with_random_weights(CanaryForConditionalGeneration(config), 7)
    waves = torch.exp(torch.arange(0.0, width, 2) * -(math.log(10000.0) / width))
    angles = torch.arange(0.0, n_positions).unsqueeze(1) * waves
    table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # a sine, its cosine, the next sine
    with torch.no_grad():
        model.model.decoder.pos_emb.positional_embedding.copy_(table)

    names = ["startofcontext", "startoftranscript", "emo:undefined", "ps", "ps", "pnc", "noitn", "notimestamp", "nodiarize"]
    prompt = [special(f"<|{name}|>") for name in names]
    spoken = [("en", "the people of the earth"), ("ps", "یو دوه ویشت and")]
    texts = [[offsets[language] + i for i in tokenizers[language].encode(text)] for language, text in spoken]
    report["prompt"] = prompt
    report["sequences"] = [prompt + ids for ids in texts]
    report["canary_texts"] = [text for _, text in spoken]
    # What is cut as NeMo does: all texts of the first language.
    report["encoded_text"] = {"text": spoken[0][1], "ids": texts[0]}
    with torch.no_grad():
        for clip, frames in enumerate(FRAMES):
            mel = features(clip, frames)
            expected[f"canary.encoded.{clip}"] = model.model.encoder(mel).last_hidden_state[0]
            ids = torch.tensor([report["sequences"][clip]])
            expected[f"canary.logits.{clip}"] = model(mel, decoder_input_ids=ids).logits[0]
    part = lambda name: {  # noqa: E731
        "dir": f"/data/{name}", "type": "bpe", "model_path": f"nemo:{name}71ab_tokenizer.model", "vocab_path": None,
    }  # fmt: skip
    nemo = {
        "sample_rate": 16000, "label_smoothing": 0.0, "prompt_format": "canary2",
        "model_defaults": {"asr_enc_hidden": width, "lm_enc_hidden": width, "lm_dec_hidden": width},
        "tokenizer": {
            "dir": None, "type": "agg", "langs": {name: part(name) for name in parts},
            "custom_tokenizer": {"_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer", "tokenizers": None},
        },
        "preprocessor": preprocessor(),
        "encoder": encoder(False),
        "transf_encoder": {"_target_": "x", "num_layers": 0, "hidden_size": width},
        "transf_decoder": {
            "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer", "model_name": None, "pretrained": False,
            "encoder": None, "pre_ln_final_layer_norm": True, "library": "nemo",
            "config_dict": {
                "max_sequence_length": n_positions, "num_token_types": 0, "embedding_dropout": 0.1,
                "learn_positional_encodings": False, "hidden_size": width, "inner_size": 40, "num_layers": 2,
                "num_attention_heads": 2, "ffn_dropout": 0.1, "attn_score_dropout": 0.1, "attn_layer_dropout": 0.1,
                "hidden_act": "relu", "pre_ln": True, "vocab_size": "None",
            },
        },
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier", "num_layers": 1,
            "activation": "relu", "log_softmax": True, "hidden_size": width, "num_classes": n_vocab, "dropout": 0.0,
            "use_transformer_init": True,
        },
        "target": "nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel",
    }  # fmt: skip
    state = weights(model, ENCODER_NAMES | DECODER_NAMES, "model.")
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    state["transf_decoder._embedding.position_embedding.pos_enc"] = table / math.sqrt(width)
    files = {f"{name}71ab_tokenizer.model": part for name, part in parts.items()}
    save(OUT / "canary.nemo", nemo, state, files, compressed=True)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    expected, report = {}, {"made_with": versions() | {"sentencepiece": spm.__version__}, "frames": FRAMES}
    ctc(expected, report)
    canary(expected, report)
    save_file({name: value.contiguous().float() for name, value in expected.items()}, OUT / "expected.safetensors")
    write_json(OUT / "expected.json", report)


if __name__ == "__main__":
    main()
