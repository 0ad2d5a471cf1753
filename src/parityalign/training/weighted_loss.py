"""The training loss: a weighted sum of terms.

Measured effect of each term: docs/results-objectives.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MappingProxyType
from typing import Any

import torch
from torch import nn

from parityalign.config import Settings, needs_of, problems_with
from parityalign.core import UserError, described, find_part, load_part
from parityalign.models import AttentionRecorder, Processor, readable_layers, recording_attention
from parityalign.training.losses._joining import Joiner, Signals
from parityalign.training.losses._passes import Passes

Losses = Callable[[Passes], torch.Tensor]
"""A term, with its settings: the loss of each labelled token of a batch."""


def refuse_terms(terms: Iterable[str], settings: Mapping[str, Mapping[str, object]]) -> None:
    """Refuses terms that cannot be imported, and settings that they do not take.

    Args:
        terms: Their names.
        settings: Their own settings, by term.

    Raises:
        UserError: Something is wrong with the settings; the message lists all problems.
    """
    problems = []
    for name in dict.fromkeys([*terms, *settings]):
        load_part("losses", name, FunctionType)
        problems += problems_with(_settings_of(name), settings.get(name, {}), f"level.objective.{name}")
    if problems:
        raise UserError("\n  - ".join(["the objective cannot be minimised:", *problems]))


class WeightedLoss:
    """A loss made of terms.

    Attributes:
        needs: What the terms need besides the answers: `distribution`, `attention`, `rationale`, `view`.
    """

    def __init__(
        self,
        weights: Mapping[str, tuple[float, float]],
        *,
        settings: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
        signals: Signals | None = None,
    ) -> None:
        """Finds the terms.

        Args:
            weights: By term: its weight at the start and at the end,
                linear in between. Terms whose weight is always 0 are left out.
            settings: The terms' own settings, by term.
            signals: The teacher's stored signals; None: neither the terms nor the pairs' weights need them.

        Raises:
            UserError: There is no such term, or its settings are wrong.
        """
        used = {name: ends for name, ends in weights.items() if any(ends)}
        refuse_terms(used, settings)
        self._terms = [(_losses_of(name, settings.get(name, {})), *ends) for name, ends in used.items()]
        self.needs: frozenset[str] = frozenset().union(*map(needs_of, used))
        self._signals = signals
        self._recorder: AttentionRecorder | None = None

    @property
    def signals_digest(self) -> str:
        """A fingerprint of the teacher's stored signals; empty without any."""
        return self._signals.digest if self._signals else ""

    def rationale(self, pair_id: str) -> tuple[str, str]:
        """A further prompt and reply to learn for a pair; empty if there is none."""
        if self._signals is None or "rationale" not in self.needs:
            return "", ""
        return self._signals.rationales.get(pair_id, ("", ""))

    def joiner(self, processor: Processor) -> Joiner | None:
        """The function that makes the terms' tensors for a batch; None if they need none.

        Args:
            processor: The student's.

        Raises:
            UserError: The student's attention is needed and cannot be mapped to pictures.
        """
        return Joiner(self._signals, processor, self.needs) if self._signals else None

    @contextmanager
    def recording_attention(self, model: Any) -> Iterator[None]:  # noqa: ANN401 - whichever class the family has
        """Records the model's attention inside the `with`, if a term needs it and it is not being recorded already.

        Raises:
            UserError: The family's attention cannot be read.
        """
        if "attention" not in self.needs or self._recorder:
            yield
            return
        with recording_attention(model, readable_layers(model)) as recorder:
            self._recorder = recorder
            try:
                yield
            finally:
                self._recorder = None

    def __call__(self, model: nn.Module, batch: Mapping[str, Any], done: float = 1.0) -> torch.Tensor:
        """Mean over all labelled tokens of the weighted sum of the terms, times the weight of the token's pair.

        Args:
            model: The student, inside `recording_attention`.
            batch: See `_passes.py`; holds what `needs` names.
            done: Share of the training done, which decides the weights.
        """
        if self._recorder:
            self._recorder.clear()
        passes = Passes(model, batch, self._recorder)
        total = torch.zeros(len(passes.labels), device=passes.labels.device)
        for losses, first, last in self._terms:
            weight = first + (last - first) * done
            if weight:
                total = total + weight * losses(passes)
        if "weight" in batch:
            total = total * batch["weight"][passes.rows]
        return total.mean()


def _settings_of(term: str) -> type[Settings]:
    """The class of a term's own settings."""
    found = getattr(find_part("losses", term), "SETTINGS", Settings)
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise UserError(f"{described('losses', term)} has SETTINGS = {found!r}. Expected: a subclass of Settings.")
    return found


def _losses_of(term: str, given: Mapping[str, object]) -> Losses:
    return partial(load_part("losses", term, FunctionType), **dict(_settings_of(term).model_validate(given)))
