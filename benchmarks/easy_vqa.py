"""A run on a data set that nobody here drew: easy-VQA (4,000 + 1,000 pictures of shapes, MIT licence), from PyPI.

    python benchmarks/easy_vqa.py FOLDER [--seeds 2] [--out docs/results-easy-vqa.md]

Neither bundled model knows these pictures. First the bundled teacher is levelled, by an ordinary run, on the labels of
a quarter of the train split. Then the bundled student is levelled under that teacher on another quarter, whose labels
nobody reads: its questions are a file without answers (`answers: teacher`), as the bundled models follow no prompt but
those that they were taught, and cannot write questions about such pictures. All are scored on the data set's own test
split. Runs lie in FOLDER and are resumed like any run.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from zipfile import ZipFile

from PIL import Image

import parityalign as pa
from parityalign.core import CONTROLS, Comparison, Controls, Estimate, Pair, WorkFailed, file_digest
from parityalign.core.files import write_whole
from parityalign.pipeline import Run, align, run_controls
from parityalign.report import estimate_cell, read_record
from spread import over_seeds

WHEEL, DIGEST = "easy-vqa==1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
"""The data set's package, and the SHA-256 of its wheel."""
DATA = "easy_vqa/data"
SIZE = 128
"""Pixels of a side, as the bundled models see pictures; those of the data set have 64."""
EACH = 1000
"""Pictures of the train split whose labels the teacher learns, and as many others in the student's pool."""
TASK = "shapes"
TRAINING: Mapping[str, Any] = {"method": "full", "learning_rate": 1e-3, "batch_size": 64, "patience": 8}
"""Settings of both levellings, as in the demo."""
ASKING: Mapping[str, Any] = {"identify": {"max_new_tokens": 16}, "evaluate": {"max_new_tokens": 16}}
"""The bundled models spell a word that they were not taught letter by letter: "rectangle" is nine tokens."""


class Asked(NamedTuple):
    """A question of the data set."""

    question: str
    answer: str
    picture: int


def _asked(files: ZipFile, split: str) -> list[Asked]:
    return [Asked(*each) for each in json.loads(files.read(f"{DATA}/{split}/questions.json"))]


def _read(folder: Path, split: str) -> list[Asked]:
    with ZipFile(next((folder / "easy-vqa").glob("*.whl"))) as files:
        return _asked(files, split)


def drawn(folder: Path) -> Path:
    """The data set's pictures and questions in files of our forms; downloaded once."""
    place = folder / "easy-vqa"
    if (place / "test.jsonl").exists():
        return place
    command = ["download", "--quiet", "--no-deps", "--no-binary", ":none:", "--dest", str(place), WHEEL]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    wheel = next(place.glob("*.whl"))
    if file_digest(wheel) != DIGEST:
        raise WorkFailed(f"{wheel} is not the file that this was written for")
    with ZipFile(wheel) as files:
        for split in ("train", "test"):
            _write_split(files, split, place)
    return place


def _write_split(files: ZipFile, split: str, place: Path) -> None:
    asked = _asked(files, split)
    (place / split).mkdir(parents=True, exist_ok=True)
    for number in {each.picture for each in asked}:
        with files.open(f"{DATA}/{split}/images/{number}.png") as file:
            Image.open(file).convert("RGB").resize((SIZE, SIZE)).save(place / split / f"{number}.png")
    rows = [(f"{split}/{number}.png", question, answer, number) for question, answer, number in asked]
    if split == "test":
        _write(place / "test.jsonl", ({"image": i, "question": q, "answers": [a]} for i, q, a, _ in rows))
        return
    labels = [{"image": i, "question": q, "answer": a, "teacher_text": a} for i, q, a, n in rows if n < EACH]
    _write(place / "labels.jsonl", labels)
    _write(place / "questions.jsonl", [{"image": i, "question": q} for i, q, _, n in rows if EACH <= n < 2 * EACH])


