"""VQA accuracy with the EvalAI processor, which papers report on TextVQA.

For example, a prediction "Two." of which 3 of 10 references are "2", "2" and "two" has
`Score(0.9, "2", "3 of 10 references match")`.
"""

from collections.abc import Sequence

from parityalign.core import Metric, Score
from parityalign.metrics._references import leave_one_out, nine_of_ten, require_references
from parityalign.metrics._vqa_text import normalise_evalai


def textvqa_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """VQA accuracy with the EvalAI processor, which papers report on TextVQA (facebookresearch/mmf b0ffc7fb).

    As in lmms-eval, any number of references is allowed; mmf requires ten. A prediction that normalises to an
    empty text, such as "A", matches the references that do so too.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    return leave_one_out(normalise_evalai(prediction), [normalise_evalai(answer) for answer in references])


METRIC = Metric("textvqa_accuracy", textvqa_accuracy, against_one=nine_of_ten(textvqa_accuracy), needs_several=True)
