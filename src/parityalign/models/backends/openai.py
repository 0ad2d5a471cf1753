"""A model behind an OpenAI-compatible server: `http://HOST:PORT/v1#NAME`, as teacher or student, never trained.

The key comes from an environment variable and goes into one header. What travels is in `_wire.py`; attempts, ledger
and budget are those of every remote model (`engines`).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from parityalign.config import Backend, LoadingSettings, ServerSettings
from parityalign.core import Decoding, NoReply, Request, Said, UserError, WorkFailed
from parityalign.data import Unfit
from parityalign.models.backends._images import data_url
from parityalign.models.backends._wire import REFUSABLE, body, excerpt, read_models, read_reply, refuse_failure

PLACEHOLDERS = frozenset(
    "<image> <img> </img> <|image|> <|image_pad|> <|vision_start|> <|vision_end|> <|im_start|> <|im_end|> "
    "<IMG_CONTEXT> <image_soft_token> <start_of_image> <end_of_image> [IMG] [IMG_END] <|endoftext|> </s>".split()
)
"""Special tokens of the usual families. Which ones a served model has, its server does not tell."""
_MENDABLE = (400, 422)
"""What a server says to a field that it does not take."""


def connect(location: str, _loading: LoadingSettings, server: ServerSettings) -> "OpenAIModel":
    """The model at `URL#NAME`; its server loads it. Without a name it is the only one that the server has.

    Raises:
        UserError: No name is given and the server has not exactly one model, or cannot be reached; or the key in the
            environment cannot be one.
    """
    url, _, name = location.partition("#")
    model = OpenAIModel(url.rstrip("/"), name, server)
    if not name:
        model.served_name = asyncio.run(model.only_name())
    return model


class OpenAIModel:
    """A `Remote` behind a server.

    Attributes:
        served_name: What the server calls it.
        refused: Optional fields of a request that the server does not take; found out anew in each process, as the
            server may have been mended.
    """

    special_tokens = PLACEHOLDERS

    def __init__(self, url: str, served_name: str, server: ServerSettings) -> None:
        """A model that is not asked yet."""
        self.served_name = served_name
        self.refused: set[str] = set()
        self._url = url
        self._server = server
        self._unwanted = frozenset() if server.logprobs else frozenset({"logprobs"})
        self._recent: dict[str, str] = {}

    @property
    def name(self) -> str:
        """`URL#NAME`."""
        return f"{self._url}#{self.served_name}"

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """Connections to the server, closed at the end of the `with`.

        Raises:
            UserError: The key in the environment cannot be one.
        """
        key, many = _key(self._server), self._server.max_concurrency
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=many, max_keepalive_connections=many),
            verify=self._url.startswith("https:"),  # else reading the system's certificates is time for nothing
            timeout=None,  # `engines` is stricter: a server that sends a byte now and then is cut off too
        ) as self._client:
            yield

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request.

        Raises:
            NoReply: There was no reply; where the server refuses an optional field by name, it is left out next time.
            WorkFailed: The image cannot be read.
        """
        picture = await self._picture(request.image) if request.image else None
        full = body(self.served_name, picture, request, decoding, without=self._unwanted)
        sent = body(self.served_name, picture, request, decoding, without=self._unwanted | self.refused)
        response = await self._sent("POST", "chat/completions", sent)
        told = excerpt(response) if response.status_code in _MENDABLE else ""
        if named := {field for field in REFUSABLE if field in sent and field in told}:
            self.refused |= named
            raise NoReply("a refusal of a field", again=True, amended=True)
        refuse_failure(response, self._server.key_variable)
        return read_reply(response, left_out=tuple(sorted(self.refused & full.keys())))

    async def only_name(self) -> str:
        """The name of the only model that the server has.

        Raises:
            UserError: There are more or none, or the server does not tell.
        """
        try:
            async with asyncio.timeout(self._server.timeout), self.connection():
                response = await self._sent("GET", "models")
            refuse_failure(response, self._server.key_variable)
            names = read_models(response)
        except TimeoutError:
            raise WorkFailed(f"{self._url}: no list of models within {self._server.timeout:g} s") from None
        except NoReply as problem:
            raise WorkFailed(f"{self._url}: its list of models brought {problem}\n{problem.advice}") from None
        if len(names) != 1:
            known = f"It has {len(names)}: {', '.join(names[:10])}" if names else "It lists none"
            raise UserError(
                f"{self._url} does not say by itself which model is meant. {known}. Write {self._url}#NAME."
            )
        return names[0]

    async def _sent(self, method: str, path: str, content: object = None) -> httpx2.Response:
        try:
            return await self._client.request(method, f"{self._url}/{path}", json=content)
        except (httpx2.TransportError, httpx2.DecodingError) as problem:
            told = str(problem) or "the connection broke"
            key = _key(self._server)  # which libraries may repeat
            told = told.replace(key, "[key]") if key else told
            raise NoReply(f"{type(problem).__name__}: {told}", again=True) from None

    async def _picture(self, path: str) -> str:
        """The image as it is sent; the last few are kept, as the draws on an image come one after another."""
        picture = self._recent.pop(path, "") or await asyncio.to_thread(_data_url, path)
        self._recent[path] = picture
        while len(self._recent) > self._server.max_concurrency:
            del self._recent[next(iter(self._recent))]
        return picture


BACKEND = Backend(connect=connect)


def _data_url(path: str) -> str:
    try:
        return data_url(Path(path))
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {path}: {problem}") from problem


def _key(server: ServerSettings) -> str:
    key = os.environ.get(server.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {server.key_variable} holds characters that no key has")
    return key
