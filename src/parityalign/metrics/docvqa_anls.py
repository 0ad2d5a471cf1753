"""ANLS as the server of DocVQA and InfographicVQA computes it, which is not quite that of ST-VQA (`anls`)."""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_ANLS_THRESHOLD = 0.5


def docvqa_anls(prediction: str, references: Sequence[str]) -> Score:
    """Normalised Levenshtein similarity to the nearest reference, by the challenge's own script.

    The script of the Robust Reading Competition, challenge 17, is published with InfographicVQA (a copy lies in
    QwenLM/Qwen-VL e6bbb9d, `eval_mm/infographicsvqa_eval.py`); lmms-eval's `anls` is the same. Lower case, runs of
    whitespace are one space, none outside. Beware: the distance is divided by the longer of the texts as they were
    given, in upper case ("ß" counts two there), so that padding raises a score. Below 0.5 it is 0, exactly 0.5 is kept.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    nearest = min(references, key=lambda reference: _distance(prediction, reference))
    similarity = 1 - _distance(prediction, nearest)
    why = f"similarity {similarity:.3f} to {nearest!r}"
    if similarity < _ANLS_THRESHOLD:
        return Score(0.0, _squeezed(prediction), f"{why}, below {_ANLS_THRESHOLD}")
    return Score(similarity, _squeezed(prediction), why)


def _distance(prediction: str, reference: str) -> float:
    longer = max(len(prediction.upper()), len(reference.upper()))
    return Levenshtein.distance(_squeezed(prediction), _squeezed(reference)) / longer if longer else 0.0


def _squeezed(text: str) -> str:
    return " ".join(text.strip().lower().split())


METRIC = Metric("docvqa_anls", docvqa_anls)
