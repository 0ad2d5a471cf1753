"""Attention distillation: the divergence of the student's attention map of the picture from the teacher's stored one.

Both are maps of the same picture on the same grid (`models/token_boxes.py`), whatever the two models' own patches are.
Formula, source and checks: docs/objectives.md.
"""

import torch

from parityalign.training.losses._divergences import attention_divergence
from parityalign.training.losses._passes import Passes

NEEDS = frozenset({"attention"})


def losses(passes: Passes) -> torch.Tensor:
    """(N,) the Jensen-Shannon divergence of a row's two maps at each of its tokens, in nats; 0 if one is missing."""
    batch = passes.batch
    on_image = passes.attention.gather(1, batch["image_tokens"])
    student = torch.einsum("rp,rpc->rc", on_image, batch["spread"].to(on_image.dtype))
    return attention_divergence(student, batch["places"])[passes.rows]
