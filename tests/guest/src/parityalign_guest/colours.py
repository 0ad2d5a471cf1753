"""A skill: what the teacher is asked to write, what both models are asked, and how answers are scored."""

from parityalign.core import Skill
from parityalign.metrics import find_metric

SKILL = Skill(
    name="colours",
    annotate_prompt=(
        "Write one question about the colour of this card, and its answer.\n"
        "Reply in this form only. Question: <your question> Answer: <your answer>"
    ),
    answer_prompt="{question}\nName the colour only.",
    metric=find_metric("same_words"),
)
