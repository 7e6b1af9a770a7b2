"""How fast speechd is beside other engines, on the same random weights, turn by turn in one run.

    python tests/oracle/bench_peers.py --speechd target/release/speechd --tokenizer DIR [--sizes tiny,base] [--rounds 5]

DIR holds a Whisper tokenizer in Hugging Face layout (tokenizer.json and the files beside it; whisper-large-v3's is meant). In each
round every engine has its turn in a process of its own, which begins when the machine is idle; the table has the medians and, for each
engine, how many times as long as speechd it takes. Engines that are not installed are left out.

    encoder   seconds for one window of 30 s
    token     milliseconds for a token after the prompt, greedy, 64 of them, over a window of 1500 positions
    step 8    milliseconds for a step of eight sequences, each with a window of its own
    30 s      seconds for one recording of 30 s from its samples to its text, 64 tokens
    64 clips  seconds for 64 recordings of 2 to 10 s at once, 64 tokens each; speechd's bundle takes recordings as long as they are
    load      seconds until a model is ready
    start     seconds of a process that transcribes a recording of 5 s to its first text, 8 tokens
    memory    MB that the process held at most

Known inequalities: CTranslate2's token is the time of 72 tokens less that of 8, divided by 64; what is from end to end is
faster-whisper's, which runs CTranslate2, with its own batching (eight clips); whisper.cpp samples nothing and computes no batches
of windows; memory is that of whole processes, Python included.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import time

SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12)}  # width, layers of each stack, heads
N_TOKENS = 64
N_VOCAB = 51866
PROMPT = [50258, 50259, 50360, 50364]
END = 50257
FIGURES = {"encoder": 1, "token": 1e3, "step 8": 1e3, "30 s": 1, "64 clips": 1, "load": 1, "start": 1, "memory": 1}
RATE = 16000
CLIP_SECS = [2 + 8 * i / 63 for i in range(64)]


def make_checkpoint(size, folder, tokenizer):
    """A checkpoint with random weights that all engines open."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    width, layers, heads = SIZES[size]
    config = WhisperConfig(
        vocab_size=N_VOCAB, num_mel_bins=80, d_model=width,
        encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads, decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
        bos_token_id=END, eos_token_id=END, pad_token_id=END, decoder_start_token_id=PROMPT[0],
    )  # fmt: skip
    torch.manual_seed(0)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=END, eos_token_id=END, pad_token_id=END, decoder_start_token_id=PROMPT[0],
        is_multilingual=True, lang_to_id={"<|en|>": PROMPT[1]}, task_to_id={"transcribe": PROMPT[2], "translate": 50359},
        no_timestamps_token_id=PROMPT[3], max_length=448, suppress_tokens=[], begin_suppress_tokens=[],
    ).save_pretrained(folder)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "normalizer.json", "special_tokens_map.json",
                 "added_tokens.json"):  # fmt: skip
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def quantise_ggml(source, target):
    """A ggml file of 16-bit weights with its large matrices in q8_0: blocks of 32 bytes and a 16-bit scale."""
    import numpy as np

    data = source.read_bytes()
    at = 0

    def take(n):
        nonlocal at
        at += n
        return data[at - n : at]

    header = list(struct.unpack("<12i", take(48)))
    header[11] = 2007  # mostly q8_0, in the second version of the format
    out = [struct.pack("<12i", *header)]
    n_mels, n_bins = struct.unpack("<2i", take(8))
    out += [struct.pack("<2i", n_mels, n_bins), take(4 * n_mels * n_bins)]
    (n_tokens,) = struct.unpack("<i", take(4))
    out.append(struct.pack("<i", n_tokens))
    for _ in range(n_tokens):
        (n,) = struct.unpack("<I", take(4))
        out += [struct.pack("<I", n), take(n)]
    while at < len(data):
        n_dims, n_name, kind = struct.unpack("<3i", take(12))
        dims = struct.unpack(f"<{n_dims}i", take(4 * n_dims))
        name = take(n_name)
        values = take(int(np.prod(dims)) * (4 if kind == 0 else 2))
        if kind == 1 and n_dims == 2 and dims[0] % 32 == 0:
            blocks = np.frombuffer(values, np.float16).astype(np.float32).reshape(-1, 32)
            scales = np.abs(blocks).max(1) / 127
            bytes_ = np.rint(blocks / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
            packed = np.empty((len(blocks), 34), np.uint8)
            packed[:, :2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
            packed[:, 2:] = bytes_.view(np.uint8)
            values, kind = packed.tobytes(), 8
        out += [struct.pack("<3i", n_dims, n_name, kind), struct.pack(f"<{n_dims}i", *dims), name, values]
    target.write_bytes(b"".join(out))


def median(run, n=5):
    """Seconds of `run`, which has warmed up once."""
    run()
    times = []
    for _ in range(n):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_memory_mb():
    """Not what `getrusage` says: that begins with the parent's."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def features(batch=1):
    import numpy as np

    return np.repeat(np.random.default_rng(0).standard_normal((1, 80, 3000)).astype(np.float32) * 0.5, batch, 0)


def voice(secs):
    """Bursts of a harmonic tone: enough like speech."""
    import numpy as np

    at = np.arange(int(secs * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * 120 * h * at) / h for h in range(1, 12))
    return (0.2 * np.maximum(np.sin(2 * np.pi * 2.5 * at), 0) * tone).astype(np.float32)


def write_wav(path, samples):
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def whisper_options(n_tokens):
    """Greedy, so many tokens, no second attempt."""
    return {
        "language": "en", "beam_size": 1, "temperature": 0.0, "max_new_tokens": n_tokens, "vad_filter": False,
        "without_timestamps": True, "suppress_tokens": [END], "suppress_blank": False,
        "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None,
    }  # fmt: skip


def run_faster_whisper(folder, precision):
    import numpy as np
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(folder / f"ct2-{precision}"), device="cpu", compute_type=precision, cpu_threads=os.cpu_count())
    one = voice(30)

    def transcribe():
        segments, _ = model.transcribe(one, **whisper_options(N_TOKENS))
        return sum(len(segment.tokens) for segment in segments)

    clips = [voice(secs) for secs in CLIP_SECS]
    ends = np.cumsum([len(clip) for clip in clips]) / RATE
    times = [{"start": end - len(clip) / RATE, "end": end} for end, clip in zip(ends, clips)]
    # Some silence at the end, so that rounded times stay within.
    pipeline, joined = BatchedInferencePipeline(model), np.concatenate([*clips, np.zeros(RATE, np.float32)])

    def transcribe_all():
        segments, _ = pipeline.transcribe(
            joined, clip_timestamps=times, batch_size=8, **whisper_options(N_TOKENS)
        )
        return sum(len(segment.tokens) for segment in segments)

    n_one, n_all = transcribe(), transcribe_all()
    if n_one < N_TOKENS or n_all < 64 * N_TOKENS:
        print(f"only {n_one} and {n_all} tokens", file=sys.stderr)
    return {"30 s": median(transcribe), "64 clips": median(transcribe_all, 1)}


def start_faster_whisper(folder, precision):
    """A program that does nothing else."""
    program = (
        "import sys; from faster_whisper import WhisperModel; "
        f"model = WhisperModel({str(folder / f'ct2-{precision}')!r}, device='cpu', compute_type={precision!r}, cpu_threads={os.cpu_count()}); "
        f"segments, _ = model.transcribe({str(folder / 'five.wav')!r}, **{whisper_options(8)!r}); print(next(iter(segments)).text)"
    )
    run = [sys.executable, "-c", program]
    return median(lambda: subprocess.run(run, check=True, capture_output=True), 3)


def run_ctranslate2(folder, precision):
    import ctranslate2

    started = time.perf_counter()
    model = ctranslate2.models.Whisper(
        str(folder / f"ct2-{precision}"), device="cpu", compute_type=precision, intra_threads=os.cpu_count()
    )
    load = time.perf_counter() - started
    mel = ctranslate2.StorageView.from_array(features())
    figures = {"load": load, "encoder": median(lambda: model.encode(mel, to_cpu=True))}
    for name, batch in (("token", 1), ("step 8", 8)):
        encoded = model.encode(ctranslate2.StorageView.from_array(features(batch)), to_cpu=True)

        def write(n):
            results = model.generate(
                encoded, [PROMPT] * batch, beam_size=1, max_length=2 * n, suppress_blank=False, suppress_tokens=[END]
            )
            return len(results[0].sequences_ids[0])

        n_long, n_short = write(N_TOKENS + 8), write(8)
        difference = median(lambda: write(N_TOKENS + 8)) - median(lambda: write(8))
        figures[name] = difference / (n_long - n_short)
    del model
    figures["memory"] = peak_memory_mb()  # as the others: without whole transcriptions
    if precision == "int8" and importlib.util.find_spec("faster_whisper"):
        figures |= run_faster_whisper(folder, precision) | {"start": start_faster_whisper(folder, precision)}
    return figures


def run_transformers(folder, precision):
    import torch
    from transformers import WhisperForConditionalGeneration
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    torch.set_num_threads(os.cpu_count())
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    started = time.perf_counter()
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    figures = {"load": time.perf_counter() - started}
    with torch.inference_mode():
        encoder = model.model.encoder
        mel = torch.tensor(features()).to(dtype)
        figures["encoder"] = median(lambda: encoder(mel))
        for name, batch in (("token", 1), ("step 8", 8)):
            encoded = encoder(torch.tensor(features(batch)).to(dtype)).last_hidden_state
            runs = []
            for _ in range(3):
                cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
                ids, times = torch.tensor([PROMPT] * batch), []
                for _ in range(N_TOKENS + 1):
                    started = time.perf_counter()
                    hidden = model.model.decoder(
                        input_ids=ids, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
                    ).last_hidden_state
                    ids = model.proj_out(hidden[:, -1:]).argmax(-1)
                    times.append(time.perf_counter() - started)
                runs.append(statistics.fmean(times[1:]))
            figures[name] = statistics.median(runs[1:])
    return figures


def run_whisper_cpp(folder, precision):
    spec = importlib.util.find_spec("_pywhispercpp")
    library = ctypes.CDLL(str(pathlib.Path(spec.origin).parent / "libwhisper.so"))

    class Parameters(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint8 * 48)]

    library.whisper_context_default_params_by_ref.restype = ctypes.POINTER(Parameters)
    library.whisper_init_from_file_with_params.restype = ctypes.c_void_p
    library.whisper_init_from_file_with_params.argtypes = [ctypes.c_char_p, Parameters]
    parameters = Parameters.from_buffer_copy(library.whisper_context_default_params_by_ref().contents)
    parameters.bytes[0] = 0  # use_gpu
    parameters.bytes[1] = int(precision.endswith("flash"))  # flash_attn
    file = folder / f"ggml-{precision.split('-')[0]}.bin"
    threads = os.cpu_count()
    started = time.perf_counter()
    context = ctypes.c_void_p(library.whisper_init_from_file_with_params(str(file).encode(), parameters))
    figures = {"load": time.perf_counter() - started}
    mel = features()[0].copy()
    library.whisper_set_mel(context, mel.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), 3000, 80)
    figures["encoder"] = median(lambda: library.whisper_encode(context, 0, threads), 3)
    prompt = (ctypes.c_int * len(PROMPT))(*PROMPT)

    def write():
        library.whisper_decode(context, prompt, len(PROMPT), 0, threads)
        started = time.perf_counter()
        for i in range(N_TOKENS):
            library.whisper_decode(context, (ctypes.c_int * 1)(100 + i), 1, len(PROMPT) + i, threads)
        return (time.perf_counter() - started) / N_TOKENS

    write()
    figures["token"] = statistics.median(write() for _ in range(3))
    return figures


def run_speechd(speechd, folder, precision):
    def bench(model, *flags):
        command = [speechd, "bench", "transcribe", "--model", model, "--precision", precision, "--json", "--quiet", *flags]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    report = bench(folder, "--runs", "5", "--lengths", "30", "--concurrency", "1")
    clips = bench(folder / "variable", "--runs", "1", "--clips", ",".join(f"{secs:.3f}" for secs in CLIP_SECS))
    transcribe = [
        speechd, "transcribe", folder / "five.wav", "--model", folder, "--precision", precision, "--language", "en",
        "--max-new-tokens", "8", "--beam-size", "1", "--temperature", "0", "--no-fallback", "--quiet",
    ]  # fmt: skip
    for cell in report["end_to_end"] + clips["end_to_end"]:
        if cell["n_tokens"] < N_TOKENS:
            print(f"speechd wrote {cell['n_tokens']} tokens, not {N_TOKENS}", file=sys.stderr)
    return {
        "encoder": report["encoder_secs_per_window"],
        "token": report["decoder"][0]["secs_per_step"],
        "step 8": report["decoder"][1]["secs_per_step"],
        "30 s": report["end_to_end"][0]["secs"],
        "64 clips": clips["end_to_end"][0]["secs"],
        "load": report["load_secs"],
        "start": median(lambda: subprocess.run(transcribe, check=True, capture_output=True), 3),
        "memory": report["peak_memory_bytes"] / 1e6,
    }


PEERS = {
    "CTranslate2 int8": ("ctranslate2", run_ctranslate2, "int8"),
    "CTranslate2 f32": ("ctranslate2", run_ctranslate2, "float32"),
    "transformers bf16": ("transformers", run_transformers, "bf16"),
    "transformers f32": ("transformers", run_transformers, "f32"),
    "whisper.cpp q8_0": ("_pywhispercpp", run_whisper_cpp, "q8_0"),
    "whisper.cpp q8_0 flash": ("_pywhispercpp", run_whisper_cpp, "q8_0-flash"),
}


def wait_until_idle(limit_secs):
    """Until the processors were idle for a second, but no longer than the limit. Gives the share that others had at the end."""

    def read():
        fields = [int(field) for field in open("/proc/stat").readline().split()[1:]]
        return fields[3] + fields[4], sum(fields)

    started = time.monotonic()
    while True:
        idle, total = read()
        time.sleep(1)
        idle, total = (after - before for after, before in zip(read(), (idle, total)))
        busy = 1 - idle / max(total, 1)
        if busy < 0.08 or time.monotonic() - started > limit_secs:
            return busy


def prepare(size, arguments):
    folder = arguments.work / size
    if not (folder / "model.safetensors").exists():
        make_checkpoint(size, folder, arguments.tokenizer)
    variable = folder / "variable"
    if not (variable / "config.json").exists():
        variable.mkdir(exist_ok=True)
        for file in folder.iterdir():
            link = variable / file.name
            if file.suffix in (".json", ".safetensors") and file.name != "config.json" and not link.exists():
                link.symlink_to(file.resolve())
        config = json.loads((folder / "config.json").read_text()) | {"variable_length": True}
        (variable / "config.json").write_text(json.dumps(config))  # last: with it the folder is whole
    write_wav(folder / "five.wav", voice(5))
    if importlib.util.find_spec("ctranslate2"):
        for precision in ("int8", "float32"):
            if not (folder / f"ct2-{precision}").exists():
                converter = pathlib.Path(sys.executable).parent / "ct2-transformers-converter"
                subprocess.run(
                    [converter, "--model", folder, "--output_dir", folder / f"ct2-{precision}", "--quantization", precision],
                    check=True,
                )  # fmt: skip
            # Without it faster-whisper asks the network for one.
            shutil.copy(folder / "tokenizer.json", folder / f"ct2-{precision}")
    if importlib.util.find_spec("_pywhispercpp") and not (folder / "ggml-q8_0.bin").exists():
        plain = folder / "ggml-f16.bin"
        plain.unlink(missing_ok=True)
        subprocess.run(
            [arguments.speechd, "models", "export", folder, "--format", "ggml", "--out", plain], check=True
        )
        quantise_ggml(plain, folder / "ggml-q8_0.bin")
    return folder


def main():
    if sys.argv[1:2] == ["--peer"]:
        _, run, precision = PEERS[sys.argv[2]]
        figures = run(pathlib.Path(sys.argv[3]), precision)
        figures.setdefault("memory", peak_memory_mb())
        print("@" + json.dumps(figures))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speechd", type=pathlib.Path, required=True, help="the program, built for release")
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("bench-peers"), help="where checkpoints are kept")
    parser.add_argument("--sizes", default="tiny,base,small")
    parser.add_argument("--precisions", default="int8,bf16,f32", help="speechd's; ratios are to the first")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="write every figure of every round")
    arguments = parser.parse_args()
    arguments.speechd = arguments.speechd.resolve()

    peers = [name for name in arguments.peers.split(",") if importlib.util.find_spec(PEERS[name][0])]
    everything = {}
    for size in arguments.sizes.split(","):
        folder = prepare(size, arguments)
        rounds = {}
        for _ in range(arguments.rounds):
            for precision in arguments.precisions.split(","):
                wait_until_idle(60)
                rounds.setdefault(f"speechd {precision}", []).append(run_speechd(arguments.speechd, folder, precision))
            for peer in peers:
                wait_until_idle(60)
                command = [sys.executable, __file__, "--peer", peer, folder]
                output = subprocess.run(command, capture_output=True, text=True)
                lines = [line for line in output.stdout.splitlines() if line.startswith("@")]
                if not lines:
                    sys.exit(f"{peer} failed on {size}:\n{output.stdout}{output.stderr}")
                rounds.setdefault(peer, []).append(json.loads(lines[-1][1:]))
        everything[size] = rounds
        medians = {
            engine: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            for engine, runs in rounds.items()
        }
        ours = next(iter(medians.values()))
        print(f"\n{size}, {os.cpu_count()} threads, medians of {arguments.rounds} rounds (times as long as the first row)")
        print(f"{'':24}" + "".join(f"{name:>20}" for name in FIGURES))
        for engine, figures in medians.items():
            cells = [
                f"{figures[name] * scale:.4g} ({figures[name] / ours[name]:.2f})" if name in figures else "-"
                for name, scale in FIGURES.items()
            ]
            print(f"{engine:24}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
