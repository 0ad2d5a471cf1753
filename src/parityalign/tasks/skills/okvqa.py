"""Knowledge: questions that need knowledge from outside the picture, scored as papers score OK-VQA."""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="okvqa",
    annotate_prompt=annotate_prompt(
        "Write one question about this image that needs knowledge from outside the picture, "
        "and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("vqa_accuracy_official"),
    kinds=(
        "the name of a thing or a species",
        "where something comes from",
        "what something is used for",
        "who uses it or made it",
        "where one finds it",
        "what it is made of",
        "how it works or is done",
        "the year or the era that it belongs to",
        "a food, a sport or a custom",
        "nature, weather or science",
        "what it stands for or means",
    ),
)