def _write(path: Path, rows: Any) -> None:  # noqa: ANN401 - rows of any kind
    write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def run_of(folder: Path, name: str, **settings: Any) -> pa.OpenRun:  # noqa: ANN401 - as open_run takes them
    """A run under FOLDER, up to its scores; relaxed accuracy of words is whether they are the same."""
    pairs = settings.pop("pairs")
    data = folder / "easy-vqa"
    task = {
        "pairs": {"file": str(data / pairs.pop("file")), **pairs},
        "test": str(data / "test.jsonl"),
        "skill": "vqa",
        "metric": "chartqa_relaxed_accuracy",
    }
    answers = folder / "answers.sqlite"
    return pa.open_run(folder / name, answers=answers, tasks={TASK: task}, **ASKING, **settings).upto()


def taught(folder: Path) -> pa.OpenRun:
    """The bundled teacher, levelled on labels; its own answers, which identify wants of a teacher, are the labels."""
    return run_of(
        folder,
        "teacher",
        teacher="embedded:teacher",
        student="embedded:teacher",
        pairs={"file": "labels.jsonl", "answers": "given"},
        level={**TRAINING, "select": "all", "max_steps": 300},
    )


def levelled(folder: Path, seed: int) -> pa.OpenRun:
    """The bundled student, levelled under that teacher on pictures whose labels nobody reads."""
    return run_of(
        folder,
        f"student-{seed}",
        seed=seed,
        teacher=f"hf:{folder / 'teacher' / 'student'}",
        student="embedded:student",
        pairs={"file": "questions.jsonl", "answers": "teacher"},
        level={**TRAINING, "replay": 0.5, "max_steps": 300},
    )


BEFORE_FILE, AFTER_FILE = "answers/before.jsonl", "answers/after.jsonl"
COMPARED = ("random", "format")
"""Controls of the first seed: as many random pairs, and the student's own answers."""
HEAD = """# A data set that nobody here drew: easy-VQA

Generated by `make easy-vqa` on {date}. The data set (Victor Zhou, MIT licence, from PyPI) has pictures of one shape in
one of eight colours, enlarged here from 64 to {size} pixels, and questions with 13 answers, three of four of them yes
or no. The bundled models were taught nothing of the kind.

1. The bundled teacher was levelled on the labels of {labels:,} questions about {each:,} pictures of the train split.
2. The bundled student was levelled under that teacher on {each:,} other pictures of it. Their {pool:,} questions are
   the data set's, without labels (`pairs: {{file: questions.jsonl, answers: teacher}}`), since the bundled teacher
   cannot be told what to ask about. So this says nothing about questions that a teacher writes.

Both are ordinary runs. All models are scored on the data set's test split, {n:,} questions about {images:,} pictures,
by whether the words are the same. Intervals are over pictures (95 %, bootstrap), that of the students' gain over
seeds (95 %, t).

| | score | yes or no | others |
|---|---|---|---|
"""


def _controlled(run: Run) -> None:
    for _ in align(run):
        pass
    run_controls(run, COMPARED)


def page(teacher: pa.OpenRun, students: Sequence[pa.OpenRun]) -> str:
    """What the runs came to."""
    of_teacher, of_students = _compared(teacher), [_compared(each) for each in students]
    pool = {pair.pair_id for pair in students[0].pairs}
    head = HEAD.format(
        date=date.today(),
        size=SIZE,
        each=EACH,
        labels=len(teacher.pairs),
        pool=len(pool),
        n=of_teacher.n,
        images=of_teacher.images,
    )
    first = students[0].path
    rows = [
        ("teacher as bundled", of_teacher.before, teacher.path / BEFORE_FILE),
        ("teacher, levelled on labels", of_teacher.after, teacher.path / AFTER_FILE),
        ("student as bundled", of_students[0].before, first / BEFORE_FILE),
        *(
            (f"student, levelled without labels, seed {number}", each.after, student.path / AFTER_FILE)
            for number, (student, each) in enumerate(zip(students, of_students, strict=True))
        ),
    ]
    asked = _read(teacher.path.parent, "test")
    table = "".join(
        f"| {what} | {estimate_cell(score)} | {_by_kind(asked, _answers(file))} |\n" for what, score, file in rows
    )
    return head + table + _prior(asked, teacher) + _gains(students, of_students) + _of_pairs(students, first.parent)


