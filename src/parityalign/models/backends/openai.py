"""A model behind an OpenAI-compatible server: `http://HOST:PORT/v1#NAME`, as teacher or student, never trained.

The key comes from an environment variable and goes into one header. Requests and replies are in `_wire.py`; attempts,
answer store and budget are those of every remote model (`engines`).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx2

from parityalign.config import Backend, LoadingSettings, ServerSettings
from parityalign.core import Decoding, NoReply, Request, Said, UserError, WorkFailed, completed, missing_package
from parityalign.data import Unfit
from parityalign.models.backends._failures import refuse_failure, refused_fields
from parityalign.models.backends._images import data_url
from parityalign.models.backends._jobs import OpenAIDesk
from parityalign.models.backends._received import Received, receive, receive_lines, short_line, without_key
from parityalign.models.backends._wire import body, is_out_of_room, read_models, read_reply

PLACEHOLDERS = frozenset(
    "<image> <img> </img> <|image|> <|image_pad|> <|vision_start|> <|vision_end|> <|im_start|> <|im_end|> "
    "<IMG_CONTEXT> <image_soft_token> <start_of_image> <end_of_image> [IMG] [IMG_END] <|endoftext|> </s>".split()
)
"""Special tokens of the usual families, since a server does not report those of its model."""
_FILE = "questions.jsonl"
_SHOWN = 300
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def connect(location: str, loading: LoadingSettings, server: ServerSettings) -> "OpenAIModel":
    """The model at `URL#NAME`, loaded by its server. Without a name, the server's only model.

    Raises:
        UserError: No name is given and the server does not have exactly one model, or cannot be reached; or the key in
            the environment is not a valid key.
    """
    url, _, name = location.partition("#")
    model = OpenAIModel(url.rstrip("/"), name, server, loading.max_pixels)
    if not name:
        model.served_name = completed(model.only_name)
    return model


class OpenAIModel:
    """A `Remote` behind a server.

    Attributes:
        served_name: Its name on the server.
        refused: Fields of a request that the server refuses; detected again in each process, as the server may have
            been updated.
    """

    special_tokens = PLACEHOLDERS

    def __init__(self, url: str, served_name: str, server: ServerSettings, max_pixels: int | None = None) -> None:
        """Takes the model's place and settings, and the most pixels of a picture; sends nothing."""
        self.served_name = served_name
        self.refused: set[str] = set()
        self._url = url
        self._server = server
        self._max_pixels = max_pixels
        self._proven = False  # by a first answer: then the address and the key are right
        self._recent: dict[str, str] = {}
        self._client: httpx2.AsyncClient | None = None

    @property
    def name(self) -> str:
        """`URL#NAME`."""
        return f"{self._url}#{self.served_name}"

    def move(self, url: str, served_name: str) -> None:
        """Asks the same model elsewhere from now on: its server was started anew."""
        self._url, self.served_name = url, served_name

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """Connections to the server, closed at the end of the `with`.

        Raises:
            UserError: The key in the environment is not a valid key, or a proxy or certificates there cannot be used.
        """
        before = self._client
        async with _client(self._url, _key(self._server), self._server.requests) as self._client:
            try:
                yield
            finally:
                self._client = before

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request.

        Raises:
            NoReply: There was no reply. A field that the server refused by name is left out next time.
            UserError: The address cannot be used.
            WorkFailed: The image cannot be read.
        """
        sent, left_out = await self.written(request, decoding)
        received = await self.send("POST", "chat/completions", sent)
        said = self.read(received, sent, left_out, proven=self._proven)
        self._proven = True
        return said

    async def written(self, request: Request, decoding: Decoding) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A request's JSON, and which of its fields are left out, as the server refuses them.

        Raises:
            WorkFailed: The image cannot be read.
        """
        picture = await self._picture(request.image) if request.image else None
        full = body(self.served_name, picture, request, decoding, server=self._server)
        sent = body(self.served_name, picture, request, decoding, server=self._server, without=self.refused)
        return sent, tuple(sorted(self.refused & full.keys()))

    def read(self, received: Received, sent: Collection[str], left_out: tuple[str, ...], *, proven: bool) -> Said:
        """The reply in a response.

        Args:
            received: The response.
            sent: The fields of its request.
            left_out: Those that it lacked.
            proven: Whether the server has answered one: then address and key are right.

        Raises:
            NoReply: There is none. A field that the server refuses by name is left out next time.
        """
        if not is_out_of_room(received):
            self._amend(received, sent)
            refuse_failure(received, self._server.key_variable, proven=proven)
        said = read_reply(received, left_out=left_out, proven=proven)
        return replace(said, text=without_key(said.text, _key(self._server)))  # its parts may make it up

    @property
    def desk(self) -> OpenAIDesk:
        """The batch interface of its server (`TakesJobs`)."""
        return OpenAIDesk(self, self._server)

    def _amend(self, received: Received, sent: Collection[str]) -> None:
        if named := refused_fields(received, sent, self.served_name):
            self.refused |= named
            raise NoReply("a refusal of a field", again=True, amended=True)

    async def only_name(self) -> str:
        """The name of the server's only model.

        Raises:
            UserError: There are none or several, or the server does not list them.
        """
        try:
            async with asyncio.timeout(self._server.timeout), self.connection():
                received = await self.send("GET", "models")
            refuse_failure(received, self._server.key_variable, proven=False)
            names = read_models(received)
        except TimeoutError:
            raise WorkFailed(f"{self._url}: no list of models within {self._server.timeout:g} s") from None
        except NoReply as problem:
            raise WorkFailed(f"{self._url}: reading its list of models failed: {problem}\n{problem.advice}") from None
        if len(names) != 1 or not names[0]:
            known = f"It has {len(names)}: {', '.join(names[:10])}" if names else "It lists none"
            raise UserError(f"{self._url} does not have exactly one model. {known}. Write {self._url}#NAME.")
        return names[0]

    async def send(self, method: str, path: str, content: object = None, *, file: BinaryIO | None = None) -> Received:
        """Sends a request and reads the response.

        Args:
            method: Of HTTP.
            path: Behind the server's address.
            content: Sent as JSON.
            file: Sent as a form's file, to be a job.

        Raises:
            NoReply: There was none.
            UserError: The address cannot be used.
        """
        form = {"data": {"purpose": "batch"}, "files": {"file": (_FILE, file, "application/jsonl")}} if file else {}
        async with self._responding(method, path, json=content, **form) as response:
            return await receive(response, _key(self._server))

    async def lines(self, path: str, most: int) -> AsyncIterator[str]:
        """The lines of a file of the server's, as they come; of what is no file, the error.

        Raises:
            NoReply: There is no such file, or the connection broke.
        """
        # Some providers keep their files elsewhere; the key does not go there.
        async with self._responding("GET", path, follow_redirects=True) as response:
            if not response.is_success:
                received = await receive(response, _key(self._server))
                refuse_failure(received, self._server.key_variable, proven=True)
            async for line in receive_lines(response, _key(self._server), most):
                yield line

    @asynccontextmanager
    async def _responding(self, method: str, path: str, **sent: Any) -> AsyncIterator[httpx2.Response]:  # noqa: ANN401
        key = _key(self._server)
        if self._client is None:
            raise ValueError(f"{self.name} is asked without a connection")
        try:
            async with self._client.stream(method, f"{self._url}/{path}", **sent) as response:
                yield response
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.TooManyRedirects) as problem:
            # Libraries repeat in their messages what they could not read.
            told = short_line(without_key(str(problem), key), _SHOWN) or "the connection broke"
            raise NoReply(f"{type(problem).__name__}: {told}", again=True) from None
        except (httpx2.InvalidURL, UnicodeError):  # a host of signs that no host has
            raise UserError(f"{self._url} is no address of a server: write it like http://HOST:PORT/v1#NAME.") from None

    async def _picture(self, path: str) -> str:
        """The image as it is sent; the last few are cached, as the draws on an image follow one another."""
        picture = self._recent.pop(path, "") or await asyncio.to_thread(_data_url, path, self._max_pixels)
        self._recent[path] = picture
        while len(self._recent) > self._server.requests:
            del self._recent[next(iter(self._recent))]
        return picture


