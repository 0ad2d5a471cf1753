"""The protocol of a provider's batch interface: a file of questions is a job, which is answered some time later."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

from parityalign.core.interfaces import Decoding, Request
from parityalign.core.remote import NoReply, Said


class JobForm(NamedTuple):
    """Which fields the questions of a job have, by which its results are read."""

    sent: tuple[str, ...]
    left_out: tuple[str, ...]
    """As in `Said`."""


class JobLine(NamedTuple):
    """One question as a line of a file."""

    content: bytes
    form: JobForm


@dataclass(frozen=True)
class Job:
    """A job as its provider describes it."""

    name: str
    """The provider's name of it, by which it is found again."""
    told: str
    """How far it is, in the provider's words: `in_progress`, `completed`, `expired` ..."""
    ended: bool = False
    """Whether nothing more comes."""
    done: int = 0
    """Questions with a result, failed ones included, as far as that is told."""
    results: tuple[str, ...] = ()
    """The files with what came of the questions, each of which is in one of them, or in none."""
    fault: str = ""
    """Why the provider refuses the job as a whole, in its words."""
    passes: bool = False
    """Whether it may take the same job later."""


class JobDesk(Protocol):
    """A provider's batch interface for one model; each method sends one request, and none is repeated here.

    All of them raise `NoReply` if there was none.
    """

    async def line(self, key: str, request: Request, decoding: Decoding) -> JobLine:
        """A question as it is written into a file.

        Args:
            key: By which its result will be known.
            request: What is asked.
            decoding: How tokens are picked.
        """

    async def upload(self, file: BinaryIO) -> str:
        """Sends a file of lines; returns the provider's name of it."""

    async def submit(self, file: str) -> Job:
        """Makes a job of a file that was uploaded."""

    async def find(self, file: str) -> Job | None:
        """The job that was made of a file; None if there is none."""

    async def look(self, job: str) -> Job | None:
        """How far a job is; None if the provider has no such job any more."""

    def results(self, file: str, form: JobForm, keys: Collection[str]) -> AsyncIterator[tuple[str, Said | NoReply]]:
        """What came of questions, in any order, as far as the file has them: replies, or why there is none.

        Args:
            file: One of `Job.results`.
            form: Of the job's questions.
            keys: Of the job's questions; what else the file has is left out.
        """

    async def forget(self, file: str) -> None:
        """Has a file deleted that was uploaded."""


@runtime_checkable
class TakesJobs(Protocol):
    """What a `Remote` may also have: a batch interface."""

    @property
    def desk(self) -> JobDesk:
        """The batch interface; it works while the connections of the `Remote` are open."""
