"""Checkpoints of a training: one counts when all of it is on the disk, and is compared with its digests when used.

`complete`, written last into a checkpoint, holds the digest of each of its files. A damaged one gives way to the one
before it; which one a training goes on from changes nothing in what it ends with.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from transformers import TrainerState

from parityalign.core import file_digest, folder_files, folder_to_disk, to_disk, write_whole, writing

COMPLETE = "complete"
"""File that is written last into a checkpoint: its files' digests."""
_DIGESTS = TypeAdapter(dict[str, str])


def checkpoint(work: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return work / f"checkpoint-{step}"


def complete(folder: Path) -> None:
    """Waits until all files of a checkpoint are on the disk; from then on it counts.

    Raises:
        WorkFailed: The disk refused.
    """
    names = folder_files(folder)
    with writing(folder):
        to_disk(folder, names)
    digests = {name: file_digest(folder / name) for name in names}
    write_whole(folder / COMPLETE, _DIGESTS.dump_json(digests))
    folder_to_disk(folder.parent)


def newest_sound(work: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole and whose best one is, too; those after it are removed.

    Args:
        work: The folder of checkpoints.
        say: Told what was damaged, and where training goes on.
    """
    damaged: list[str] = []
    for folder in sorted(work.glob("checkpoint-*"), key=_step, reverse=True):
        fault = _fault(folder) or _fault_of_best(folder)
        if fault is None:
            if damaged:
                say(f"{' '.join(damaged)} Training goes on from step {_step(folder)}.")
            return folder
        if (folder / COMPLETE).exists():  # else a kill came while it was written
            damaged.append(f"The checkpoint of step {_step(folder)} cannot be used: {fault}.")
        shutil.rmtree(folder)
    if damaged:
        say(f"{' '.join(damaged)} Training starts again from the beginning.")
    return None


def state_of(folder: Path) -> TrainerState:
    """The state of the trainer in a checkpoint."""
    state: TrainerState = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    return state


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if its files are those that were written."""
    if not (folder / COMPLETE).exists():
        return "it was not written to its end"
    try:
        digests = _DIGESTS.validate_json((folder / COMPLETE).read_bytes())
        wrong = next((name for name in digests if file_digest(folder / name) != digests[name]), None)
    except ValidationError:
        wrong = COMPLETE
    except OSError as problem:
        return f"{problem.filename}: {problem.strerror}"
    return f"its file {wrong} is damaged" if wrong else None


def _fault_of_best(folder: Path) -> str | None:
    """What is wrong with the best checkpoint up to a sound one, whose weights may become the student's."""
    best = state_of(folder).best_global_step
    if not best or best == _step(folder):
        return None
    fault = _fault(checkpoint(folder.parent, best))
    return fault and f"the best one before it, of step {best}, has a fault: {fault}"
