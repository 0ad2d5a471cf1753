"""A model behind an OpenAI-compatible server: `http://HOST:PORT/v1#NAME`, as teacher or student, never trained.

The key comes from an environment variable and goes into one header. What was asked and what it took stands in the
run's ledger (`_ledger.py`); how a question gets its answer, in `_asking.py`.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from parityalign.config import ServerSettings
from parityalign.core import Decoding, Request, UserError, WorkFailed, content_id
from parityalign.data import Unfit, image_id, read_bytes
from parityalign.models.backends._asking import Line, Question, opened, rest
from parityalign.models.backends._images import data_url
from parityalign.models.backends._ledger import Budget, Exchange, Ledger, Usage, in_words
from parityalign.models.backends._probe import DECODING, QUESTION, require_sight
from parityalign.models.backends._wire import Said, body

PLACEHOLDERS = frozenset(
    "<image> <img> </img> <|image|> <|image_pad|> <|vision_start|> <|vision_end|> <|im_start|> <|im_end|> "
    "<IMG_CONTEXT> <image_soft_token> <start_of_image> <end_of_image> [IMG] [IMG_END] <|endoftext|> </s>".split()
)
"""Special tokens of the usual families. Which ones a served model has, its server does not tell."""
PROBE = "probe"
"""Key under which the questions are noted that find out whether a server sees pictures."""
_SECONDS_BETWEEN_WRITES = 0.2


def load(location: str, _loading: object = None) -> "HTTPModel":
    """The model at `URL#NAME`, asked with the default settings and remembered by nobody; its server loads it.

    Raises:
        UserError: No name is given and the server has not exactly one model, or cannot be reached.
    """
    return Servers(ServerSettings(), None).model(location)


class Servers:
    """The models that one run asks through servers, with the ledger that they share."""

    def __init__(self, settings: ServerSettings, folder: Path | None) -> None:
        """Reads the ledger in the folder; None: there is none to keep."""
        self._settings = settings
        self._ledger = Ledger(folder)
        self._models: dict[str, HTTPModel] = {}

    def model(self, location: str, stage: str = "") -> "HTTPModel":
        """The model at `URL#NAME`, which notes its exchanges under the stage; one and the same all through the run.

        Without a name it is the one that the run has asked before, or else the only one that the server has.
        """
        if location not in self._models:
            url, _, name = location.partition("#")
            url = url.rstrip("/")
            name = name or self._known_name(url) or _only_model(url, self._settings)
            self._models[location] = HTTPModel(url, name, self._settings, self._ledger)
        self._models[location].stage = stage
        return self._models[location]

    def facts(self, stage: str) -> dict[str, object]:
        """For the manifest: what each model was asked in a stage, all resumes and parts together; empty if nothing."""
        found, refused = self._ledger.of_stage(stage)
        notes = [in_words(name, usage, self._settings, refused[name]) for name, usage in found.items()]
        usages = {name: usage.as_counts() for name, usage in found.items()}
        return {"servers": usages, "note": "\n".join(notes)} if found else {}

    def _known_name(self, url: str) -> str | None:
        names = self._ledger.names_at(url)
        return names[0] if len(names) == 1 else None


class HTTPModel:
    """A `seams.Model` behind a server.

    Attributes:
        stage: What its exchanges are noted under.
        refused: Optional fields of a request that the server does not take.
    """

    special_tokens = PLACEHOLDERS

    def __init__(self, url: str, served_name: str, settings: ServerSettings, ledger: Ledger) -> None:
        """A model that is not asked before `generate`."""
        self.stage = ""
        self._url = url
        self._served_name = served_name
        self._settings = settings
        self._ledger = ledger
        self.refused: set[str] = set()  # anew in each process: the server may have been mended
        self._unwanted = frozenset() if settings.logprobs else frozenset({"logprobs"})
        self._sees = False
        self._recent: dict[str, str] = {}

    @property
    def name(self) -> str:
        """`URL#NAME`."""
        return f"{self._url}#{self._served_name}"

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order; what the ledger holds is not asked again.

        Raises:
            WorkFailed: The server does not answer as it should, or the budget is used up; answers so far are kept.
        """
        keys = [self._key(request, decoding) for request in requests]
        texts = {key: self._ledger.text(key) for key in keys}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if texts[key] is None}
        if missing:
            asyncio.run(self._complete(missing, decoding))
        return [self._ledger.text(key) or "" for key in keys]

    def _key(self, request: Request, decoding: Decoding) -> str:
        with _readable(request.image):
            image = image_id(read_bytes(Path(request.image)))
        drawn = f"{decoding.temperature} {request.seed}" if decoding.temperature > 0 else "greedy"
        return content_id(self.name, image, request.prompt, drawn, str(decoding.max_new_tokens))

    async def _complete(self, missing: Mapping[str, Request], decoding: Decoding) -> None:
        """Has everything answered, so far as server and budget allow, and on the disk."""
        done = asyncio.Event()
        budget = Budget(self._settings, self._ledger)
        async with opened(self._url, self._settings, budget, self.refused) as line:
            keeper = asyncio.create_task(self._keep(line, done))
            try:
                await self._look(line)
                await self._ask_all(line, missing, decoding)
            finally:
                done.set()
                await keeper
        if line.problem:
            raise line.problem

    async def _ask_all(self, line: Line, missing: Mapping[str, Request], decoding: Decoding) -> None:
        waiting = iter(missing.items())

        async def work() -> None:
            for key, request in waiting:  # one iterator for all workers, so each question is taken once
                try:
                    picture = await self._picture(request.image)
                    await self._ask(line, key, self._question(picture, request, decoding))
                except UserError as problem:
                    line.stop(problem)
                if line.problem:
                    return

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._settings.max_concurrency, len(missing))):
                workers.create_task(work())

    async def _picture(self, path: str) -> str:
        """The image as it is sent; the last few are kept, as the draws on an image come one after another."""
        picture = self._recent.pop(path, "") or await asyncio.to_thread(_data_url, path)
        self._recent[path] = picture
        while len(self._recent) > self._settings.max_concurrency:
            del self._recent[next(iter(self._recent))]
        return picture

    async def _look(self, line: Line) -> None:
        """Makes sure, once in a process, that the server sees pictures."""

        async def ask(picture: str | None) -> Said:
            request = Request("a picture drawn to test the server", QUESTION)
            return await self._ask(line, PROBE, self._question(picture, request, DECODING))

        if not self._sees:
            await require_sight(self._url, ask)
            self._sees = True

    async def _keep(self, line: Line, done: asyncio.Event) -> None:
        """Puts answers on the disk as they come: together, since a disk takes milliseconds to be sure."""
        while True:
            last = done.is_set()
            try:
                await asyncio.to_thread(self._ledger.write, self._ledger.unwritten())
            except WorkFailed as problem:
                line.stop(problem)
            if last:
                return
            await rest(done, _SECONDS_BETWEEN_WRITES)

    def _question(self, picture: str | None, request: Request, decoding: Decoding) -> Question:
        return Question(
            request.image,
            lambda refused: body(
                self._served_name,
                picture,
                request.prompt,
                decoding,
                seed=request.seed,
                without=refused | self._unwanted,
            ),
            decoding,
        )

    async def _ask(self, line: Line, key: str, question: Question) -> Said:
        """Asks one question and notes what came of it, also where nothing did."""
        taken, began = Usage(), time.monotonic()
        said: Said | None = None
        try:
            said = await line.ask(question, taken)
            return said
        finally:
            if taken.requests:
                seconds = round(time.monotonic() - began, 3)
                noted = Exchange(
                    key=key,
                    stage=self.stage,
                    model=self.name,
                    requests=taken.requests,
                    seconds=seconds,
                    refused=tuple(sorted(self.refused & question.body(set()).keys())),
                )
                self._ledger.add(noted.model_copy(update=_as_noted(said)) if said else noted)


def _as_noted(said: Said) -> dict[str, object]:
    return {
        # Halves of characters, which no file can hold, become `?`.
        "text": said.text.strip().encode("utf-8", "replace").decode(),
        "finish": said.finish,
        "prompt_tokens": said.prompt_tokens or 0,
        "completion_tokens": said.completion_tokens or 0,
        "logprob": said.logprob,
    }


def _data_url(path: str) -> str:
    with _readable(path):
        return data_url(Path(path))


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {path}: {problem}") from problem


def _only_model(url: str, settings: ServerSettings) -> str:
    async def listed() -> list[str]:
        async with opened(url, settings, Budget(settings, Ledger()), set()) as line:
            return await line.models()

    names = asyncio.run(listed())
    if len(names) != 1:
        known = f"It has {len(names)}: {', '.join(names[:10])}" if names else "It lists none"
        raise UserError(f"{url} does not say by itself which model is meant. {known}. Write {url}#NAME.")
    return names[0]
