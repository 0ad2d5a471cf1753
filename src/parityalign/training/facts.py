"""What decides how a student is trained: counted on a model without storage, so that no weights are loaded."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from parityalign.config import LoadingSettings, StudentFacts
from parityalign.core import UserError
from parityalign.models import open_config
from parityalign.training.modules import modules_of


def student_facts(location: str, loading: LoadingSettings) -> StudentFacts:
    """The size of a student, and whether its parts are known.

    Args:
        location: Hugging Face folder or hub id.
        loading: Its revision.

    Raises:
        UserError: There is no configuration of a vision-language model.
    """
    return facts_of(without_storage(location, loading))


def facts_of(model: nn.Module) -> StudentFacts:
    """The same of a model."""
    try:
        modules_of(model)
    except UserError:
        return StudentFacts(_parameters(model), parts_known=False)
    return StudentFacts(_parameters(model), parts_known=True)


def without_storage(location: str, loading: LoadingSettings) -> nn.Module:
    """A model whose weights have shapes and no values (PyTorch's meta device).

    Raises:
        UserError: There is no configuration of a vision-language model.
    """
    build: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        model: nn.Module = build(open_config(location, loading), trust_remote_code=loading.remote_code)
    return model


def _parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
