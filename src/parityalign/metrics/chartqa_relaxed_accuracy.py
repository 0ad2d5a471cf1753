"""The relaxed accuracy of ChartQA: 5 % off is right for numbers."""

from collections.abc import Sequence

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_RELAXED_TOLERANCE = 0.05


def chartqa_relaxed_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """Within 5 % of a numeric label, else equal ignoring case (lmms-eval 75571cfe, pix2struct 945f27e).

    The rule is given at the end of section 5.1 of the ChartQA paper, whose authors ship no scorer for it. Years
    are numbers (2010 is right for 2014), "62%" is 0.62 and wrong for the label "62", and nothing is stripped:
    "Yes." is wrong for "Yes". Of several references the best one counts.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    return max((_relaxed(prediction, target) for target in references), key=lambda score: score.value)


def _relaxed(prediction: str, target: str) -> Score:
    predicted, labelled = _number(prediction), _number(target)
    # A label of zero has no 5 % interval and is compared as text, so "0.0" is wrong for "0".
    if predicted is None or not labelled:
        same = prediction.lower() == target.lower()
        return Score(float(same), prediction.lower(), f"{'equals' if same else 'differs from'} {target!r}")
    # Float arithmetic in the original's order: by rounding, 10.5 is right for 10 and 1.05 wrong for 1.
    change = abs(predicted - labelled) / abs(labelled)
    return Score(float(change <= _RELAXED_TOLERANCE), str(predicted), f"off by {change:.2%} from {labelled}")


def _number(text: str) -> float | None:
    """The number that `float` reads ("1e3", " 5 ", "1_000", "nan"), or None; percent as a fraction."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


METRIC = Metric("chartqa_relaxed_accuracy", chartqa_relaxed_accuracy)
