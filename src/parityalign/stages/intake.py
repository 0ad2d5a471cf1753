"""Intake guards the door: every file of the image folders is looked at once, and what is unfit is set aside.

Nothing that comes later has to fear a broken file, and pictures of a test split never enter a pool.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from parityalign.errors import UserError
from parityalign.records import ImageRef, Question, Rejected, content_id
from parityalign.seams import Progress
from parityalign.stages._pictures import Unfit, image_id, inspect, shown
from parityalign.store import Artefact

ACCEPTED = "accepted.jsonl"
QUARANTINE = "quarantine.jsonl"

_CHUNK = 256
"""Files between two writes."""


def intake(
    artefact: Artefact,
    pools: Mapping[str, Path],
    tests: Mapping[str, Sequence[Question]],
    *,
    progress: Progress,
) -> None:
    """Sorts the files of each task's folder into accepted images and quarantine.

    Args:
        artefact: Where `accepted.jsonl` and `quarantine.jsonl` go.
        pools: The folder of unlabelled images of each task.
        tests: The test splits; their images are kept out of every pool.
        progress: Told of every chunk of files.

    Raises:
        UserError: A folder is missing or holds no usable image.
    """
    if artefact.finished:
        return
    for task, folder in pools.items():
        if not folder.is_dir():
            raise UserError(f"the image folder of the task {task} is {folder}, which is no folder; name another")
    tested = {image_id(Path(path).read_bytes()) for path in _images_of(tests)}
    for task, folder in pools.items():
        _sort_out(artefact, task, folder, tested, progress)
    _finish(artefact, pools)


def accepted(artefact: Artefact) -> list[ImageRef]:
    """The images that passed, by task and then by path."""
    return list(artefact.stream(ACCEPTED, ImageRef))


def listing_digest(folders: Sequence[Path]) -> str:
    """Changes when a file below the folders comes, goes or is written; opens no file."""
    parts = []
    for folder in folders:
        for path in _files_below(folder):
            status = path.lstat()
            parts += [shown(path), str(status.st_size), str(status.st_mtime_ns)]
    return content_id(*parts)


def _images_of(tests: Mapping[str, Sequence[Question]]) -> set[str]:
    return {question.image for questions in tests.values() for question in questions}


def _sort_out(artefact: Artefact, task: str, folder: Path, tested: set[str], progress: Progress) -> None:
    good = artefact.stream(ACCEPTED, ImageRef)
    bad = artefact.stream(QUARANTINE, Rejected)
    kept = {image.image_id: image.path for image in good if image.task == task}
    known = {*kept.values(), *(image.path for image in bad if image.task == task)}
    paths = _files_below(folder)
    for start in range(0, len(paths), _CHUNK):
        chunk = [path for path in paths[start : start + _CHUNK] if shown(path) not in known]
        sorted_out = [_sort_one(path, folder, task, kept, tested) for path in chunk]
        good.append([record for record in sorted_out if isinstance(record, ImageRef)])
        bad.append([record for record in sorted_out if isinstance(record, Rejected)])
        progress(f"intake {task}", min(start + _CHUNK, len(paths)), len(paths))


def _sort_one(path: Path, folder: Path, task: str, kept: dict[str, str], tested: set[str]) -> ImageRef | Rejected:
    """Lets one file in and notes it in `kept`, or says why not."""
    try:
        identity = inspect(path, folder)
        if identity in tested:
            raise Unfit("in_test_split")
        if identity in kept:
            raise Unfit("duplicate", f"same bytes as {kept[identity]}")
    except Unfit as unfit:
        return Rejected(path=shown(path), task=task, reason=unfit.reason, detail=unfit.detail)
    kept[identity] = str(path)
    return ImageRef(image_id=identity, path=str(path), task=task)


def _files_below(folder: Path) -> list[Path]:
    """Everything below a folder that is no folder, sorted; links to folders are listed but not entered."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [Path(parent, name) for name in (*files, *links)]
    return sorted(found)


def _refuse_folder(problem: OSError) -> None:
    raise UserError(f"cannot read the folder {problem.filename}: {problem.strerror}") from problem


def _finish(artefact: Artefact, pools: Mapping[str, Path]) -> None:
    outcomes = {task: Counter[str]() for task in pools}
    for image in artefact.stream(ACCEPTED, ImageRef):
        outcomes[image.task]["accepted"] += 1
    for rejected in artefact.stream(QUARANTINE, Rejected):
        outcomes[rejected.task][rejected.reason] += 1
    unusable = [
        f"{folder} (task {task}): {_in_words(outcomes[task])}"
        for task, folder in pools.items()
        if not outcomes[task]["accepted"]
    ]
    if unusable:
        listed = "\n  ".join(unusable)
        raise UserError(f"no usable image in\n  {listed}\nName a folder that holds pictures.")
    total = sum(outcomes.values(), Counter[str]())
    artefact.finish(total, by_task={task: dict(counts) for task, counts in outcomes.items()})


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no file"
