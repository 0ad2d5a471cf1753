"""ChartQAPro: questions about charts and dashboards of many sources, of five types, some of them unanswerable.

It is released as Parquet on the hub alone (ahmed-masry/ChartQAPro, split `test`; a copy is lmms-lab/ChartQAPro), so its
files are read row by row; the place is the id:

    {"Question": ["How many items?"], "Answer": ["14"], "Question Type": "Factoid", "Year": ["NO"], "Paragraph": "",
     "image": the bytes of the picture}

A question of the type `Conversational` is a list of turns, of which the last is asked and the ones before are shown
with their answers; its last `Year` counts. `Paragraph`, where there is one, is a text that belongs to the chart. `Year`
says of each item of the answer whether it has to be met exactly. An answer may be a list in brackets or `unanswerable`.
Metric: the relaxed accuracy of its authors' script, over all questions and by type.
"""

from collections.abc import Mapping
from types import MappingProxyType

from parityalign.core import Benchmark, Question, Row, UserError, quoted_names
from parityalign.tasks._files import in_subset, parquet_alone

_CONVERSATION = "conversational"
_SUBSETS: Mapping[str, str] = MappingProxyType(
    {
        "Factoid": "factoid",
        "Multi Choice": "multi_choice",
        "Conversational": _CONVERSATION,
        "Fact Checking": "fact_checking",
        "Hypothetical": "hypothetical",
    }
)


def read_row(row: Row) -> Question:
    """A row of the release."""
    kind = row.text("Question Type")
    if kind not in _SUBSETS:
        raise UserError(f"{row.where}: 'Question Type' is {kind!r}; known are {quoted_names(_SUBSETS)}")
    talks = _SUBSETS[kind] == _CONVERSATION
    asked, answers, years = (row.plain_texts(key) for key in ("Question", "Answer", "Year"))
    exact = tuple(year.upper() == "YES" for year in (years[-1:] if talks else years))
    return Question(
        question_id=str(row.place),
        image="",
        question=_with_paragraph(row, _conversation(asked, answers) if talks else "".join(asked[:1])),
        answers=answers[-1:],
        subset=_SUBSETS[kind],
        exact=exact if any(exact) else (),
    )


def _conversation(asked: tuple[str, ...], answers: tuple[str, ...]) -> str:
    """The turns so far, one under the other, and the question that is asked now."""
    before = [
        f"Question: {turn.strip()}\nAnswer: {said.strip()}" for turn, said in zip(asked[:-1], answers, strict=False)
    ]
    return "\n".join([*before, *(f"Question: {last.strip()}" if before else last for last in asked[-1:])])


def _with_paragraph(row: Row, asked: str) -> str:
    paragraph = row.text_or_empty("Paragraph").strip() if "Paragraph" in row.values else ""
    return f"{paragraph}\n\n{asked}" if paragraph and asked.strip() else asked


BENCHMARK = Benchmark(
    name="chartqapro",
    skill="chartqapro",
    read_test=parquet_alone("ChartQAPro", "ahmed-masry/ChartQAPro"),
    read_row=read_row,
    splits=("test",),
    subsets={"whole": lambda question: True, **{subset: in_subset(subset) for subset in _SUBSETS.values()}},
    questions=1_948,
)
