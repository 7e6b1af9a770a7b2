"""One training step in torch and transformers (sdpa, f32, two threads or OMP_NUM_THREADS) beside ours: time, peak memory and the
ratios.

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


def memory_mb(key):
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


def run(command, **options):
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout
    return json.loads(output.strip().splitlines()[-1])


def build():
    """Builds the benchmark and says where it lies."""
    command = ["cargo", "bench", "-p", "models", "--bench", "train_step", "--no-run", "--message-format=json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    messages = map(json.loads, filter(None, output.splitlines()))
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == "train_step")


def main():
    if sys.argv[1:2] == ["--torch"]:
        torch_step(json.loads(sys.argv[2]))
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


if __name__ == "__main__":
    main()
