"""One training step in torch and transformers (sdpa, f32, two threads or OMP_NUM_THREADS) beside ours: time, peak memory, the share
of each component, and the ratios.

`python models/benches/train_step.py [shape ...]` (torch and transformers of tests/oracle/requirements.txt) builds `cargo bench
--bench train_step`, runs both sides turn by turn, each turn in a process of its own, and prints medians of the turns. Memory is
the peak less what the process held before it built the model: torch's libraries are not counted. A quiet machine
matters: OpenMP loses up to ten times under contention.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
N_TURNS = 3
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def torch_step(shape):
    """Times one step; prints a line of JSON, as the benchmark does."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    started_mb = memory_mb("VmRSS")
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=shape["d_model"],
        encoder_layers=shape["encoder_layers"],
        decoder_layers=shape["decoder_layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=4 * shape["d_model"],
        decoder_ffn_dim=4 * shape["d_model"],
        num_mel_bins=shape["n_mels"],
        vocab_size=shape["vocab_size"],
        max_source_positions=shape["n_positions"],
        max_target_positions=448,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=2,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        use_cache=False,
    )
    model = WhisperForConditionalGeneration._from_config(config, attn_implementation="sdpa").train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01, fused=True)
    batch, n_tokens = shape["batch"], shape["n_tokens"]
    mel = torch.randn(batch, shape["n_mels"], 2 * shape["n_positions"]) * 0.5
    labels = torch.randint(3, shape["vocab_size"], (batch, n_tokens))
    steps = []
    started = time.perf_counter()
    while len(steps) < 3 or (len(steps) < 12 and time.perf_counter() - started < 20):
        t0 = time.perf_counter()
        loss = model(input_features=mel, labels=labels).loss
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        t3 = time.perf_counter()
        steps.append((t3 - t0, t1 - t0, t2 - t1, t3 - t2))
    steps = steps[1:]
    report = {
        name: statistics.median(step[i] for step in steps)
        for i, name in enumerate(("step_secs", "forward_secs", "backward_secs", "optimiser_secs"))
    }
    print(json.dumps(report | {"memory_mb": memory_mb("VmHWM") - started_mb, "loss": loss.item()}), flush=True)