def _prior(asked: Sequence[Asked], teacher: pa.OpenRun) -> str:
    """What can be had without looking: to each question its commonest answer among the labels."""
    counts: dict[str, Counter[str]] = {}
    for pair in teacher.pairs:
        counts.setdefault(pair.question, Counter())[pair.answer] += 1
    said = [counts[each.question].most_common(1)[0][0] if each.question in counts else "" for each in asked]
    score = 100 * mean(answer == each.answer for answer, each in zip(said, asked, strict=True))
    return f"| without looking: the commonest label of the same question | {score:.1f} | {_by_kind(asked, said)} |\n"


def _by_kind(asked: Sequence[Asked], said: Sequence[str]) -> str:
    right: dict[bool, list[bool]] = {True: [], False: []}
    for each, answer in zip(asked, said, strict=True):
        right[each.answer in ("yes", "no")].append(answer.casefold() == each.answer)
    return " | ".join(f"{100 * mean(right[kind]):.1f} of {len(right[kind]):,}" for kind in (True, False))


def _answers(file: Path) -> list[str]:
    """In the order of the questions."""
    return [str(json.loads(line)["text"]) for line in file.read_text().splitlines()]


def _gains(students: Sequence[pa.OpenRun], compared: Sequence[Comparison]) -> str:
    """What levelling brought, beside the controls, and how much of the way to the teacher that is."""
    gains = [each.gain.score for each in compared]
    told = estimate_cell(Estimate(score=mean(gains), ci=over_seeds(gains)), signed=True)
    closed = mean(each.gain.score / (each.teacher.score - each.before.score) for each in compared)
    lines = [f"The student gained {told} points, {100 * closed:.0f} % of its distance to the teacher."]
    found = read_record(students[0].path / CONTROLS, Controls)
    for control in found.controls if found else ():
        if control.mean and control.run_ahead:
            scored, ahead = estimate_cell(control.mean), estimate_cell(control.run_ahead)
            lines.append(f"With seed 0 the control *{control.name}* scores {scored}; the run is ahead by {ahead}.")
    return "\n" + "\n".join(lines) + "\n"


def _of_pairs(students: Sequence[pa.OpenRun], folder: Path) -> str:
    """How right the teacher's answers were, by the labels that no run has read."""
    labels = {(f"{each.picture}.png", each.question): each.answer for each in _read(folder, "train")}
    gaps = students[0].gaps
    right, right_gaps = (sum(_is_label(pair, labels) for pair in pairs) for pairs in (students[0].pairs, gaps))
    return (
        f"\nOf the teacher's answers about the pool {right:,} of {len(students[0].pairs):,} are the label, of those in "
        f"the {len(gaps):,} gaps {right_gaps:,}; nothing but this sentence has seen the pool's labels.\n"
    )


def _is_label(pair: Pair, labels: Mapping[tuple[str, str], str]) -> bool:
    return labels.get((Path(pair.image).name, pair.question)) == pair.answer.casefold()


def _compared(run: pa.OpenRun) -> Comparison:
    if run.scores is None:
        raise WorkFailed(f"{run.path} has no scores")
    return run.scores.tasks[TASK]


def main() -> None:
    """Does what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results-easy-vqa.md"))
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    drawn(folder)
    teacher = taught(folder)
    students = [levelled(folder, seed) for seed in range(chosen.seeds)]
    if not (students[0].path / CONTROLS).exists():
        students[0].work(_controlled)
    write_whole(chosen.out, page(teacher, students))


if __name__ == "__main__":
    main()
