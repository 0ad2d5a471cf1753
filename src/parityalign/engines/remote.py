"""Remote models as stages see them: many questions in flight, none asked or paid twice."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from parityalign.config import LoadingSettings, ServerSettings, backend_of, split_model
from parityalign.core import (
    Connected,
    Decoding,
    Remote,
    Request,
    Said,
    UserError,
    WorkFailed,
    content_id,
)
from parityalign.data import Unfit, image_id, read_bytes
from parityalign.engines.attempts import Attempts, rest
from parityalign.engines.ledger import Budget, Exchange, Ledger, Spent, in_words
from parityalign.engines.probe import require_sight

PROBE = "probe"
"""Ledger key of the questions that test whether a model sees pictures."""
_SECONDS_BETWEEN_WRITES = 0.2


class Remotes:
    """The remote models of one run, with their shared ledger."""

    def __init__(self, settings: ServerSettings, folder: Path | None) -> None:
        """Reads the ledger in the folder; None: the ledger is kept in memory only."""
        self._settings = settings
        self._ledger = Ledger(folder)
        self._models: dict[str, RemoteModel] = {}

    def model(self, spec: str, loading: LoadingSettings, stage: str = "") -> "RemoteModel":
        """The model of a spec, which records its exchanges under the stage; the same object throughout the run.

        Without `#NAME` in the spec, it is the model that the run has asked before, if any.

        Raises:
            UserError: It cannot be reached, or its backend is not remote.
        """
        if spec not in self._models:
            connect, (_, location) = backend_of(spec).connect, split_model(spec)
            if connect is None:
                raise UserError(f"the model {spec} runs in this process; there is nothing to connect to")
            remote = connect(self._ledger.known_as(location) or location, loading, self._settings)
            self._models[spec] = RemoteModel(remote, self._settings, self._ledger)
        self._models[spec].stage = stage
        return self._models[spec]

    def facts(self, stage: str) -> dict[str, object]:
        """For the manifest: each model's usage in a stage, over all resumes and parts; empty if there was none."""
        found, refused = self._ledger.of_stage(stage)
        notes = [in_words(name, usage, self._settings, refused[name]) for name, usage in found.items()]
        usages = {name: usage.as_counts() for name, usage in found.items()}
        return {"servers": usages, "note": "\n".join(notes)} if found else {}


class RemoteModel:
    """A `Model` made of a `Remote`.

    Attributes:
        stage: The stage in the ledger's records.
    """

    def __init__(self, remote: Remote, settings: ServerSettings, ledger: Ledger) -> None:
        """Wraps a remote model; nothing is sent before `generate`."""
        self.stage = ""
        self._remote = remote
        self._settings = settings
        self._ledger = ledger
        self._sees = False

    @property
    def name(self) -> str:
        """As of the remote model."""
        return self._remote.name

    @property
    def special_tokens(self) -> frozenset[str]:
        """As of the remote model."""
        return self._remote.special_tokens

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order; answers in the ledger are not asked for again.

        Raises:
            WorkFailed: The model does not answer properly, or the budget is used up; answers so far are kept.
        """
        keys = [self._key(request, decoding) for request in requests]
        texts = {key: self._ledger.text(key) for key in keys}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if texts[key] is None}
        if missing:
            asyncio.run(self._complete(missing, decoding))
        return [self._ledger.text(key) or "" for key in keys]

    def _key(self, request: Request, decoding: Decoding) -> str:
        try:
            image = image_id(read_bytes(Path(request.image)))
        except Unfit as problem:
            raise WorkFailed(f"cannot read the image {request.image}: {problem}") from problem
        drawn = f"{decoding.temperature} {request.seed}" if decoding.temperature > 0 else "greedy"
        return content_id(self.name, image, request.prompt, drawn, str(decoding.max_new_tokens))

    async def _complete(self, missing: Mapping[str, Request], decoding: Decoding) -> None:
        """Gets all answers, as far as server and budget allow, and writes them to disk."""
        done = asyncio.Event()
        attempts = Attempts(self._remote, self._settings, Budget(self._settings, self._ledger))
        async with self._remote.connection() if isinstance(self._remote, Connected) else nullcontext():
            keeper = asyncio.create_task(self._keep(attempts, done))
            try:
                await self._look(attempts)
                await self._ask_all(attempts, missing, decoding)
            finally:
                done.set()
                await keeper
        if attempts.problem:
            raise attempts.problem

    async def _look(self, attempts: Attempts) -> None:
        """Tests, once per process, that the model sees pictures."""
        if not self._sees:
            await require_sight(self.name, lambda request, decoding: self._ask(attempts, PROBE, request, decoding))
            self._sees = True

    async def _ask_all(self, attempts: Attempts, missing: Mapping[str, Request], decoding: Decoding) -> None:
        waiting = iter(missing.items())

        async def work() -> None:
            for key, request in waiting:  # one iterator for all workers, so each question is taken once
                try:
                    await self._ask(attempts, key, request, decoding)
                except UserError as problem:
                    attempts.stop(problem)
                if attempts.problem:
                    return

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._settings.max_concurrency, len(missing))):
                workers.create_task(work())

    async def _ask(self, attempts: Attempts, key: str, request: Request, decoding: Decoding) -> Said:
        """Asks one question and notes what came of it, also where nothing did."""
        taken, began = Spent(), time.monotonic()
        said: Said | None = None
        try:
            said = await attempts.ask(request, decoding, taken)
            return said
        finally:
            if taken.requests:
                noted = Exchange(
                    key=key,
                    stage=self.stage,
                    model=self.name,
                    requests=taken.requests,
                    seconds=round(time.monotonic() - began, 3),
                )
                self._ledger.add(noted.model_copy(update=_as_noted(said)) if said else noted)

    async def _keep(self, attempts: Attempts, done: asyncio.Event) -> None:
        """Writes answers to disk as they arrive, in groups, since syncing a file takes milliseconds."""
        while True:
            last = done.is_set()
            try:
                await asyncio.to_thread(self._ledger.write, self._ledger.unwritten())
            except WorkFailed as problem:
                attempts.stop(problem)
            if last:
                return
            await rest(done, _SECONDS_BETWEEN_WRITES)


def _as_noted(said: Said) -> dict[str, object]:
    return {
        # Lone surrogates, which cannot be written to a file, become `?`.
        "text": said.text.strip().encode("utf-8", "replace").decode(),
        "finish": said.finish,
        "prompt_tokens": said.prompt_tokens or 0,
        "completion_tokens": said.completion_tokens or 0,
        "logprob": said.logprob,
        "refused": said.left_out,
    }
