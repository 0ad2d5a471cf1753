"""The accuracy of OCRBench: a reference stands somewhere in the prediction."""

from collections.abc import Sequence

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references


def ocrbench_accuracy(prediction: str, references: Sequence[str], exact: Sequence[bool] = ()) -> Score:
    """1 if any reference is part of the prediction (Yuliang-Liu/MultimodalOCR f5cbec6, `OCRBench/example.py`).

    Both in lower case, without outer whitespace, with line ends as spaces. Formulas (HME100k) are exact: case counts,
    and spaces do not. Beware: "5" is in "15", and long answers can only gain.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    as_compared = _formula if any(exact) else _line
    compared = as_compared(prediction)
    found = next((reference for reference in references if as_compared(reference) in compared), None)
    why = f"lacks {references[0]!r}" if found is None else f"contains {found!r}"
    return Score(float(found is not None), compared, why)


def _line(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


METRIC = Metric("ocrbench_accuracy", ocrbench_accuracy, with_exact=ocrbench_accuracy)
