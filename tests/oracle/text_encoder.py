"""torch's pre-norm Transformer encoder over embeddings and sinusoids, with gradients: what an encoder of texts computes.

Writes tests/fixtures/text-encoder.safetensors: weights under the names of a bundle ("text_encoder.layers.0.self_attn.q_proj.weight"),
"ids" (B, U) with 0 behind each text, "lengths" (B), hidden states "hidden" (B, U, D), zeros behind each text, a random "direction"
of the same shape, zeros there, too, and for every weight NAME the gradient of sum(hidden * direction), "gradient.NAME".
"""

import math

import torch
from common import FIXTURES
from safetensors.torch import save_file
from torch import nn

VOCAB, WIDTH, HEADS, LAYERS = 11, 8, 2, 2
TEXTS = [[3, 7, 1, 10], [2, 10], [5, 5, 4, 9, 0, 6, 10]]


def sinusoids(length, width):
    step = math.log(10_000) / (width // 2 - 1)
    waves = torch.exp(-step * torch.arange(width // 2, dtype=torch.float64))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * waves[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def main():
    torch.manual_seed(8)
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH, dtype=torch.float64), enable_nested_tensor=False)
    embedding = nn.Embedding(VOCAB, WIDTH, dtype=torch.float64)
    for parameter in [*encoder.parameters(), *embedding.parameters()]:
        nn.init.normal_(parameter, std=0.4)
    for block in encoder.layers:
        # A bias of all keys alike changes nothing, and a bundle has none.
        block.self_attn.in_proj_bias.data[WIDTH : 2 * WIDTH] = 0.0
    lengths = torch.tensor([len(text) for text in TEXTS])
    ids = torch.zeros(len(TEXTS), int(lengths.max()), dtype=torch.long)
    for row, text in zip(ids, TEXTS):
        row[: len(text)] = torch.tensor(text)
    is_padding = torch.arange(ids.shape[1])[None] >= lengths[:, None]
    x = math.sqrt(WIDTH) * embedding(ids) + sinusoids(ids.shape[1], WIDTH)[None]
    hidden = encoder(x, src_key_padding_mask=is_padding).masked_fill(is_padding[..., None], 0.0)
    direction = torch.randn_like(hidden).masked_fill(is_padding[..., None], 0.0)
    (hidden * direction).sum().backward()

    named = {"text_encoder.embed_tokens.weight": (embedding.weight, embedding.weight.grad)}

    def add(name, module):
        for key in ("weight", "bias"):
            tensor = getattr(module, key)
            named[f"text_encoder.{name}.{key}"] = tensor, tensor.grad

    for index, block in enumerate(encoder.layers):
        at = f"layers.{index}"
        weight, bias = block.self_attn.in_proj_weight, block.self_attn.in_proj_bias
        for part, key in enumerate("qkv"):
            rows = slice(part * WIDTH, (part + 1) * WIDTH)
            named[f"text_encoder.{at}.self_attn.{key}_proj.weight"] = weight[rows], weight.grad[rows]
            if key != "k":
                named[f"text_encoder.{at}.self_attn.{key}_proj.bias"] = bias[rows], bias.grad[rows]
        add(f"{at}.self_attn.out_proj", block.self_attn.out_proj)
        add(f"{at}.self_attn_layer_norm", block.norm1)
        add(f"{at}.final_layer_norm", block.norm2)
        add(f"{at}.fc1", block.linear1)
        add(f"{at}.fc2", block.linear2)
    add("layer_norm", encoder.norm)
    tensors = {"ids": ids.to(torch.int64), "lengths": lengths, "hidden": hidden, "direction": direction}
    for name, (value, gradient) in named.items():
        tensors |= {name: value, f"gradient.{name}": gradient}
    floats = {n: (t if t.dtype == torch.int64 else t.detach().float()).contiguous() for n, t in tensors.items()}
    save_file(floats, FIXTURES / "text-encoder.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
