"""Infographics: questions about their texts, numbers and pictures, scored as InfographicVQA's server does."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="infographicvqa",
    annotate_prompt=annotate_prompt(
        "Write one question that this infographic answers, and its answer in a few words or a number."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("docvqa_anls"),
    kinds=(
        "a percentage or a number that is shown",
        "a fact that is stated",
        "the largest, the smallest or the order of some values",
        "a sum or a difference",
        "a count of what is shown",
        "several things of one kind, separated by commas",
        "what an icon or a colour stands for",
        "a year or a period",
        "a comparison of two things",
        "a source, a title or a heading",
    ),
)
