"""Scenes as people and cars see them: directions, distances, signs and numbers, scored as in RealWorldQA.

The released questions say themselves in which form to answer, so the answer prompt adds what holds for all forms.
"""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import annotate_prompt

SKILL = Skill(
    name="realworldqa",
    annotate_prompt=annotate_prompt(
        "Write one question about where things are in this scene, which way they go, how far or how many they are or "
        "what a sign says, and its answer as a word or a number."
    ),
    answer_prompt="{question}\nAnswer with a choice's letter, a single word or a number only.",
    metric=find_metric("realworldqa_accuracy"),
    kinds=(
        "which of two things is closer",
        "where a thing is in relation to another",
        "which way a vehicle or an arrow goes",
        "how many of a thing there are",
        "what a sign says or allows",
        "the state of a traffic light",
        "how far away a thing is",
        "which lane is free",
        "whether a thing is there",
        "a choice of three, marked A to C",
    ),
)
