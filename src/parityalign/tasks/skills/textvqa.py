"""Reading: questions about the words and numbers in a picture, scored as papers score TextVQA."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="textvqa",
    annotate_prompt=annotate_prompt(
        "Write one question about the words or numbers that can be read in this image, "
        "and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("textvqa_accuracy"),
    kinds=(
        "a brand or a maker",
        "a product",
        "the name of a person, a team or a place",
        "a number",
        "a price or an amount",
        "a date or a time",
        "a title or a heading",
        "what a sign or a label asks people to do",
        "the text at a certain place",
        "the text in a certain colour",
        "yes or no",
    ),
)
