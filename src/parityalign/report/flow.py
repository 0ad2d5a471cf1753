"""The flow of a run from images to scores, in counts.

The counts come from the records, so they also hold for an interrupted stage; those of training are in the student's
manifest only.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from parityalign.core import (
    STUDENT_FOLDER,
    Answer,
    ImageRef,
    LevelResult,
    Pair,
    Rejected,
    Reply,
    Scores,
    Verdict,
    VerdictKind,
    read_manifest,
)
from parityalign.report.files import read_records
from parityalign.report.words import in_words
from parityalign.stages import GIVEN, STAGES, GivenRow, Stage, reason_code

VERDICT_WORDS = {
    VerdictKind.TEACHER_ONLY: "gap (only the teacher is right)",
    VerdictKind.STUDENT_RIGHT: "the student is right",
    VerdictKind.BOTH: "both are right",
    VerdictKind.STUDENT_ONLY: "only the student is right",
    VerdictKind.NEITHER: "neither is right",
    VerdictKind.UNSURE: "unsure (neither a gap nor replayed)",
    VerdictKind.DROPPED: "dropped",
}
"""Every verdict in words, in display order."""


@dataclass(frozen=True)
class Step:
    """One step of the flow."""

    title: str
    total: int | None
    """None if the stage has written nothing yet."""
    parts: tuple[tuple[str, str], ...] = ()
    """Names and counts of the total's parts, or of related facts."""
    note: str = ""


def flow(
    run: Path,
    tasks: Sequence[str],
    verdicts: Mapping[str, Mapping[VerdictKind, int]],
    scores: Scores | None,
    stages: Sequence[Stage] = STAGES,
) -> list[Step]:
    """The steps from images to scores.

    Args:
        run: the run folder.
        tasks: in the order in which they are shown.
        verdicts: how many pairs of each task have each verdict.
        scores: None if there are none yet.
        stages: of the run, in order.
    """
    told: dict[str, Callable[[], list[Step]]] = {
        "images": lambda: [_images(run / "images")],
        "pairs": lambda: [_replies(run / "pairs"), *_given(run / "pairs"), _pairs(run / "pairs", tasks)],
        "verdicts": lambda: [_verdicts(run / "verdicts", verdicts)],
        "student": lambda: [_trained(run / STUDENT_FOLDER)],
        "answers": lambda: [_scored(run / "answers", scores)],
    }
    steps = [told[stage.artifact]() if stage.artifact in told else _counted(run, stage) for stage in stages]
    return [step for of_stage in steps for step in of_stage]


def _counted(run: Path, stage: Stage) -> list[Step]:
    """A stage that has no steps of its own here, by the counts of its manifest; none if another's command does it."""
    manifest = read_manifest(run / stage.artifact)
    if manifest is None or stage.command:
        return []
    counts = {name: count for name, count in manifest["counts"].items() if isinstance(count, int)}
    return [_noted(Step(stage.name, None, _formatted(counts.items())), run / stage.artifact)]


def in_order(names: Iterable[str], tasks: Sequence[str]) -> list[str]:
    """The named tasks in the order of `tasks`, then the others by name."""
    named = set(names)
    return [*(task for task in tasks if task in named), *sorted(named.difference(tasks))]


def verdicts_by_task(run: Path, tasks: Sequence[str]) -> dict[str, dict[VerdictKind, int]]:
    """How many pairs of each task have each verdict; only verdicts that occur.

    Args:
        run: the run folder.
        tasks: in the order in which they are shown.
    """
    task_of = {pair.pair_id: pair.task for pair in read_records(run / "pairs" / "pairs.jsonl", Pair)}
    tallies: defaultdict[str, Counter[VerdictKind]] = defaultdict(Counter)
    for verdict in read_records(run / "verdicts" / "verdicts.jsonl", Verdict):
        tallies[task_of.get(verdict.pair_id, "unknown task")][verdict.verdict] += 1
    present = [kind for kind in VERDICT_WORDS if any(kind in tally for tally in tallies.values())]
    return {task: {kind: tallies[task][kind] for kind in present} for task in in_order(tallies, tasks)}


