"""Reading of every kind: words, handwriting, documents, forms and formulas, scored as in OCRBench."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="ocrbench",
    annotate_prompt=annotate_prompt(
        "Write one question that is answered by reading this image, and its answer exactly as it is written there."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("ocrbench_accuracy"),
    kinds=(
        "what is written in the image",
        "the text at a certain place",
        "the text on a certain object",
        "a number or digits",
        "what is written by hand",
        "the name of a shop, product or person",
        "a price, a total or a date",
        "the value of a field of a form",
        "a cell of a table or chart",
        "a title or a heading",
    ),
)
