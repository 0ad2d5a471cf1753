"""What levelling won and lost, with pictures: test questions, or where there are none pairs on held-out images."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.core import STUDENT_FOLDER, Answer, HeldOutPair, Question, Scores, UserError, Verdict
from parityalign.data import questions_in
from parityalign.metrics import find_metric
from parityalign.report.files import read_records
from parityalign.report.flow import in_order
from parityalign.report.gallery import Thumbnail, choose_evenly, thumbnail
from parityalign.stages import AFTER_FILE, BEFORE_FILE, HELD_OUT, TEACHER_FILE, VERDICTS, reviewed_pairs

WON_SHOWN, LOST_SHOWN = 16, 8
_SPELLINGS = 3
"""Of the right answers that are shown."""


class Changed(NamedTuple):
    """A question on which the student does better or worse after levelling."""

    task: str
    key: str
    """Of the question, unique in its task."""
    question: str
    right: str
    """The right answers."""
    image: str
    """Path of the picture."""
    said: Mapping[str, str | None]
    """What each model answers, by `before`, `after` and `teacher`; None: not asked, or not known."""
    gain: float


class Example(NamedTuple):
    """One of them with its picture."""

    shown: Changed
    picture: Thumbnail | None
    """None if it can no longer be read."""


class Examples(NamedTuple):
    """Some of the questions won and lost."""

    of: str
    """What they are, in words."""
    won: list[Example]
    won_count: int
    lost: list[Example]
    lost_count: int


class Drawn(NamedTuple):
    """Some of the questions won and lost, without their pictures."""

    won: list[Changed]
    won_count: int
    lost: list[Changed]
    lost_count: int


def changed_questions(run: Path, scores: Scores, *, seed: int, won: int, lost: int) -> Drawn:
    """Some of the test questions that the student does better or worse after levelling, drawn evenly from all tasks.

    Args:
        run: The run folder.
        scores: Of the run.
        seed: Of the draw.
        won: The most of those that it does better.
        lost: The most of those that it does worse.
    """
    return _drawn(list(_test_questions(run, scores)), list(scores.tasks), seed, won, lost)


def won_and_lost(run: Path, scores: Scores | None, tasks: Sequence[str], *, seed: int) -> Examples | None:
    """Examples of what changed, drawn evenly from all tasks; None if nothing did, or it is not known yet.

    Args:
        run: The run folder.
        scores: None if there are none yet.
        tasks: In the order in which they are shown.
        seed: Of the draw.
    """
    changed = list(_test_questions(run, scores)) if scores else []
    of = "test questions" if changed else "pairs on held-out images"
    changed = changed or list(_held_out_pairs(run))
    if not changed:
        return None
    drawn = _drawn(changed, tasks, seed, WON_SHOWN, LOST_SHOWN)
    return Examples(of, _pictured(drawn.won), drawn.won_count, _pictured(drawn.lost), drawn.lost_count)


def _pictured(found: Sequence[Changed]) -> list[Example]:
    return [Example(each, thumbnail(Path(each.image))) for each in found]


def _drawn(changed: Sequence[Changed], tasks: Sequence[str], seed: int, most_won: int, most_lost: int) -> Drawn:
    won, lost = ([each for each in changed if sign * each.gain > 0] for sign in (1, -1))
    order = in_order({each.task for each in changed}, tasks)

    def some(found: Sequence[Changed], limit: int) -> list[Changed]:
        chosen = choose_evenly(found, lambda each: (each.task, each.key), seed=seed, limit=limit)
        return sorted(chosen, key=lambda each: order.index(each.task))

    return Drawn(some(won, most_won), len(won), some(lost, most_lost), len(lost))


def _test_questions(run: Path, scores: Scores) -> Iterator[Changed]:
    files = {"before": BEFORE_FILE, "after": AFTER_FILE, "teacher": TEACHER_FILE}
    said = {who: _texts(read_records(run / "answers" / file, Answer)) for who, file in files.items()}
    for task, scored in scores.tasks.items():
        try:
            metric = find_metric(scored.metric)
        except UserError:  # of a package that is not installed here
            continue
        for question in questions_in(run, task):
            item = f"{task}:{question.question_id}"
            if item in said["before"] and item in said["after"]:
                values = [
                    metric.on_question(said[who][item] or "", question.answers, question.exact).value
                    for who in ("before", "after")
                ]
                if values[0] != values[1]:
                    texts = {who: of.get(item) for who, of in said.items()}
                    yield _changed(task, question, texts, values[1] - values[0])


def _changed(task: str, question: Question, said: Mapping[str, str | None], gain: float) -> Changed:
    most = [text for text, _ in Counter(question.answers).most_common(_SPELLINGS)]
    return Changed(task, question.question_id, question.question, "; ".join(most), question.image, said, gain)


def _texts(answers: Iterable[Answer]) -> dict[str, str | None]:
    return {answer.item_id: None if answer.not_asked else answer.text for answer in answers}


def _held_out_pairs(run: Path) -> Iterator[Changed]:
    held = {each.pair_id: each for each in read_records(run / STUDENT_FOLDER / HELD_OUT, HeldOutPair)}
    changed = {key: each for key, each in held.items() if each.right_before != each.right_after}
    if not changed:
        return
    verdicts = {each.pair_id: each for each in read_records(run / "verdicts" / VERDICTS, Verdict)}
    for pair in reviewed_pairs(run):
        if pair.pair_id in changed:
            each, verdict = changed[pair.pair_id], verdicts.get(pair.pair_id)
            said = {
                "before": verdict.student_text if verdict else None,
                "after": each.text,
                "teacher": verdict.teacher_text if verdict else None,
            }
            gain = float(each.right_after) - float(each.right_before)
            yield Changed(pair.task, pair.pair_id, pair.question, pair.answer, pair.image, said, gain)
