"""Evaluation logs: each model's answer to each test question, with its score, for rescoring by other tools.

One file per task and model, such as `textvqa-before.jsonl`, with lines such as

    {"question_id": "34602", "task": "textvqa", "model": "before", "question": "what is the brand?",
     "image": "003a8ae2ef43b901.jpg", "subset": "", "prediction": "nokia",
     "answers": ["nokia", ...], "metric": "textvqa_accuracy", "score": 1.0, "why": "10 of 10 references match"}

`exact` stands behind the answers where some have to be met exactly. A picture is its file's name in the test split.
`parityalign score METRIC FILE` reads such a file and gives the mean of `scores.json`. Texts are written here as the
models gave them, since a log is not training data.
"""

from itertools import groupby
from pathlib import Path
from typing import Any

from parityalign.core import Exportable, ExportFormat, Scored
from parityalign.export.formats._rows import write_lines


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes one file for each task and model; the answers come model by model and task by task."""
    return {
        file: write_lines(out / f"{file}.jsonl", map(_row, scored))
        for file, scored in groupby(run.scored(), key=lambda scored: f"{scored.task}-{scored.model}")
    }


EXPORT = ExportFormat(write, of=("answers",), copies_pictures=False)


def _row(scored: Scored) -> dict[str, Any]:
    question = scored.question
    return {
        "question_id": question.question_id,
        "task": scored.task,
        "model": scored.model,
        "question": question.question,
        "image": Path(question.image).name,
        "subset": question.subset,
        "prediction": scored.prediction,
        "answers": question.answers,
        **({"exact": question.exact} if question.exact else {}),
        "metric": scored.metric,
        "score": scored.score.value,
        "why": scored.score.why,
    }
