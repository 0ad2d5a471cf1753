"""What the commands found, as records for programs (`--json`); docs/scripts.md lists their fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parityalign import report, stages
from parityalign.core import CONTROLS, PREVIEW, REPORT, SCORES, Controls, Scores, read_manifest

if TYPE_CHECKING:
    from parityalign import engines, pipeline

_STUDENT = "student"


def run_record(run: Path, outcomes: "Sequence[pipeline.Outcome]", tasks: Sequence[str]) -> dict[str, object]:
    """What a run, or one of its stages, did, and what the run has so far.

    Args:
        run: The run folder.
        outcomes: What was done in each stage.
        tasks: The tasks, in their order.
    """
    written = run / REPORT
    return {
        "run": run,
        "stages": outcomes,
        "verdicts": report.verdicts_by_task(run, tasks),
        "questions": tables_record(report.question_tables(run, list(tasks))),
        "scores": report.read_record(run / SCORES, Scores),
        "controls": report.read_record(run / CONTROLS, Controls),
        "student": _levelled(run),
        "report": written if written.exists() else None,
    }


def steps_record(run: Path, steps: "Sequence[pipeline.Step]") -> dict[str, object]:
    """What a run would do."""
    return {"run": run, "steps": steps}


def status_record(
    run: Path, found: "Sequence[pipeline.StageStatus]", waiting: "Sequence[pipeline.WaitingJob]"
) -> dict[str, object]:
    """How far a run is."""
    return {"run": run, "stages": found, "waiting": waiting}


def preview_record(run: Path, found: "Sequence[report.Preview]") -> dict[str, object]:
    """The pairs of a preview."""
    pairs = [
        {
            "image": each.image,
            "task": each.reply.task,
            "reply": each.reply.raw,
            "question": each.pair.question if each.pair else None,
            "answer": each.pair.answer if each.pair else None,
            "student_text": each.verdict.student_text if each.verdict else None,
            "teacher_text": each.verdict.teacher_text if each.verdict else None,
            "verdict": each.verdict.verdict if each.verdict else None,
            "outcome": each.outcome,
        }
        for each in found
    ]
    return {"run": run, "pairs": pairs, "page": run / PREVIEW}


def holdings_record(held: "Sequence[engines.Holding]", path: Path | None, dropped: int | None) -> dict[str, object]:
    """What an answer store holds."""
    return {"store": path, "bytes": path.stat().st_size if path else None, "dropped": dropped, "models": held}


def tables_record(tables: "Sequence[report.Table]") -> list[dict[str, object]]:
    """Tables with their numbers as the text has them."""
    return [{"caption": each.caption, "headings": each.headings, "rows": each.rows} for each in tables]


def _levelled(run: Path) -> Path | None:
    manifest = read_manifest(run / _STUDENT) or {}
    return run / _STUDENT if manifest.get("outcome") == stages.LEVELLED else None
