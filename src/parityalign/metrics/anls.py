"""ANLS, the measure of the ST-VQA challenge: similarity by edit distance to the nearest reference."""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_ANLS_THRESHOLD = 0.5


def anls(prediction: str, references: Sequence[str]) -> Score:
    """Normalised Levenshtein similarity to the nearest reference (facebookresearch/mmf b0ffc7fb).

    Lower case, no outer whitespace, unit costs by code point, over the longer text (`STVQAANLSEvaluator`).
    Below 0.5 it is 0. Exactly 0.5 is kept, as in the challenge's own script; the equation in the ST-VQA paper
    (ICCV 2019) drops it.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    compared = prediction.lower().strip()
    similarity, nearest = max(
        ((_similarity(compared, reference.lower().strip()), reference) for reference in references),
        key=lambda candidate: candidate[0],
    )
    why = f"similarity {similarity:.3f} to {nearest!r}"
    if similarity < _ANLS_THRESHOLD:
        return Score(0.0, compared, f"{why}, below {_ANLS_THRESHOLD}")
    return Score(similarity, compared, why)


def _similarity(one: str, other: str) -> float:
    longer = max(len(one), len(other))
    if longer == 0:
        # mmf divides by zero here; the challenge's own script gives 1.
        return 1.0
    return 1 - Levenshtein.distance(one, other) / longer


METRIC = Metric("anls", anls)
