"""Reads labelled questions: the benchmark's files as released, a Hugging Face copy, or the user's own file.

test: ./TextVQA             a folder with the files as released
test: hf:lmms-lab-encoder/textvqa   a Hugging Face copy, or a local folder with its Parquet files
test: ./mine.jsonl          lines such as {"image": "a.png", "question": "Sold?", "answers": ["tea"]}
test: ./okvqa_val_combine.json   a combined file of the method's first release
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from parityalign.config import PREFIX, divided, is_table
from parityalign.core import (
    Benchmark,
    Question,
    Row,
    Task,
    UserError,
    content_id,
    files_below,
    first_few,
    folder_files,
    kept_path,
    read_lines,
    relative_path,
)
from parityalign.data.cells import bytes_in, file_in, folder_of_table, name_in, read_cell
from parityalign.data.hf_datasets import open_table
from parityalign.data.images import Unfit
from parityalign.data.mpa_release import read_combined


class Labelled(NamedTuple):
    """A question as read from its file."""

    question: Question
    picture: bytes | None = None
    """The image's bytes, if it is not a file yet."""
    fault: Unfit | None = None
    """What keeps the image from being read, where its bytes or its file cannot tell."""


def open_questions(task: Task, test: str) -> tuple[Iterable[Labelled], int | None]:
    """The questions of the split, and their number if reading takes long.

    Raises:
        UserError: There is no such split, or it holds something else.
    """
    path = Path(test.removeprefix(PREFIX))
    if test.startswith(PREFIX) or is_table(path):
        return _of_table(task, test.removeprefix(PREFIX))
    if path.suffix == ".jsonl":
        questions = [_plain(row, path.parent) for row in read_lines(path)]
    else:
        questions = _of_first_release(path) if path.suffix == ".json" else _benchmark(task, test).read_test(path)
    return map(Labelled, questions), None


def _of_table(task: Task, name: str) -> tuple[Iterable[Labelled], int | None]:
    benchmark = _benchmark(task, name)
    read = benchmark.read_row
    if read is None:
        raise UserError(
            f"the benchmark {benchmark.name} cannot read Hugging Face copies; give its files as released, not {name}"
        )
    table = open_table(name, prefer=benchmark.splits, configs=benchmark.configs)
    folder = folder_of_table(name)
    rows = (Row(f"{name}, row {place}", values, place) for place, values in enumerate(table.rows))
    return (_with_picture(read(row), row, folder) for row in rows), table.total


def _benchmark(task: Task, test: str) -> Benchmark:
    if task.benchmark is None:
        raise UserError(
            f"the test of the task {task.name} is {test}, and no benchmark says how to read it. "
            f"Set 'tasks.{task.name}.benchmark', or give questions of your own in a .jsonl file"
        )
    return task.benchmark


def _with_picture(question: Question, row: Row, folder: Path | None) -> Labelled:
    """Reads the copy's rows; a row's picture is under `image`: bytes, or a file of the data set."""
    cell = row.value("image")
    name = name_in(cell)
    try:
        if bytes_in(cell) or "://" in name:
            return Labelled(question, read_cell(cell, folder))
        file = file_in(folder, name) if folder and name else None
    except Unfit as unfit:
        return Labelled(question, fault=unfit)
    # The row's own name for the image decides the subset, so it is kept unless there is a file.
    if file and is_file(file):
        return Labelled(question.model_copy(update={"image": str(file)}))
    return Labelled(question)


def _of_first_release(path: Path) -> list[Question]:
    """Reads a combined file; it names images by base name, which are searched in and below the file's folder."""
    questions: list[Question] = []
    places: dict[str, list[Path]] = {}
    for file in files_below(path.parent):
        places.setdefault(file.name, []).append(file)
    for question in read_combined(path):
        if not question.image:
            questions.append(question)
            continue
        found = places.get(question.image, [])
        if len(found) > 1:
            raise UserError(
                f"{path}: which {question.image} is meant? There are {first_few([str(each) for each in found])}"
            )
        image = str(found[0] if found else path.parent / question.image)
        questions.append(question.model_copy(update={"image": image}))
    return questions


def _plain(row: Row, folder: Path) -> Question:
    """A line of the user's own test set; without an id it gets its position."""
    image = row.text_or_none("image")
    return Question(
        question_id=row.text("question_id") if "question_id" in row.values else str(row.place),
        image=str(folder / image) if image else "",
        question=row.text_or_empty("question"),
        answers=row.texts("answers"),
        subset=row.text("subset") if "subset" in row.values else "",
    )


def split_state(task: Task, test: str) -> str:
    """A fingerprint of the split's questions and image files, wherever they lie; for a name on the hub, of the name.

    Raises:
        UserError: The split cannot be read.
    """
    path = Path(test.removeprefix(PREFIX))
    if test.startswith(PREFIX) or is_table(path):
        place = Path(divided(test.removeprefix(PREFIX))[0])
        files = [place / each for each in folder_files(place)] if place.is_dir() else [place]
        name = "" if place.exists() else test
        return content_id(name, *(f"{relative_path(file, place)} {_file_state(file)}" for file in files))
    questions = [found.question for found in open_questions(task, test)[0]]
    images = (_file_state(Path(image)) for image in sorted({question.image for question in questions}))
    listed = (each.model_copy(update={"image": kept_path(each.image, path)}) for each in questions)
    return content_id(*(question.model_dump_json() for question in listed), *images)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for an impossible path, such as one of 5,000 characters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _file_state(path: Path) -> str:
    if not is_file(path):
        return "missing"
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
