"""A run on a data set that nobody here drew: easy-VQA (4,000 + 1,000 pictures of shapes, MIT licence), from PyPI.

    python benchmarks/easy_vqa.py FOLDER [--seeds 3] [--out docs/results-easy-vqa.md]

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
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from zipfile import ZipFile

from PIL import Image
from scipy.stats import t

import parityalign as pa
from parityalign.core import CONTROLS, Comparison, Controls, Estimate, Pair, WorkFailed, file_digest
from parityalign.core.files import write_whole
from parityalign.pipeline import Run, align, run_controls
from parityalign.report import read_record

WHEEL, DIGEST = "easy-vqa==1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
"""The data set's package, and the SHA-256 of its wheel."""
SIZE = 128
"""Pixels of a side, as the bundled models see pictures; those of the data set have 64."""
EACH = 1000
"""Pictures of the train split whose labels the teacher learns, and as many others in the student's pool."""
TASK = "shapes"
TRAINING: Mapping[str, Any] = {"method": "full", "learning_rate": 1e-3, "batch_size": 64, "patience": 8}
"""Settings of both levellings, as in the demo."""
ASKING: Mapping[str, Any] = {"identify": {"max_new_tokens": 16}, "evaluate": {"max_new_tokens": 16}}
"""The bundled models spell a word that they were not taught letter by letter: "rectangle" is nine tokens."""


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
    within = f"easy_vqa/data/{split}"
    asked: list[tuple[str, str, int]] = json.loads(files.read(f"{within}/questions.json"))
    (place / split).mkdir(parents=True, exist_ok=True)
    for number in {number for _, _, number in asked}:
        with files.open(f"{within}/images/{number}.png") as file:
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
by whether the words are the same. Intervals are over pictures (95 %, bootstrap), below the table over seeds (95 %, t).

| | score |
|---|---|
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
    rows = [
        ("teacher as bundled", _said(of_teacher.before)),
        ("teacher, levelled on labels", _said(of_teacher.after)),
        ("student as bundled", _said(of_students[0].before)),
        *((f"student, levelled without labels, seed {n}", _said(each.after)) for n, each in enumerate(of_students)),
    ]
    table = "".join(f"| {what} | {score} |\n" for what, score in rows)
    return head + table + _gains(students, of_students) + _of_pairs(students, teacher.path.parent)


def _gains(students: Sequence[pa.OpenRun], compared: Sequence[Comparison]) -> str:
    """What levelling brought, beside the controls, and how much of the way to the teacher that is."""
    gains = [each.gain.score for each in compared]
    closed = mean(each.gain.score / (each.teacher.score - each.before.score) for each in compared)
    lines = [f"The student gained {_over_seeds(gains)} points, {100 * closed:.0f} % of its distance to the teacher."]
    found = read_record(students[0].path / CONTROLS, Controls)
    for control in found.controls if found else ():
        if control.mean and control.run_ahead:
            ahead = _said(control.run_ahead)
            lines.append(
                f"With seed 0 the control *{control.name}* scores {_said(control.mean)}; the run is ahead by {ahead}."
            )
    return "\n" + "\n".join(lines) + "\n"


def _of_pairs(students: Sequence[pa.OpenRun], folder: Path) -> str:
    """How right the teacher's answers were, by the labels that no run has read."""
    labels = _labels(folder / "easy-vqa")
    gaps = students[0].gaps
    right, right_gaps = (sum(_is_label(pair, labels) for pair in pairs) for pairs in (students[0].pairs, gaps))
    return (
        f"\nOf the teacher's answers about the pool {right:,} of {len(students[0].pairs):,} are the label, of those in "
        f"the {len(gaps):,} gaps {right_gaps:,}; nothing but this sentence has seen the pool's labels.\n"
    )


def _labels(data: Path) -> dict[tuple[str, str], str]:
    """The labels of the train split, by what a picture is called and the question."""
    with ZipFile(next(data.glob("*.whl"))) as files:
        asked = json.loads(files.read("easy_vqa/data/train/questions.json"))
    return {(f"{number}.png", question): answer for question, answer, number in asked}


def _is_label(pair: Pair, labels: Mapping[tuple[str, str], str]) -> bool:
    return labels.get((Path(pair.image).name, pair.question)) == pair.answer.casefold()


def _compared(run: pa.OpenRun) -> Comparison:
    if run.scores is None:
        raise WorkFailed(f"{run.path} has no scores")
    return run.scores.tasks[TASK]


def _said(estimate: Estimate) -> str:
    low, high = estimate.ci or (estimate.score, estimate.score)
    return f"{estimate.score:.1f} [{low:.1f}, {high:.1f}]"


def _over_seeds(points: Sequence[float]) -> str:
    told = f"{mean(points):+.1f}"
    if len(points) > 1 and (spread := stdev(points)):
        low, high = t.interval(0.95, len(points) - 1, loc=mean(points), scale=spread / len(points) ** 0.5)
        told += f" [{low:+.1f}, {high:+.1f}]"
    return told


def main() -> None:
    """Does what is missing and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
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
