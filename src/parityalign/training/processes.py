"""Starts the processes that train one student, hands on what the first one tells, and ends all with any of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from parityalign.core import (
    LevelResult,
    PictureRoom,
    Post,
    Progress,
    Says,
    UserError,
    Worker,
    WorkerEnded,
    WorkFailed,
    keeping_pictures,
    room_for_pictures,
    waiting,
)
from parityalign.training.oom import RanOut
from parityalign.training.ranks import Ranks

RankWork = Callable[[Ranks, Progress], LevelResult | None]
"""What each process does, picklable; the first one's result counts."""
_LATER = 5.0
"""Seconds in which the cause of trouble may show that came as an error of the network."""


class _Call(NamedTuple):
    """What the first rank tells: a method of the progress here, or the progress itself."""

    name: str
    arguments: tuple[object, ...]


class _Finished(NamedTuple):
    """A rank is done."""

    result: LevelResult | None


class _Rank(NamedTuple):
    """How one process works."""

    work: RankWork
    rank: int
    size: int
    meeting: str
    shares_gpus: bool
    pictures: tuple[Path, int] | None


def in_processes(work: RankWork, environments: Sequence[Mapping[str, str]], progress: Progress) -> LevelResult:
    """The result of the first of several processes, one for each environment.

    Args:
        work: Done in each.
        environments: Of each, the variables that tell it where to work.
        progress: Told what the first one tells.

    Raises:
        WorkFailed: One ended; all have ended then.
        UserError: What one of them raised.
        RanOut: Memory ran out in one, and all have to begin anew.
    """
    size, gpus = len(environments), {each.get("CUDA_VISIBLE_DEVICES") for each in environments}
    room = room_for_pictures()
    pictures = (room.folder, room.most) if room else None
    with TemporaryDirectory() as folder:
        meeting, shares = str(Path(folder) / "meeting"), len(gpus) < size
        workers: list[Worker] = []
        try:
            for rank, environment in enumerate(environments):
                each = _Rank(work, rank, size, meeting, shares, pictures)
                workers.append(Worker(partial(_work, each), environment))
            return _result(workers, progress)
        except WorkerEnded as problem:
            raise WorkFailed(
                f"levelling in {size} processes stopped: {problem}\nThe last checkpoint is kept, and the same command "
                "goes on from it, with any number of processes. If the system ended it (signal 9), memory is short: "
                "fewer level.processes, or a smaller level.micro_batch_size."
            ) from problem
        finally:
            for worker in workers:
                worker.stop()


def _result(workers: Sequence[Worker], progress: Progress) -> LevelResult:
    left, result = list(workers), None
    while left:
        for worker in waiting(left):
            try:
                message = worker.receive()
            except (UserError, WorkerEnded, RanOut):
                raise
            except Exception as problem:
                left.remove(worker)
                raise _cause(left, problem) from problem
            if isinstance(message, _Finished):
                left.remove(worker)
                result = message.result or result
            elif isinstance(message, _Call):
                _call(progress, message)
    if result is None:
        raise ValueError("no rank has a result")
    return result


def _cause(others: Sequence[Worker], problem: Exception) -> Exception:
    """Why a rank met an error: mostly another one is gone, and all it could see was a connection that broke."""
    left = list(others)
    while ready := waiting(left, _LATER):
        for worker in ready:
            try:
                worker.receive()
            except (UserError, WorkerEnded, RanOut) as cause:
                return cause
            except Exception:  # noqa: BLE001 - another one that saw a connection break
                left.remove(worker)
    return problem


def _call(progress: Progress, call: _Call) -> None:
    """Tells whoever watches, if they take it."""
    told: Any = getattr(progress, call.name, None) if call.name else progress
    if told:
        told(*call.arguments)


class _Told:
    """The progress of the first rank: everything goes to the process that started it."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def __call__(self, step: str, done: int, total: int) -> None:
        self._post.send(_Call("", (step, done, total)))

    def say(self, text: str) -> None:
        self._post.send(_Call("say", (text,)))

    def confirm(self, _question: str) -> bool:
        return True

    def detail(self, step: str, text: str) -> None:
        self._post.send(_Call("detail", (step, text)))

    def measured(self, what: str, step: int, value: float) -> None:
        self._post.send(_Call("measured", (what, step, value)))


def _silent(_step: str, _done: int, _total: int) -> None:
    """The progress of all other ranks."""


def _work(each: _Rank, post: Post) -> None:
    """What a process does; the work of a `core.Worker`."""
    progress: Progress = _silent if each.rank else _Told(post)
    say = progress.say if isinstance(progress, Says) else lambda text: None
    ranks = Ranks(each.rank, each.size)
    ranks.join(each.meeting, shares_gpus=each.shares_gpus)
    with keeping_pictures(PictureRoom(*each.pictures, say, each.size) if each.pictures else None):
        post.send(_Finished(each.work(ranks, progress)))
