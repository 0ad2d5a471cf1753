"""Any picture: one question about what it shows, for tasks that no other skill fits.

Its metric is ANLS. A test set of one's own mostly has one answer a question, which VQA accuracy cannot score since it
compares each annotator with the others; ANLS takes any number of answers, lower case, and forgives a misspelling. It is
lenient where few characters matter: "15" scores 0.5 for "45". Where answers are numbers take
`metric: chartqa_relaxed_accuracy`, or raise `identify.threshold`.
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
)
