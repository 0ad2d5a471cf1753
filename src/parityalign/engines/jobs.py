"""Questions by a provider's batch interface: files of them become jobs, whose results are kept as each file arrives.

A job is noted in the answer store before it is made and until its results are kept, so that a process that comes later,
after a kill too, waits for it and submits nothing twice.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar

from parityalign.config import BatchSettings, ServerSettings
from parityalign.core import Decoding, Job, JobDesk, NoReply, Request, WorkFailed
from parityalign.engines.asking import Keep
from parityalign.engines.attempts import LONGEST_WAIT, declines_too_many, longest_backoff
from parityalign.engines.job_book import JobBook, OpenJob
from parityalign.engines.job_files import JobFiles, Written
from parityalign.engines.job_results import JobResults
from parityalign.engines.spending import Spent, room_for_jobs
from parityalign.engines.store import AnswerStore

T = TypeVar("T")
First = Callable[[Mapping[str, Request]], Awaitable[str]]
"""Asks one of the questions at once, and says which: what would be wrong with all of them shows today."""

_NO_MORE = BatchSettings(above=2**53)
"""No new jobs; those that there are are looked after."""
_AT_ONCE = 500
"""Results that are kept together."""
_TOLD_EVERY = 600.0
"""Seconds between two lines about jobs that have got further."""
_LONGEST_HOLD = 3600.0
_TO_BE_MADE = 600.0
"""Seconds that a run which shares the store may take from noting a job to making it."""
_SLOWEST = 2**17
"""Bytes a second that an upload is given time for."""


class Jobs:
    """The jobs of one call of `ask_all`; lives in one event loop."""

    def __init__(  # noqa: PLR0913 - the parts of a model behind a server
        self,
        name: str,
        desk: JobDesk,
        settings: ServerSettings,
        store: AnswerStore,
        keep: Keep,
        tell: Callable[[str], None],
    ) -> None:
        self._name, self._desk, self._settings, self._store = name, desk, settings, store
        self._hand_over, self._tell = keep, tell
        self._batch = settings.batch or _NO_MORE
        self._book: JobBook = store.jobs
        self._failures: Counter[str] = Counter()
        self._held_back_until, self._told_at = 0.0, -math.inf
        self._refusals = 0
        self._began = time.monotonic()

    async def answer(self, requests: Mapping[str, Request], decoding: Decoding, first: First) -> dict[str, Request]:
        """Has questions answered by jobs, and waits for those that are at the provider already.

        Args:
            requests: By key; the store has no answer to them.
            decoding: How tokens are picked.
            first: Called before a file is made.

        Returns:
            Those that are to be asked one by one: few, or more than the budget has room for.

        Raises:
            WorkFailed: The provider refuses, or is not waited for any longer; its jobs go on.
        """
        left, has_tried = dict(requests), False
        # Another run that shares the store may have taken the results of a job.
        while left := {key: left[key] for key in self._store.missing(left)}:
            for job in self._book.holding(self._name, left):
                for key in await self._look_after(job):
                    left.pop(key, None)
            jobs = self._book.holding(self._name, left)
            there = {key for job in jobs for key in job.questions}
            pending = {key: request for key, request in left.items() if key not in there}
            held_back = time.monotonic() < self._held_back_until
            if len(pending) > self._batch.above and not held_back:
                if not has_tried:
                    has_tried = True
                    left.pop(await first(pending))
                    continue
                if await self._submit(pending, decoding):
                    continue
            if not jobs and not held_back:
                return pending
            await self._rest(jobs)
        return {}

    # ---- what is at the provider ----

    async def _look_after(self, job: OpenJob) -> list[str]:
        """Looks how far a job is; keeps what came of it if it has ended. Returns the keys that have an answer now."""
        if not job.job:
            found = await self._sure(lambda: self._desk.find(job.file))
            if found is None and not self._book.is_own(job) and time.time() - job.made < _TO_BE_MADE:
                return []  # another run is about to make it
            if found is None:  # cut off before it was made
                self._book.drop(job)
                await self._forget(job.file)
                return []
            job = self._note(job, found)
        seen = await self._sure(lambda: self._desk.look(job.job))
        if seen is None:
            lost = Spent(requests=len(job.questions))  # it may have been charged for
            return await self._give_up(job, "the provider has no such job any more", lost)
        if seen.fault:
            return await self._refused(job, seen)
        if not seen.ended:
            if (seen.told, seen.done) != (job.told, job.done):
                self._note(job, seen)
            return []
        return await self._take(job, seen)

    def _note(self, job: OpenJob, seen: Job) -> OpenJob:
        noted = replace(job, job=seen.name, told=seen.told, done=seen.done)
        self._book.keep(noted)
        return noted

    async def _refused(self, job: OpenJob, seen: Job) -> list[str]:
        if not seen.passes:
            self._book.drop(job)
            await self._forget(job.file)
            raise WorkFailed(
                f"{self._name}: its batch interface refuses the job {seen.name}: {seen.fault}\n"
                "Answers so far are kept; fix this, or leave server.batch out, then run the same command."
            )
        why = f"the provider refuses it: {seen.fault}"
        if any(other.model == self._name and other.file != job.file for other in self._book.all()):
            await self._drop(job, why)  # jobs of ours fill its queue, which is no fault of these questions
        else:
            await self._give_up(job, why)
        self._refusals += 1
        hold = min(_LONGEST_HOLD, self._batch.poll * 2.0**self._refusals)
        self._held_back_until = time.monotonic() + hold
        return []

    async def _give_up(self, job: OpenJob, why: str, spent: Spent | None = None) -> list[str]:
        """Forgets a job of which nothing came; its questions are asked again, as often as they may be."""
        if spent:
            await asyncio.to_thread(self._hand_over, {}, spent)
        await self._drop(job, why)
        self._count_failures(job, job.questions, why)
        return []

    async def _drop(self, job: OpenJob, why: str) -> None:
        """Forgets a job of which nothing came; its questions are as often asked as before it."""
        self._book.drop(job)
        for key, before in job.questions.items():
            self._failures[key] = before
        self._tell(f"{self._name}: job {job.job}: {why}; its {len(job.questions):,} questions are asked again")
        await self._forget(job.file)

    def _count_failures(self, job: OpenJob, keys: Collection[str], why: str) -> None:
        for key in keys:
            self._failures[key] = job.questions[key] + 1
        most = self._settings.max_attempts
        if any(self._failures[key] >= most for key in keys):
            raise WorkFailed(
                f"{self._name}: {len(keys):,} questions of the job {job.job} have no answer, after {most} jobs for "
                f"some of them. The last time: {why}\nAnswers so far are kept: run the same command to ask again."
            )

    # ---- results ----

    async def _take(self, job: OpenJob, seen: Job) -> list[str]:
        """Keeps the results of a job that has ended."""
        results, self._refusals = JobResults(job, self._store.missing(job.questions), self._name), 0
        for file in seen.results:
            await self._read(file, results)
        results.close(self._settings.max_attempts)
        await self._keep(results)
        self._book.drop(job)
        self._tell(results.in_words(seen))
        await self._forget(job.file)
        self._go_on_after(job, seen, results)
        return [key for key in job.questions if key not in results.unanswered]

    def _go_on_after(self, job: OpenJob, seen: Job, results: JobResults) -> None:
        """Counts what failed; raises where it would fail again."""
        if refusal := results.refusal:
            raise WorkFailed(
                f"{self._name}: a question of the job {seen.name} gave {refusal}\n"
                f"{refusal.advice or 'Answers so far are kept; fix this, then run the same command.'}"
            )
        if declines_too_many(results.declined, results.answered):
            raise WorkFailed(
                f"{self._name} declined {results.declined:,} questions of the job {seen.name} and answered "
                f"{results.answered:,}. The last time: {results.last_declined}"
            )
        for key in results.amended:
            self._failures[key] = job.questions[key]
        self._count_failures(job, results.unanswered - results.amended, results.why(seen))

    async def _read(self, file: str, results: JobResults) -> None:
        """Reads a file of results, from its beginning again where the connection breaks."""
        for attempt in range(1, self._settings.max_attempts + 1):
            try:
                await self._read_once(file, results)
            except TimeoutError:
                problem = NoReply(f"nothing for {self._settings.timeout:g} s", again=True)
            except NoReply as broken:
                problem = broken
            else:
                return
            if not problem.again:
                results.lost = f"its file {file} cannot be read: {problem}"
                return
            await asyncio.sleep(self._pause(attempt, problem))
        await self._keep(results)
        raise WorkFailed(
            f"{self._name}: reading the results of the job {results.job.job} gave {problem}\n"
            "The rest stays there: run the same command to read it."
        )

    async def _read_once(self, file: str, results: JobResults) -> None:
        loop, seconds = asyncio.get_running_loop(), self._settings.timeout
        async with asyncio.timeout(seconds) as limit:
            async for key, outcome in self._desk.results(file, results.job.form, results.job.questions):
                limit.reschedule(loop.time() + seconds)
                results.add(key, outcome)
                if results.arrived >= _AT_ONCE:
                    await self._keep(results)

    async def _keep(self, results: JobResults) -> None:
        answers, spent = results.taken()
        if answers or spent.requests:
            await asyncio.to_thread(self._hand_over, answers, spent)

    async def _forget(self, file: str) -> None:
        """The pictures need not lie at the provider any longer; whether it deletes them is its business."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._desk.forget(file)
        except (NoReply, TimeoutError):
            pass

    # ---- new jobs ----

    async def _submit(self, pending: Mapping[str, Request], decoding: Decoding) -> bool:
        """Makes jobs of as many questions as the budget has room for; False: it has none."""
        spent = sum(self._store.spent().values(), Spent())
        spent += self._book.held(spent.longest_prompt)
        room = room_for_jobs(self._settings, spent, decoding.max_new_tokens)
        files = JobFiles(self._desk, self._batch, dict([*pending.items()][:room]), decoding)
        count = 0
        while True:
            with TemporaryFile() as file:
                written = await files.write(file)
                if not written.keys:
                    return count > 0
                await self._hand_in(file, written, decoding)
                count += 1

    async def _hand_in(self, file: BinaryIO, written: Written, decoding: Decoding) -> None:
        """Uploads a file and makes a job of it."""

        async def upload() -> str:
            file.seek(0)
            return await self._desk.upload(file)

        name = await self._sure(upload, seconds=max(self._settings.timeout, written.bytes / _SLOWEST))
        if self._book.holding(self._name, written.keys):  # another run has handed them in meanwhile
            await self._forget(name)
            return
        questions = {key: self._failures[key] for key in written.keys}
        job = OpenJob(self._name, name, questions, written.form, decoding.max_new_tokens, time.time())
        self._book.keep(job)
        tried = False

        async def submit() -> Job:
            nonlocal tried
            found = await self._desk.find(name) if tried else None  # the reply may have been lost, not the request
            tried = True
            return found or await self._desk.submit(name)

        made = self._note(job, await self._sure(submit))
        self._tell(
            f"{self._name}: {len(questions):,} questions ({written.bytes / 1e6:,.1f} MB) are at the provider as the "
            f"job {made.job}, to be answered within {self._batch.window}. Ctrl-C leaves them there"
        )

    # ---- waiting ----

    async def _rest(self, jobs: list[OpenJob]) -> None:
        limit = self._batch.wait
        if limit is not None and time.monotonic() - self._began >= limit * 3600:
            waiting = sum(len(job.questions) for job in jobs)
            raise WorkFailed(
                f"{waiting:,} questions to {self._name} wait at its provider ({jobs_in_words(jobs)}), longer than "
                f"server.batch.wait ({limit:g} hours).\nThey go on there: run the same command to take the answers."
            )
        now = time.monotonic()
        if now - self._told_at > _TOLD_EVERY:
            self._told_at = now
            self._tell(f"{self._name}: waiting for its provider: {jobs_in_words(jobs) or 'it takes no more jobs now'}")
        await asyncio.sleep(self._batch.poll)

    async def _sure(self, send: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        """Sends a request until it is answered, with the attempts and waits of other requests."""
        settings = self._settings
        for attempt in range(1, settings.max_attempts + 1):
            try:
                async with asyncio.timeout(seconds or settings.timeout):
                    return await send()
            except TimeoutError:
                problem = NoReply(f"no answer within {seconds or settings.timeout:g} s", again=True)
            except NoReply as refused:
                problem = refused
            if not problem.again or (problem.wait or 0) > LONGEST_WAIT:
                break
            if attempt < settings.max_attempts:
                await asyncio.sleep(self._pause(attempt, problem))
        raise WorkFailed(
            f"{self._name}: its batch interface gave {problem}\n{problem.advice or 'Jobs that were made go on there.'} "
            "Answers so far are kept: run the same command later, or leave server.batch out to ask one by one."
        )

    def _pause(self, attempt: int, problem: NoReply) -> float:
        return problem.wait or longest_backoff(self._settings, attempt)


def jobs_in_words(jobs: list[OpenJob]) -> str:
    """Which jobs are open, and how far they are."""
    return ", ".join(f"{job.job} {job.told}: {job.done:,} of {len(job.questions):,}" for job in jobs)