def _images(folder: Path) -> Step:
    accepted = sum(1 for _ in read_records(folder / "accepted.jsonl", ImageRef))
    reasons = Counter(image.reason for image in read_records(folder / "quarantine.jsonl", Rejected))
    parts = [("accepted", accepted), *((f"set aside: {in_words(why)}", n) for why, n in _by_size(reasons))]
    manifest = read_manifest(folder) or {}
    parts += [(f"accepted, {in_words(note)}", n) for note, n in manifest.get("noted", {}).items()]
    return _noted(_station("images", folder, accepted + reasons.total(), parts), folder)


def _replies(folder: Path) -> Step:
    outcomes = Counter(reply.outcome for reply in read_records(folder / "replies.jsonl", Reply))
    return _noted(_station("replies of the teacher", folder, outcomes.total(), _worded(outcomes)), folder)


def _given(folder: Path) -> list[Step]:
    """The pairs of one's own, if the run has some."""
    outcomes = Counter(row.outcome for row in read_records(folder / GIVEN, GivenRow))
    return [_station("pairs from files", folder, outcomes.total(), _worded(outcomes))] if outcomes else []


def _pairs(folder: Path, tasks: Sequence[str]) -> Step:
    tally = Counter(pair.task for pair in read_records(folder / "pairs.jsonl", Pair))
    return _station("pairs", folder, tally.total(), [(task, tally[task]) for task in in_order(tally, tasks)])


def _verdicts(folder: Path, by_task: Mapping[str, Mapping[VerdictKind, int]]) -> Step:
    tally: Counter[VerdictKind] = Counter()
    for counts in by_task.values():
        tally.update(counts)
    dropped = VERDICT_WORDS[VerdictKind.DROPPED]
    parts = [(words, tally[kind]) for kind, words in VERDICT_WORDS.items() if tally[kind] and words != dropped]
    all_of_them = read_records(folder / "verdicts.jsonl", Verdict)
    reasons = Counter(reason_code(each.reason) for each in all_of_them if each.verdict == VerdictKind.DROPPED)
    parts += [(f"{dropped}: {in_words(why)}", n) for why, n in _by_size(reasons)]
    return _noted(_station("verdicts", folder, tally.total(), parts), folder)


def _trained(folder: Path) -> Step:
    manifest = read_manifest(folder)
    if manifest is None:
        return Step("trained on", None, note="Level has not finished yet.")
    counts = {name: count for name, count in manifest.get("counts", {}).items() if isinstance(count, int)}
    step = Step("trained on", counts.pop("training", None), tuple(_spelled(counts) + _spelled(_level_facts(manifest))))
    return _noted(step, folder)


def _level_facts(manifest: Mapping[str, Any]) -> dict[str, float]:
    result = manifest.get("result", {})
    names = [field.name for field in fields(LevelResult)]
    return {name: result[name] for name in names if isinstance(result.get(name), int | float)}


def _scored(folder: Path, scores: Scores | None) -> Step:
    if scores is not None:
        tasks = [(name, task.n) for name, task in scores.tasks.items()]
        return _noted(Step("questions scored", scores.questions, _formatted(tasks)), folder)
    answers = {who: read_records(folder / f"{who}.jsonl", Answer) for who in ("before", "after", "teacher")}
    parts = [(f"answered: {who}", sum(1 for _ in found)) for who, found in answers.items()]
    return Step("questions scored", None, _formatted(p for p in parts if p[1]), "There are no scores yet.")


def _station(title: str, folder: Path, total: int, parts: Iterable[tuple[str, int]]) -> Step:
    finished = read_manifest(folder) is not None
    if not finished and not total:
        return Step(title, None, note="This stage has not run yet.")
    return Step(title, total, _formatted(parts), "" if finished else "This stage has not finished yet.")


def _noted(step: Step, folder: Path) -> Step:
    """The step with the notes of its stage's manifest."""
    return replace(step, note=step.note or str((read_manifest(folder) or {}).get("note", "")))


def _by_size(tally: Counter[str]) -> list[tuple[str, int]]:
    return sorted(tally.items(), key=lambda item: (-item[1], item[0]))


def _worded(tally: Counter[str]) -> list[tuple[str, int]]:
    return [(in_words(code), count) for code, count in _by_size(tally)]


def _formatted(parts: Iterable[tuple[str, int]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{count:,}") for name, count in parts)


def _spelled(facts: Mapping[str, float]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.3f}")
        for name, value in facts.items()
    ]
