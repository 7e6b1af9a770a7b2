"""CTC losses and logit gradients of torch for one padded batch: an empty row, repeated labels, a row that only just fits and one
that does not.

Writes tests/fixtures/ctc.safetensors: logits (B, T, V), frames and labels of each row (labels one after the other, counted from
1 with the blank at 0), and for the blank at 0 ("first") and at V - 1 ("last", every label one less) the losses with
`zero_infinity`, their sum's gradient by the logits, and torch's mean.
"""

import torch
from common import FIXTURES
from safetensors.torch import save_file

N_FRAMES, N_IDS = 24, 11
LENGTHS = [24, 17, 9, 12, 4, 24]  # row 3 has one frame for each label and blank that it needs, row 4 one too few
LABELS = [[3, 1, 4, 1, 5, 9, 2, 6], [7, 7, 7, 2], [], [1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10], [4, 4, 4], [10]]


def main():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(LABELS), N_FRAMES, N_IDS, generator=generator) * 2
    double = values.double()  # in float32 torch is off by 2e-5
    tensors = {
        "logits": values,
        "lengths": torch.tensor(LENGTHS),
        "labels": torch.tensor(sum(LABELS, [])),
        "label_lengths": torch.tensor([len(row) for row in LABELS]),
    }
    for name, blank, moved in (("first", 0, 0), ("last", N_IDS - 1, 1)):
        logits = double.clone().requires_grad_()
        arguments = (
            logits.log_softmax(-1).transpose(0, 1),
            tensors["labels"] - moved,
            tensors["lengths"],
            tensors["label_lengths"],
        )
        ctc = torch.nn.functional.ctc_loss
        losses = ctc(*arguments, blank=blank, reduction="none", zero_infinity=True)
        mean = ctc(*arguments, blank=blank, reduction="mean", zero_infinity=True)
        tensors[f"losses.{name}"] = losses.detach()
        tensors[f"mean.{name}"] = mean.detach()
        (tensors[f"gradient.{name}"],) = torch.autograd.grad(losses.sum(), logits)
    save_file({k: v.float() if v.dtype == torch.float64 else v for k, v in tensors.items()}, FIXTURES / "ctc.safetensors")


if __name__ == "__main__":
    main()
