"""The weighted sum of the objectives: what the student says, how sure it is, where it looks, how it gets there.

What each term is worth: docs/results-objectives.md.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from parityalign.core import find_part
from parityalign.models import Processor, Watch, readable_layers, watching
from parityalign.training.losses._joining import Evidence, Joiner
from parityalign.training.losses._passes import Passes


class WeightedLoss:
    """A loss that is made of terms.

    Attributes:
        needs: What the terms want to know beside the answers: `distribution`, `attention`, `rationale`, `view`.
    """

    def __init__(
        self,
        weights: Mapping[str, tuple[float, float]],
        *,
        divergence: str = "forward",
        evidence: Evidence | None = None,
    ) -> None:
        """Finds the terms.

        Args:
            weights: Of each term, the first being a file in `objectives/`: its weight in the beginning and at the end;
                it changes evenly in between. Terms that never weigh anything are left out.
            divergence: How `confidence` compares distributions.
            evidence: What is stored of the teacher; None: neither the terms nor weights of pairs need it.

        Raises:
            UserError: There is no such term.
        """
        used = {name: ends for name, ends in weights.items() if any(ends)}
        parts = {name: find_part("objectives", name) for name in used}
        own: dict[str, Any] = {"confidence": {"divergence": divergence}}
        self._terms = [(partial(part.losses, **own.get(name, {})), *used[name]) for name, part in parts.items()]
        self.needs: frozenset[str] = frozenset().union(*(getattr(part, "NEEDS", ()) for part in parts.values()))
        self._evidence = evidence
        self._watch: Watch | None = None

    @property
    def evidence_digest(self) -> str:
        """Changes with what is stored of the teacher; empty where nothing is."""
        return self._evidence.digest if self._evidence else ""

    def rationale(self, pair_id: str) -> tuple[str, str]:
        """What else the student is to say of a pair: a prompt and the reply; empty where there is nothing."""
        if self._evidence is None or "rationale" not in self.needs:
            return "", ""
        return self._evidence.rationales.get(pair_id, ("", ""))

    def joiner(self, processor: Processor) -> Joiner | None:
        """Makes what the terms need for a batch; None where they need nothing.

        Args:
            processor: The student's.

        Raises:
            UserError: The student's attention is needed and cannot be placed on pictures.
        """
        return Joiner(self._evidence, processor, self.needs) if self._evidence else None

    @contextmanager
    def watched(self, model: Any) -> Iterator[None]:  # noqa: ANN401 - whichever class the family has
        """Sees what the model attends to as long as the `with` lasts, if a term asks for it and nobody does so yet.

        Raises:
            UserError: The family's attention cannot be read.
        """
        if "attention" not in self.needs or self._watch:
            yield
            return
        with watching(model, readable_layers(model)) as watch:
            self._watch = watch
            try:
                yield
            finally:
                self._watch = None

    def __call__(self, model: nn.Module, batch: Mapping[str, Any], done: float = 1.0) -> torch.Tensor:
        """Mean over all labelled tokens of the weighted sum of the terms, times the weight of the token's pair.

        Args:
            model: The student, inside `watched`.
            batch: See `_passes.py`; holds what `needs` names.
            done: Share of the training that is over, which decides the weights.
        """
        if self._watch:
            self._watch.forget()
        passes = Passes(model, batch, self._watch)
        total = torch.zeros(len(passes.labels), device=passes.labels.device)
        for losses, first, last in self._terms:
            weight = first + (last - first) * done
            if weight:
                total = total + weight * losses(passes)
        if "weight" in batch:
            total = total * batch["weight"][passes.rows]
        return total.mean()
