"""The updates of a fine-tuning in torch and transformers, for `speechd bench finetune --beside PYTHON`."""

import json
import sys
import time

import torch
from transformers import WhisperForConditionalGeneration

model_dir, batch, n_tokens, n_steps, n_threads = sys.argv[1], *map(int, sys.argv[2:6])
frozen, lora = json.loads(sys.argv[6])
torch.set_num_threads(n_threads)
torch.manual_seed(0)
model = WhisperForConditionalGeneration.from_pretrained(model_dir, attn_implementation="sdpa").float().train()
if lora:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=lora["targets"])
    model = get_peft_model(model, lora)
else:
    for name, parameter in model.named_parameters():
        if any(name.startswith(prefix + ".") for prefix in frozen):
            parameter.requires_grad_(False)
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0, fused=True)
n_frames = 2 * model.config.max_source_positions
features = torch.randn(batch, model.config.num_mel_bins, n_frames) * 0.5
labels = torch.randint(3, min(1000, model.config.vocab_size), (batch, n_tokens))
times = []
for _ in range(n_steps):
    began = time.perf_counter()
    loss = model(input_features=features, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    times.append(time.perf_counter() - began)
with open("/proc/self/status", encoding="utf-8") as status:
    peak = next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), None)
n_parameters = sum(parameter.numel() for parameter in trained)
print(json.dumps({"step_secs": times, "peak_bytes": peak, "n_parameters": n_parameters}))
