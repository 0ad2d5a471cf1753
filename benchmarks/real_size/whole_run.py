"""Whole runs of the command line's own path: what each stage took, and how busy the GPU was in it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import parityalign as pa
from real_size.asking import limit
from real_size.data import pairs_file, questions_file
from real_size.measuring import Sample, busy_share, watched

PAIRS_EACH = 3


def identified(folder: Path, teacher: Path, student: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Intake and identify of pairs of one's own, about which both models are asked."""
    pairs = pairs_file(folder, [*paths], PAIRS_EACH)
    run = _opened(folder / "run-asked", teacher, student, {"pairs": {"file": str(pairs), "answers": "ask"}})
    with watched() as samples:
        run.upto("identify")
    return _stages(folder / "run-asked", samples)


def levelled(
    folder: Path, teacher: Path, student: Path, paths: Sequence[Path], *, objective: Mapping[str, float]
) -> dict[str, Any]:
    """A run to its report on pairs that come with both models' answers, with a labelled question about each picture.

    An untrained teacher writes nothing that could be read, and has nothing right.
    """
    pairs, test = pairs_file(folder, [*paths], PAIRS_EACH), questions_file(folder, [*paths][: len(paths) // 2])
    place = folder / f"run-{'-'.join(objective)}"
    task = {"pairs": {"file": str(pairs), "answers": "given"}, "test": str(test), "metric": "anls"}
    level = {"method": "lora", "learning_rate": 1e-4, "epochs": 1, "batch_size": 32, "objective": dict(objective)}
    run = _opened(place, teacher, student, task, intake={"overlap_guard": False}, level=level)
    with watched() as samples:
        run.upto()
    return _stages(place, samples) | {"report": (place / "report.html").exists()}


def _opened(place: Path, teacher: Path, student: Path, task: dict[str, Any], **more: Any) -> pa.OpenRun:  # noqa: ANN401
    loading = {role: {"max_pixels": limit(model)} for role, model in (("teacher", teacher), ("student", student))}
    return pa.open_run(
        place,
        progress=lambda *_: None,
        teacher=f"hf:{teacher}",
        student=f"hf:{student}",
        tasks={"textvqa": task},
        loading=loading,
        **more,
    )


def _stages(place: Path, samples: list[Sample]) -> dict[str, Any]:
    """Seconds and busy share of each stage, by the run's own events."""
    told: dict[str, Any] = {}
    began: dict[str, float] = {}
    for line in (place / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "began":
            began[event["stage"]] = at
        elif event["event"] == "finished":
            stage = event["stage"]
            told[f"{stage}_s"] = event["seconds"]
            if (busy := busy_share(samples, began[stage], at)) is not None:
                told[f"{stage}_busy"] = busy
    return told
