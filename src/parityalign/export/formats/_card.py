"""The data card: the content of a data set, the models behind it, and what is known of its licence."""

from collections import Counter
from typing import Any

import yaml

from parityalign.core import Origin

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LARGEST = "10M<n<100M"

_BODY = """\
# Questions and answers that {teacher} wrote about unlabelled images

{rows:,} rows: {what}.
Made with parityalign: the teacher wrote a question and an answer for an image, then both models were asked the
question and their answers compared with the one written. {checked}

| | |
|---|---|
| teacher, who wrote the pairs | {teacher} |
| student, who is to learn from the gaps | {student} |
| right answer | {judged_by} |
| seed | {seed} |

## Verdicts

All {pairs:,} pairs of the run; `teacher_only` are the gaps: right by the teacher, wrong by the student.

{verdicts}

## Images and prompts

{sources}

## Columns

`id`, `image` (the file as it was), `question`, `answer` (the one written with it, or a person's), `task`, `image_id`
(first 32 digits of the SHA-256 of the file), `verdict` and its `reason`, `student_text` and `teacher_text` (what each
answered when asked; null: not asked), `student_score` and `teacher_score` (0 to 1).

## Licence

None is given here. The images keep the licence of their source. Questions and answers are the teacher's output:
the licence of that model says what they may be used for. Set `license` above before you publish this.
"""


def card(origin: Origin, rows: int) -> str:
    """The text of README.md: a YAML header for the hub and the library, then the text for readers."""
    header = yaml.safe_dump(_header(origin, rows), sort_keys=False, allow_unicode=True, width=1000)
    what = "the gaps of a run" if origin.exported == "gaps" else "all pairs of a run with their verdicts"
    body = _BODY.format(
        teacher=origin.teacher,
        student=origin.student,
        judged_by=origin.judged_by,
        seed=origin.seed,
        rows=rows,
        what=what,
        pairs=origin.pairs,
        verdicts=_verdict_table(origin),
        sources=_sources(origin),
        checked=origin.checked,
    )
    return f"---\n{header}---\n\n{body}"


def _header(origin: Origin, rows: int) -> dict[str, Any]:
    return {
        "pretty_name": f"Pairs written by {origin.teacher}",
        "license": "unknown",
        "task_categories": ["visual-question-answering"],
        "size_categories": [next((name for limit, name in _SIZES if rows < limit), _LARGEST)],
        "tags": ["parityalign", "synthetic"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]},
        ],
        "parityalign": {
            "rows": rows,
            "exported": origin.exported,
            "teacher": origin.teacher,
            "student": origin.student,
            "seed": origin.seed,
            "judged_by": origin.judged_by,
            "checked": origin.checked,
            "sources": dict(origin.sources),
            "annotate_prompts": dict(origin.annotate_prompts),
            "answer_prompts": dict(origin.answer_prompts),
            "pairs": origin.pairs,
            "verdicts": {task: dict(counts) for task, counts in origin.verdicts.items()},
        },
    }


def _verdict_table(origin: Origin) -> str:
    kinds = list(sum((Counter(counts) for counts in origin.verdicts.values()), Counter[str]()))
    lines = [["task", "pairs", *kinds], ["---"] * (len(kinds) + 2)]
    for task, counts in origin.verdicts.items():
        lines.append([task, f"{sum(counts.values()):,}", *(f"{counts.get(kind, 0):,}" for kind in kinds)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sources(origin: Origin) -> str:
    return "\n\n".join(
        f"- `{task}`: images from {source}.{_asked_to_write(origin, task)}"
        f"\n\n  Both models were asked:\n\n{_quoted(origin.answer_prompts[task])}"
        for task, source in origin.sources.items()
    )


def _asked_to_write(origin: Origin, task: str) -> str:
    """Nothing for a task with pairs of one's own only."""
    prompt = origin.annotate_prompts.get(task)
    return f" The teacher was asked to write:\n\n{_quoted(prompt)}" if prompt else ""


def _quoted(prompt: str) -> str:
    return "\n".join(f"      {line}" for line in prompt.splitlines())
