"""Charts: questions about the data in a chart, where 5 % off is right for numbers."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="chartqa",
    annotate_prompt=annotate_prompt(
        "Write one question about the data in this chart, and its answer as a number, a word or yes or no."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("chartqa_relaxed_accuracy"),
    kinds=(
        "looking up one value",
        "a comparison of two values",
        "the largest or the smallest value",
        "which part has the largest or the smallest value",
        "a count of the parts",
        "a difference or a sum",
        "an average or a ratio",
        "a trend",
        "what a colour or a label stands for",
        "the title, an axis or a unit",
        "yes or no",
    ),
)
