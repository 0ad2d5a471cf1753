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
)
