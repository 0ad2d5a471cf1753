"""RealWorldQA: what people and cars see of streets, rooms and things, asked for directions, distances and numbers.

It is on the hub as Parquet (xai-org/RealworldQA, split `test`; a copy is lmms-lab-encoder/RealWorldQA), read row by
row; the place is the id:

    {"image": the bytes of the picture, "question": "Which way does the arrow point?\nA. Left\nB. Right\nPlease answer
     directly with only the letter of the correct option and nothing else.", "answer": "B"}

Choices stand in the question, whose last sentence says in which form to answer; others want a word or a number.
Metric: accuracy as lmms-eval takes the letter out of a reply; the authors ship no scorer.
"""

from parityalign.core import Benchmark, Question, Row
from parityalign.tasks._files import in_subset, parquet_alone

_LETTERS = frozenset("ABCD")
CHOICES, WORDS = "choices", "words"


def read_row(row: Row) -> Question:
    """A row of the release."""
    answers = row.plain_texts("answer")
    return Question(
        question_id=str(row.place),
        image="",
        question=row.text_or_empty("question"),
        answers=answers,
        subset=CHOICES if {answer.strip().upper() for answer in answers} <= _LETTERS else WORDS,
    )


BENCHMARK = Benchmark(
    name="realworldqa",
    skill="realworldqa",
    read_test=parquet_alone("RealWorldQA", "xai-org/RealworldQA"),
    read_row=read_row,
    splits=("test",),
    subsets={
        "whole": lambda question: True,
        **{subset: in_subset(subset) for subset in (CHOICES, WORDS)},
    },
    questions=765,
)
