"""Charts of every kind: also choices, claims, what if, and what a chart does not tell, scored as in ChartQAPro.

The answer prompt says which form the answers have, in words of our own; the paper has a prompt for each type of
question.
"""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import annotate_prompt

SKILL = Skill(
    name="chartqapro",
    annotate_prompt=annotate_prompt(
        "Write one question about this chart, and its answer as a number, a word or a phrase; "
        "several answers as a list in brackets, and unanswerable where the chart does not tell."
    ),
    answer_prompt=(
        "{question}\n"
        "Answer with a single word, number or phrase: a choice by its letter, a claim by true or false, several "
        "answers as ['first', 'second'], and unanswerable if the chart does not tell."
    ),
    metric=find_metric("chartqapro_relaxed_accuracy"),
    kinds=(
        "looking up one value",
        "a comparison of two values",
        "the largest or the smallest value",
        "a difference, a sum, a ratio or an average",
        "a year",
        "several values or names at once",
        "a choice of four, marked a to d",
        "a claim that is true or false",
        "what would be if a value changed",
        "a trend or an exception",
        "something that the chart does not tell",
    ),
)
