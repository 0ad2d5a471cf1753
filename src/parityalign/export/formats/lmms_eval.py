"""Samples as lmms-eval logs them, so that its paired test compares them with each other and with its own.

One file per task and model, such as `before_samples_textvqa.jsonl`, with lines such as

    {"doc_id": 0, "input": "what is the brand?", "target": "['nokia', 'Nokia']", "filtered_resps": "nokia",
     "doc_hash": "0d2e...", "textvqa_accuracy": 1.0, "score": 1.0}

`doc_id` is the question's place among those that are scored, which is lmms-eval's where none was left out; a list of
several answers is written as Python writes it, as there. lmms-eval's reader of baselines takes `score`.
"""

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

from parityalign.core import Exportable, ExportFormat, Scored
from parityalign.export.formats._rows import write_lines


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes one file for each task and model; the answers come model by model and task by task."""
    return {
        file: write_lines(out / f"{file}.jsonl", map(_row, scored))
        for file, scored in groupby(run.scored(), key=lambda scored: f"{scored.model}_samples_{scored.task}")
    }


EXPORT = ExportFormat(write, of=("answers",), copies_pictures=False)


def _row(scored: Scored) -> dict[str, Any]:
    question = scored.question
    named = question.model_copy(update={"image": Path(question.image).name})  # the same wherever the run lies
    return {
        "doc_id": scored.place,
        "input": question.question,
        "target": question.answers[0] if len(question.answers) == 1 else str(list(question.answers)),
        "filtered_resps": scored.prediction,
        "doc_hash": hashlib.sha256(named.model_dump_json().encode()).hexdigest(),
        scored.metric: scored.score.value,
        "score": scored.score.value,
    }
