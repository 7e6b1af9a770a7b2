"""A model of ours in other people's programs: the same transcripts in transformers, in PEFT beside its base, in whisper.cpp and, by
its own converter, in CTranslate2.

    python tests/compat/finetuned.py --speechd target/release/speechd --model runs/finetune-ps/model --language ps \
        --manifest runs/finetune-ps/data/ps-synth/test.jsonl [--limit 20] [--adapter runs/finetune-ps/adapter] [--ggml] [--ctranslate2] \
        [--round-trip]

Needs: transformers, torch, soundfile, scipy; peft for --adapter; pywhispercpp for --ggml; ctranslate2 for --ctranslate2.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import scipy.signal
import soundfile
import torch

RATE = 16_000


def rows(manifest, limit):
    with open(manifest, encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines if line.strip()]
    return found[:limit] if limit else found


def samples(row, manifest):
    path = pathlib.Path(row["audio_filepath"])
    path = path if path.is_absolute() else pathlib.Path(manifest).parent / path
    waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = waveform.mean(axis=1)
    if rate != RATE:
        waveform = scipy.signal.resample_poly(waveform, RATE, rate).astype("float32")
    return numpy.ascontiguousarray(waveform)


def ours(speechd, model, language, clips):
    """What `speechd evaluate` heard, by name: in the very samples that the others hear, as resamplers differ."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = pathlib.Path(folder) / "clips.jsonl"
        with open(manifest, "w", encoding="utf-8") as lines:
            for index, (name, waveform) in enumerate(clips.items()):
                path = pathlib.Path(folder) / f"{index}.wav"
                soundfile.write(path, waveform, RATE, subtype="FLOAT")
                row = {"id": name, "audio_filepath": str(path), "duration": len(waveform) / RATE, "text": "-"}
                lines.write(json.dumps(row) + "\n")
        hypotheses = pathlib.Path(folder) / "heard.tsv"
        command = [speechd, "evaluate", manifest, "--model", model, "--language", language, "--beam-size", "1", "--quiet"]
        command += ["--hypotheses", str(hypotheses)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = hypotheses.read_text(encoding="utf-8").splitlines()[1:]
    return {name: text.strip() for name, _, text in (line.split("\t") for line in lines)}


def prompt_of(config, language):
    prompt = [config.decoder_start_token_id]
    if config.is_multilingual:
        prompt += [config.lang_to_id[f"<|{language}|>"], config.task_to_id["transcribe"]]
    return prompt + [config.no_timestamps_token_id]


def features_of(waveform, model_dir):
    """(1, F, T): a window, or as many frames as there are where the bundle asks for no silence after them."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(model_dir)
    padding = "do_not_pad" if is_variable_length(model_dir) else "max_length"
    return extractor(waveform, sampling_rate=RATE, return_tensors="pt", padding=padding).input_features


def is_variable_length(model_dir):
    config = json.loads((pathlib.Path(model_dir) / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("variable_length"))


def encode(encoder, features, is_variable_length):
    """Hidden states; transformers' own forward pass takes whole windows alone."""
    if not is_variable_length:
        return encoder(features)
    from transformers.modeling_outputs import BaseModelOutput

    hidden = torch.nn.functional.gelu(encoder.conv1(features))
    hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return BaseModelOutput(last_hidden_state=encoder.layer_norm(hidden))


def in_transformers(model_dir, language, clips, adapter=None, base=None):
    from transformers import GenerationConfig, WhisperForConditionalGeneration
    from transformers import PreTrainedTokenizerFast

    source = base or model_dir
    model = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).eval()
    config = GenerationConfig.from_pretrained(source)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(pathlib.Path(source) / "tokenizer.json"))
    prompt = prompt_of(config, language)
    inner = model.get_base_model() if adapter else model
    suppressed = torch.tensor(config.suppress_tokens or [], dtype=torch.long)
    at_first = torch.tensor(config.begin_suppress_tokens or [], dtype=torch.long)
    texts = {}
    for name, waveform in clips.items():
        features = features_of(waveform, model_dir)
        ids = list(prompt)
        with torch.no_grad():
            encoded = encode(inner.model.encoder, features, is_variable_length(model_dir))
            # Greedy, token by token, by the rules that the bundle states: no part of a program's own defaults.
            while len(ids) < inner.config.max_target_positions:
                logits = inner(decoder_input_ids=torch.tensor([ids]), encoder_outputs=encoded).logits[0, -1]
                logits[suppressed] = -numpy.inf
                logits[config.no_timestamps_token_id :] = -numpy.inf
                if len(ids) == len(prompt):
                    logits[at_first] = -numpy.inf
                ids.append(int(logits.argmax()))
                if ids[-1] == config.eos_token_id:
                    break
        texts[name] = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
    return texts


