"""Reading in scenes: questions about the text on signs, shops or vehicles, scored as in ST-VQA."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="stvqa",
    annotate_prompt=annotate_prompt(
        "Write one question that can only be answered by reading the text in this scene, "
        "such as a sign, a shop or a vehicle, and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("anls"),
    kinds=(
        "the name of a shop or a business",
        "the name of a street, a town or a place",
        "a brand",
        "a number on a vehicle, a house or a sign",
        "a price",
        "a direction, a destination or a distance",
        "a rule or a warning",
        "a date or opening hours",
        "what is sold or offered",
        "the text on a certain object",
        "the text at a certain place",
    ),
)
