"""Proxies that the environment names and the HTTP client (httpx2, also the hub's) cannot use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.request import getproxies

from parityalign.core.errors import UserError

_READ = ("all", "http", "https")
_KNOWN = ("http", "https", "socks5", "socks5h")


def unusable_proxy() -> str:
    """Why no connection can be opened, with the variable and what to do; empty: proxies are no obstacle.

    The address itself is not shown, since it may hold a password.
    """
    for scheme, address in getproxies().items():
        kind = address.partition("://")[0].lower() if "://" in address else "http"
        if scheme not in _READ:
            continue
        who = _who_says(scheme)
        if kind not in _KNOWN:
            return (
                f"{who} names a proxy of the kind {kind}://, which cannot be used. "
                f"Write {'socks5' if kind.startswith('socks') else 'http'}://HOST:PORT, or unset it"
            )
        if kind.startswith("socks") and find_spec("socksio") is None:
            return f"{who} names a {kind} proxy, which needs the package socksio: pip install socksio, or unset it"
    return ""


@contextmanager
def proxies_in_words(failed: str) -> Iterator[None]:
    """Turns what the HTTP client raises of a proxy into an error for the user.

    Args:
        failed: What cannot be done, such as `cannot read the data set a/b`.

    Raises:
        UserError: There is an unusable proxy; the message names the variable.
    """
    try:
        yield
    except (ValueError, ImportError) as problem:
        if not (why := unusable_proxy()):
            raise
        raise UserError(f"{failed}: {why}.") from problem


def _who_says(scheme: str) -> str:
    named = (name for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()) if os.environ.get(name))
    variable = next(named, None)
    return f"the environment variable {variable}" if variable else f"this system's setting for {scheme}"