def torch_components(shape):
    """Times the components that `components` of the benchmark times, forwards and backwards and as often as the model has them;
    prints a line of JSON."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    b, d, u, t = shape["batch"], shape["d_model"], shape["n_tokens"], shape["n_positions"]
    encoder, decoder, heads = shape["encoder_layers"], shape["decoder_layers"], shape["heads"]

    def some(*size):
        return torch.randn(*size).requires_grad_()

    def component(forward):
        times = []
        for _ in range(4):
            t0 = time.perf_counter()
            y = forward()
            t1 = time.perf_counter()
            loss = y.sum()
            t2 = time.perf_counter()
            loss.backward()
            times.append(t1 - t0 + time.perf_counter() - t2)
        return statistics.median(times)

    def split(x):
        return x.view(b, -1, heads, d // heads).transpose(1, 2)

    def attention(queries, keys, is_causal=False):
        def forward():
            q, k, v = split(queries), split(keys), split(keys)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
            return y.transpose(1, 2).reshape(b, -1, d)

        return component(forward)

    heard, wide, said, said_wide = some(b, t, d), some(b, t, 4 * d), some(b, u, d), some(b, u, 4 * d)
    square, up, down, norm = nn.Linear(d, d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.LayerNorm(d)
    conv1 = nn.Conv1d(shape["n_mels"], d, 3, padding=1)
    conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
    embedding = nn.Embedding(shape["vocab_size"], d)
    mel, conv1_out = torch.randn(b, shape["n_mels"], 2 * t), some(b, d, 2 * t)
    ids = torch.randint(3, shape["vocab_size"], (b * u,))
    logits = some(b * u, shape["vocab_size"])
    gelu = functional.gelu
    rows = {
        "linear, encoder": 4 * encoder * component(lambda: square(heard)),
        "feed-forward, encoder": encoder * (component(lambda: up(heard)) + component(lambda: down(wide))),
        "GELU, encoder": encoder * component(lambda: gelu(wide)),
        "layer norm, encoder": (2 * encoder + 1) * component(lambda: norm(heard)),
        "attention, encoder": encoder * attention(heard, heard),
        "convolutions and GELU": component(lambda: gelu(conv1(mel))) + component(lambda: gelu(conv2(conv1_out))),
        "linear, decoder": decoder * (6 * component(lambda: square(said)) + 2 * component(lambda: square(heard))),
        "feed-forward, decoder": decoder * (component(lambda: up(said)) + component(lambda: down(said_wide))),
        "GELU, decoder": decoder * component(lambda: gelu(said_wide)),
        "layer norm, decoder": (3 * decoder + 1) * component(lambda: norm(said)),
        "attention, decoder": decoder * (attention(said, said, is_causal=True) + attention(said, heard)),
        "embedding": component(lambda: embedding(ids)),
        "logits": component(lambda: functional.linear(said, embedding.weight)),
        "cross-entropy": component(lambda: functional.cross_entropy(logits, ids)),
    }
    print(json.dumps(list(rows.items())), flush=True)


def memory_mb(key):
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


def run(command, **options):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout
    return json.loads(output.strip().splitlines()[-1])


def build():
    """Builds the benchmark and says where it lies."""
    command = ["cargo", "bench", "--workspace", "--bench", "train_step", "--no-run", "--message-format=json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    messages = map(json.loads, filter(None, output.splitlines()))
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "train_step")


def main():
    if sys.argv[1:2] == ["--torch"]:
        torch_step(json.loads(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--torch-components"]:
        torch_components(json.loads(sys.argv[2]))
        return
    ours = build()
    listed = subprocess.run([ours, "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout
    shapes = {shape["name"]: shape for shape in map(json.loads, listed.splitlines())}
    wanted = sys.argv[1:] or list(shapes)
    if unknown := [name for name in wanted if name not in shapes]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(shapes)}")
    limits = {"RAYON_NUM_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
    environment = os.environ | limits
    print(f"{'shape':18} {'side':6} {'step s':>8} {'forward':>8} {'backward':>8} {'AdamW':>8} {'MB':>8}")
    for name in wanted:
        torch = [sys.executable, __file__, "--torch", json.dumps(shapes[name])]
        turns = {"torch": [], "ours": []}
        for _ in range(N_TURNS):
            turns["torch"].append(run(torch, env=environment))
            turns["ours"].append(run([ours, "--json", name], env=environment))
        medians = {
            side: {key: statistics.median(turn[key] for turn in side_turns) for key in side_turns[0]}
            for side, side_turns in turns.items()
        }
        for side, m in medians.items():
            times = " ".join(f"{m[f'{k}_secs']:8.3f}" for k in ("step", "forward", "backward", "optimiser"))
            print(f"{name:18} {side:6} {times} {m['memory_mb']:8.0f}")
        time_ratio = medians["ours"]["step_secs"] / medians["torch"]["step_secs"]
        memory_ratio = medians["ours"]["memory_mb"] / medians["torch"]["memory_mb"]
        print(f"{name:18} ours / torch: time {time_ratio:.2f}, memory {memory_ratio:.2f}", flush=True)
        torch = [sys.executable, __file__, "--torch-components", json.dumps(shapes[name])]
        components = {
            "torch": run(torch, env=environment),
            "ours": run([ours, "--components", name], env=environment),
        }
        for side, rows in components.items():
            rows.append(("clip and AdamW", medians[side]["optimiser_secs"]))
            rows.append(("the rest", medians[side]["step_secs"] - sum(secs for _, secs in rows)))
        for (component, secs), (_, torch_secs) in zip(components["ours"], components["torch"]):
            share, torch_share = secs / medians["ours"]["step_secs"], torch_secs / medians["torch"]["step_secs"]
            print(
                f"  {component:24} ours {secs:7.3f} s {100 * share:5.1f} %   torch {torch_secs:7.3f} s {100 * torch_share:5.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
