"""The weighted sum of the terms of the loss: what the student says, how sure it is, where it looks, how it gets there.

What each term is worth: docs/results-objectives.md.
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
        settings: What is given of their own settings, by term.

    Raises:
        UserError: Says all that is wrong with the settings.
    """
    problems = []
    for name in dict.fromkeys([*terms, *settings]):
        load_part("losses", name, FunctionType)
        problems += problems_with(_settings_of(name), settings.get(name, {}), f"level.objective.{name}")
    if problems:
        raise UserError("\n  - ".join(["the objective cannot be minimised:", *problems]))


class WeightedLoss:
    """A loss that is made of terms.

    Attributes:
        needs: What the terms want to know beside the answers: `distribution`, `attention`, `rationale`, `view`.
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
            weights: Of each term, by its name: its weight in the beginning and at the end;
                it changes evenly in between. Terms that never weigh anything are left out.
            settings: What is given of the terms' own settings, by term.
            signals: What is stored of the teacher; None: neither the terms nor weights of pairs need it.

        Raises:
            UserError: There is no such term, or it does not take its settings.
        """
        used = {name: ends for name, ends in weights.items() if any(ends)}
        refuse_terms(used, settings)
        self._terms = [(_losses_of(name, settings.get(name, {})), *ends) for name, ends in used.items()]
        self.needs: frozenset[str] = frozenset().union(*map(needs_of, used))
        self._signals = signals
        self._recorder: AttentionRecorder | None = None

    @property
    def signals_digest(self) -> str:
        """Changes with what is stored of the teacher; empty where nothing is."""
        return self._signals.digest if self._signals else ""

    def rationale(self, pair_id: str) -> tuple[str, str]:
        """What else the student is to say of a pair: a prompt and the reply; empty where there is nothing."""
        if self._signals is None or "rationale" not in self.needs:
            return "", ""
        return self._signals.rationales.get(pair_id, ("", ""))

    def joiner(self, processor: Processor) -> Joiner | None:
        """Makes what the terms need for a batch; None where they need nothing.

        Args:
            processor: The student's.

        Raises:
            UserError: The student's attention is needed and cannot be placed on pictures.
        """
        return Joiner(self._signals, processor, self.needs) if self._signals else None

    @contextmanager
    def recording_attention(self, model: Any) -> Iterator[None]:  # noqa: ANN401 - whichever class the family has
        """Records what the model attends to as long as the `with` lasts, if a term asks for it and nobody does so yet.

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
            done: Share of the training that is over, which decides the weights.
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
    """What a term takes besides its weight."""
    found = getattr(find_part("losses", term), "SETTINGS", Settings)
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise UserError(f"{described('losses', term)} has SETTINGS = {found!r}. Expected: a subclass of Settings.")
    return found


def _losses_of(term: str, given: Mapping[str, object]) -> Losses:
    return partial(load_part("losses", term, FunctionType), **dict(_settings_of(term).model_validate(given)))
