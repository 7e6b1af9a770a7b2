"""A LoRA adapter by Hugging Face's PEFT on one of the tiny bundles, as PEFT saves it, and what the model says with it.

    python tests/oracle/make.py lora

Makes tests/fixtures/lora/: adapter_config.json and adapter_model.safetensors by PEFT's own `save_pretrained`, expected.safetensors
with the logits of one teacher-forced row (and those of the base, from which they differ). Made with peft 0.21.2.
"""

import json
import shutil

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import WhisperForConditionalGeneration

from common import FIXTURES, synthetic_mel

BASE = FIXTURES / "whisper-80"
FOLDER = FIXTURES / "lora"
IDS = [301, 308, 311, 315, 40, 258, 17]


def main():
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration.from_pretrained(BASE, dtype=torch.float32).eval()
    shape = (model.config.num_mel_bins, 2 * model.config.max_source_positions)
    mel = torch.from_numpy(synthetic_mel(*shape, 0))[None]
    ids = torch.tensor([IDS])
    with torch.no_grad():
        base = model(input_features=mel, decoder_input_ids=ids).logits[0]
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "fc1"], lora_dropout=0.0, bias="none")
    adapted = get_peft_model(model, config).eval()
    generator = np.random.default_rng(5)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                values = generator.standard_normal(parameter.shape) * 0.05
                parameter.copy_(torch.from_numpy(values.astype(np.float32)))
        logits = adapted(input_features=mel, decoder_input_ids=ids).logits[0]
    shutil.rmtree(FOLDER, ignore_errors=True)
    adapted.save_pretrained(FOLDER)
    (FOLDER / "README.md").unlink(missing_ok=True)
    path = FOLDER / "adapter_config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    # Where this machine keeps the base is nobody's business.
    saved["base_model_name_or_path"] = "../whisper-80"
    saved["target_modules"].sort()  # a set there, in any order
    path.write_text(json.dumps(saved, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    save_file({"ids": ids[0], "logits": logits, "base_logits": base}, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
