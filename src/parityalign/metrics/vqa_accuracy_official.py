"""VQA accuracy by the official script of VQA v2 and OK-VQA.

For example, `vqa_accuracy_official("Two.", ["2", "2", "two", "3"])` is `Score(0.75, "2", "3 of 4 references match")`.
"""

from collections.abc import Sequence

from parityalign.core import Metric, Score
from parityalign.metrics._references import leave_one_out, nine_of_ten, require_references
from parityalign.metrics._vqa_text import normalise_official, on_one_line


def vqa_accuracy_official(prediction: str, references: Sequence[str]) -> Score:
    """VQA accuracy by the official script of VQA v2 and OK-VQA (GT-Vision-Lab/VQA a013f00, `vqaEval.py`).

    Where all references agree, raw texts are compared, so "Tennis" is wrong for "tennis". That is intended
    there (issue 14: answers that were read off an image are not to be altered) and costs models that
    capitalise; `textvqa_accuracy` always normalises.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    compared = on_one_line(prediction)
    answers = [on_one_line(reference) for reference in references]
    if len(set(answers)) == 1:
        return leave_one_out(compared, answers, note="; all references agree, so raw texts were compared")
    return leave_one_out(normalise_official(compared), [normalise_official(answer) for answer in answers])


METRIC = Metric(
    "vqa_accuracy_official", vqa_accuracy_official, against_one=nine_of_ten(vqa_accuracy_official), needs_several=True
)