def in_whisper_cpp(speechd, model_dir, language, clips):
    from pywhispercpp.model import Model

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.bin"
        subprocess.run([speechd, "models", "export", model_dir, "--format", "ggml", "--out", path], check=True,
                       stdout=subprocess.DEVNULL)
        model = Model(str(path), print_progress=False, print_realtime=False, n_threads=2)
        texts = {}
        for name, waveform in clips.items():
            segments = model.transcribe(waveform, language=language, no_context=True, single_segment=True,
                                        no_timestamps=True, temperature_inc=0.0)
            texts[name] = "".join(segment.text for segment in segments).strip()
    return texts


def in_ctranslate2(model_dir, language, clips):
    import ctranslate2
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    config = GenerationConfig.from_pretrained(model_dir)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(pathlib.Path(model_dir) / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "model")
        ctranslate2.converters.TransformersConverter(str(model_dir)).convert(path)
        model = ctranslate2.models.Whisper(path, device="cpu", compute_type="float32", intra_threads=2)
        texts = {}
        for name, waveform in clips.items():
            features = numpy.ascontiguousarray(features_of(waveform, model_dir).numpy())
            result = model.generate(ctranslate2.StorageView.from_array(features), [prompt_of(config, language)],
                                    beam_size=1, suppress_tokens=list(config.suppress_tokens or []),
                                    suppress_blank=bool(config.begin_suppress_tokens))
            texts[name] = tokenizer.decode(result[0].sequences_ids[0], skip_special_tokens=True).strip()
    return texts


def round_trip(speechd, model_dir, language, clips):
    """What the model is heard to say here after transformers has read it and written it again, its own files only."""
    from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperFeatureExtractor
    from transformers import WhisperForConditionalGeneration

    with tempfile.TemporaryDirectory() as folder:
        model = WhisperForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32)
        model.generation_config = GenerationConfig.from_pretrained(model_dir)
        model.save_pretrained(folder)
        WhisperFeatureExtractor.from_pretrained(model_dir).save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(pathlib.Path(model_dir) / "tokenizer.json"))
        tokenizer.save_pretrained(folder)
        return ours(speechd, folder, language, clips)


def compare(what, ours, theirs):
    n_same = sum(ours[name] == text for name, text in theirs.items())
    print(f"{what}: {n_same} of {len(theirs)} transcripts are the same")
    for name, text in theirs.items():
        if ours[name] != text:
            print(f"  {name}: ours {ours[name]!r}, theirs {text!r}")
    return n_same == len(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speechd", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--adapter")
    parser.add_argument("--ggml", action="store_true")
    parser.add_argument("--ctranslate2", action="store_true")
    parser.add_argument("--round-trip", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    clips = {row["id"]: samples(row, args.manifest) for row in rows(args.manifest, args.limit)}
    heard = ours(args.speechd, args.model, args.language, clips)
    is_same = compare("transformers", heard, in_transformers(args.model, args.language, clips))
    if args.adapter:
        config = json.loads((pathlib.Path(args.adapter) / "adapter_config.json").read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
        theirs = in_transformers(args.model, args.language, clips, adapter=args.adapter, base=base)
        is_same &= compare("PEFT, beside the base", heard, theirs)
    if args.ggml:
        is_same &= compare("whisper.cpp", heard, in_whisper_cpp(args.speechd, args.model, args.language, clips))
    if args.ctranslate2:
        is_same &= compare("CTranslate2", heard, in_ctranslate2(args.model, args.language, clips))
    if args.round_trip:
        is_same &= compare("here, written again by transformers", heard, round_trip(args.speechd, args.model, args.language, clips))
    sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
