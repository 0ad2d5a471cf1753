"""The first screen of the report: the three models in large figures, what was gained, and what was done."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from parityalign.core import Estimate, HeldOut, Scores, Share, VerdictKind, read_manifest
from parityalign.report.beside_teacher import Beside, millions
from parityalign.report.held_out import held_out_line
from parityalign.report.tables import WHO, counted, headline, interval_words, percent
from parityalign.stages import GIVEN

NO_SCORES = "There are no scores: no task of this run has a test split, or evaluate has not run yet."
NO_GAPS = "No gaps were found, so there was nothing to train on: the student is unchanged."
FIGURES: Mapping[str, str] = {"before": "Student before", "after": "Student after", "teacher": "Teacher"}
"""The three models as they are called on the first screen."""


class Figure(NamedTuple):
    """A large number."""

    value: str
    words: str
    detail: str = ""


class Summary(NamedTuple):
    """The first screen."""

    title: str
    """The result as a heading."""
    why: str
    """Why there is nothing better to tell; empty otherwise."""
    done: str
    """What was done, in one sentence; empty while there is nothing to tell."""
    figures: Mapping[str, Figure]
    """Of the three models; empty without scores."""
    scale: str
    """What the figures are."""
    levels: Mapping[str, float]
    """The same figures between 0 and 100, for the bar."""
    facts: list[Figure]


Counts = Mapping[str, Mapping[VerdictKind, int]]
"""For each task how many pairs have each verdict."""


def summary_of(run: Path, scores: Scores | None, verdicts: Counts, beside: Beside) -> Summary:
    """The first screen of a run in any state.

    Args:
        run: The run folder.
        scores: None if there are none yet.
        verdicts: Of its pairs.
        beside: The student's size and speed beside the teacher's.
    """
    done = _done(run, scores)
    if scores and scores.tasks:
        return _by_tests(scores, done, beside)
    if scores and scores.held_out:
        return _by_held_out(scores.held_out, done, beside)
    gaps = sum(counts.get(VerdictKind.TEACHER_ONLY, 0) for counts in verdicts.values())
    if (scores or verdicts) and not gaps:
        return Summary("There was nothing to learn", NO_GAPS, done, {}, "", {}, [])
    return Summary("No scores yet", headline(scores) if scores else NO_SCORES, done, {}, "", {}, [])


def _by_tests(scores: Scores, done: str, beside: Beside) -> Summary:
    tasks = list(scores.tasks.values())
    levels = {who: fmean(getattr(task, who).score for task in tasks) for who in WHO}
    intervals = {who: _interval(getattr(tasks[0], who)) if len(tasks) == 1 else "" for who in WHO}
    asked = counted(scores.questions, "test question")
    scale = f"mean score of {len(tasks)} tasks, {asked}" if len(tasks) > 1 else f"score on {asked}"
    figures = {who: Figure(f"{levels[who]:.1f}", FIGURES[who], intervals[who]) for who in WHO}
    facts = [*_gained(scores.mean_gain, "points"), *_recovered(scores), *_beside_facts(beside)]
    return Summary(_title(scores), _refused(scores.held_out), done, figures, f"{scale}, from 0 to 100", levels, facts)


def _refused(held: HeldOut | None) -> str:
    """Why a levelled student was not taken, if it was not."""
    return held_out_line(held) if held and not held.accepted else ""


def _title(scores: Scores) -> str:
    gain, closed = scores.mean_gain, scores.gap_recovered
    if scores.held_out and not scores.held_out.accepted:
        return "Nothing was gained, so the student was left as it was"
    if gain is None or gain.score == 0:
        return "The student scores as before"
    if gain.score < 0:
        return f"The student lost {-gain.score:.1f} points"
    if gain.ci and gain.ci[0] <= 0:
        return f"The student gained {gain.score:.1f} points, which may be chance"
    if closed is None or closed >= 1:
        return f"The student gained {gain.score:.1f} points and is level with its teacher"
    return f"The student closed {percent(closed)} of the gap to its teacher"


def _by_held_out(held: HeldOut, done: str, beside: Beside) -> Summary:
    total = held.total
    shares = {"before": total.before, "after": total.after}
    levels = {who: 100 * (share.share or 0.0) for who, share in shares.items()} | {"teacher": 100.0}
    figures = {
        who: Figure(percent(levels[who] / 100), FIGURES[who], _share_interval(share)) for who, share in shares.items()
    }
    figures["teacher"] = Figure(percent(1.0), FIGURES["teacher"], "the yardstick")
    title = "Nothing was gained, so the student was left as it was"
    if held.accepted:
        title = f"The student now agrees with its teacher on {levels['after']:.0f} % of questions"
    elif total.after.count != total.before.count:
        figures["after"] = figures["after"]._replace(words="Student when levelled, not taken")
    facts = [*(_closed(held) if held.accepted else ()), *_beside_facts(beside)]
    asked = f"of {counted(total.pairs, 'question')} on {counted(total.images, 'held-out image')}"
    scale = f"{asked} answered as the teacher; without a test split there are no scores"
    return Summary(title, _refused(held), done, figures, scale, levels, facts)


def _closed(held: HeldOut) -> list[Figure]:
    facts, closed = _gained(held.total.difference, "points"), held.total.gaps_closed
    if closed.share is not None:
        facts.append(Figure(percent(closed.share), "of the gaps closed", f"{closed.count:,} of {closed.of:,}"))
    return facts


def _gained(gain: Estimate | None, unit: str) -> list[Figure]:
    if gain is None or gain.score == 0:
        return []
    return [Figure(f"{gain.score:+z.1f}", f"{unit} {'gained' if gain.score >= 0 else 'lost'}", _likely(gain))]


def _recovered(scores: Scores) -> list[Figure]:
    closed = scores.gap_recovered
    if closed is None or closed <= 0:
        return []
    return [Figure(percent(closed), "of the gap to the teacher closed")]


def _beside_facts(beside: Beside) -> list[Figure]:
    facts, sizes = [], beside.parameters
    if beside.smaller and sizes["student"] and sizes["teacher"]:
        told = f"{millions(sizes['student'])} parameters, teacher {millions(sizes['teacher'])}"
        facts.append(_times(beside.smaller, ("smaller than", "larger than"), told))
    if beside.faster:
        facts.append(_times(beside.faster, ("as fast as", "slower than"), "answers a second, in this run"))
    return facts


def _times(ratio: float, words: Sequence[str], detail: str) -> Figure:
    more = ratio >= 1
    value = ratio if more else 1 / ratio
    written = f"{value:.1f}" if value < 100 else f"{value:,.0f}"
    return Figure(f"{written} \u00d7", f"{words[0] if more else words[1]} the teacher", detail)


def _interval(value: Estimate, sign: str = "") -> str:
    return interval_words(value.ci, sign)


def _likely(gain: Estimate) -> str:
    """The interval of a gain for those who have not read how it is made."""
    return f"95 % sure: {_interval(gain, sign='+')}" if gain.ci else ""


def _share_interval(share: Share) -> str:
    return interval_words((100 * share.ci[0], 100 * share.ci[1]) if share.ci else None)


def _done(run: Path, scores: Scores | None) -> str:
    """What was done, as far as the run is."""
    images, pairs, student = (_counts(run / name) for name in ("images", "pairs", "student"))
    if not pairs:
        return ""
    pictures = counted(images.get("accepted", 0), "picture")
    told = f"{_writers(run, pairs)} {counted(pairs.get('pairs', 0), 'question')} with answers about {pictures}"
    if training := student.get("training"):
        replay = student.get("replay", 0)
        told += f"; the student was trained on {training - replay:,} that only the teacher had right"
        told += f" and {replay:,} that it knew already" if replay else ""
    if scores and scores.questions:
        told += f"; {counted(scores.questions, 'labelled test question')} measured what came of it"
    return f"{told}."


def _writers(run: Path, pairs: Mapping[str, int]) -> str:
    if not (run / "pairs" / GIVEN).is_file():
        return "Without labels, the teacher wrote"
    return "The teacher and your own files gave" if pairs.get("replies") else "Your own files gave"


def _counts(artifact: Path) -> Mapping[str, int]:
    return (read_manifest(artifact) or {}).get("counts", {})  # type: ignore[no-any-return]  # a manifest is JSON
