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
)
