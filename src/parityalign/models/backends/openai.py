"""A model behind an OpenAI-compatible server: `http://HOST:PORT/v1#NAME`, as teacher or student, never trained.

The key comes from an environment variable and goes into one header. Requests and replies are in `_wire.py`; attempts,
ledger and budget are those of every remote model (`engines`).
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
"""Special tokens of the usual families, since a server does not report those of its model."""
_MENDABLE = (400, 422)
"""Statuses with which servers refuse an unknown field."""


def connect(location: str, _loading: LoadingSettings, server: ServerSettings) -> "OpenAIModel":
    """The model at `URL#NAME`, loaded by its server. Without a name, the server's only model.

    Raises:
        UserError: No name is given and the server does not have exactly one model, or cannot be reached; or the key in
            the environment is not a valid key.
    """
    url, _, name = location.partition("#")
    model = OpenAIModel(url.rstrip("/"), name, server)
    if not name:
        model.served_name = asyncio.run(model.only_name())
    return model


class OpenAIModel:
    """A `Remote` behind a server.

    Attributes:
        served_name: Its name on the server.
        refused: Optional fields of a request that the server refuses; detected again in each process, as the server
            may have been updated.
    """

    special_tokens = PLACEHOLDERS

    def __init__(self, url: str, served_name: str, server: ServerSettings) -> None:
        """Takes the model's place and settings; sends nothing."""
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
            UserError: The key in the environment is not a valid key.
        """
        key, many = _key(self._server), self._server.max_concurrency
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=many, max_keepalive_connections=many),
            verify=self._url.startswith("https:"),  # else loading the system's certificates wastes time
            timeout=None,  # `engines` is stricter: it also stops a server that sends a byte now and then
        ) as self._client:
            yield

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request.

        Raises:
            NoReply: There was no reply. An optional field that the server refused by name is left out next time.
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
        """The name of the server's only model.

        Raises:
            UserError: There are none or several, or the server does not list them.
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
            raise UserError(f"{self._url} does not have exactly one model. {known}. Write {self._url}#NAME.")
        return names[0]

    async def _sent(self, method: str, path: str, content: object = None) -> httpx2.Response:
        try:
            return await self._client.request(method, f"{self._url}/{path}", json=content)
        except (httpx2.TransportError, httpx2.DecodingError) as problem:
            told = str(problem) or "the connection broke"
            key = _key(self._server)  # libraries may repeat it in their messages
            told = told.replace(key, "[key]") if key else told
            raise NoReply(f"{type(problem).__name__}: {told}", again=True) from None

    async def _picture(self, path: str) -> str:
        """The image as it is sent; the last few are cached, as the draws on an image follow one another."""
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
