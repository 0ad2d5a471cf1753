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
)
