"""Random weights for the conformers' oracles, as 16-bit files hold them: norms and their statistics near what training makes of them."""

import torch


def randomise(model, matrix_std):
    """Draws every parameter and statistic in place; `matrix_std` says how widely by the name of a matrix and its number of inputs."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or "inv_freq" in name or "positional_embedding" in name:
                continue
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("running_mean") or "bias" in name:
                value.normal_(0, 0.2)
            elif value.dim() == 1:
                value.uniform_(0.5, 1.5)
            else:
                value.normal_(0, matrix_std(name, value[0].numel()))
            value.copy_(value.half().float())