BACKEND = Backend(connect=connect)


def _data_url(path: str, max_pixels: int | None) -> str:
    try:
        return data_url(Path(path), max_pixels)
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {path}: {problem}") from problem


def _client(url: str, key: str, most: int) -> httpx2.AsyncClient:
    """A client for a server; one on this machine is not asked through a proxy, which could not reach it."""
    secure = url.startswith("https:")
    try:
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            verify=httpx2.create_ssl_context() if secure else False,  # loading the system's certificates takes time
            trust_env=not _is_here(url),
            timeout=None,  # `engines` is stricter: it also stops a server that sends a byte now and then
        )
    except ImportError:
        raise missing_package(f"the proxy in {_set_ones(_PROXIES)}", "socksio", "'httpx2[socks]'") from None
    except (ValueError, httpx2.InvalidURL):
        raise UserError(
            f"the proxy in the environment variable {_set_ones(_PROXIES)} cannot be used to reach {url}: write "
            "http://HOST:PORT or socks5://HOST:PORT, or unset it."
        ) from None
    except OSError as problem:
        of = _set_ones(("SSL_CERT_FILE", "SSL_CERT_DIR"))
        raise UserError(
            f"the certificates that the environment variable {of} names cannot be read: {problem}"
        ) from None


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _set_ones(names: Collection[str]) -> str:
    return " or ".join(name for name in names if os.environ.get(name) or os.environ.get(name.lower())) or "*_PROXY"


def _key(server: ServerSettings) -> str:
    key = os.environ.get(server.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {server.key_variable} holds characters that no key has")
    return key
