"""Any image: one question about its content, for tasks that no other skill fits.

Its metric is ANLS. A user's test set usually has one answer per question, which VQA accuracy cannot score since it
compares each annotator with the others; ANLS takes any number of answers, ignores case, and tolerates misspellings. It
is lenient for short texts: "15" scores 0.5 for "45". For numeric answers set `metric: chartqa_relaxed_accuracy`.
"""

from parityalign.core import Skill
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

SKILL = Skill(
    name="vqa",
    annotate_prompt=annotate_prompt(
        "Write one question that can be answered by looking at this image, and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    metric=find_metric("anls"),
    kinds=(
        "what is shown",
        "a colour",
        "a count",
        "a place or a position",
        "an action",
        "a material or a shape",
        "a comparison of two things",
        "the text that can be read",
        "the time of day, the season or the weather",
        "what something is used for",
        "yes or no",
    ),
)
