"""Documents: questions about scanned or photographed pages, scored as DocVQA's server does."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="docvqa",
    annotate_prompt=annotate_prompt(
        "Write one question that is answered by the text of this page, and its answer exactly as it is written there."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("docvqa_anls"),
    kinds=(
        "the value of a field of a form",
        "a cell of a table",
        "a name or a signature",
        "a date",
        "an amount or a total",
        "a number, a code or an identifier",
        "an address, a telephone number or an e-mail address",
        "a title or a heading",
        "an entry of a list",
        "what is written by hand",
        "what stands at a certain place of the page",
        "a figure or a diagram",
    ),
)
