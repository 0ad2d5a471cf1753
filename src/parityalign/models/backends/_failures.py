"""What a server says instead of a reply: which errors pass, which concern one request and which all of them."""

import math
import re
from collections.abc import Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic_core import from_json

from parityalign.core import NoReply
from parityalign.models.backends._received import Received, short_line

REFUSABLE = ("seed", "logprobs", "max_tokens", "temperature", "top_p", "top_k", "response_format")
"""Fields that are left out, or renamed, after a server has refused them by name."""
_NUMBERS = ("max_tokens", "temperature", "top_p", "top_k")
WRONG_ADDRESS = "Check the address (most end in /v1) and the model's name after the #."

_SHOWN = 300
_READ = 2**16
"""Characters of an error that are looked at."""
_LONGEST_WAIT = 366 * 86400
_TRY_AGAIN = frozenset({408, 409, 424, 425, 429, 498, 499})
_MENDABLE = frozenset({400, 403, 422})
"""Statuses with which servers refuse a field."""
_REFUSED_FOR_WHAT_IT_HOLDS = frozenset({400, 413, 422, 451})

_NOT_TAKEN = (
    r"unsupported|not (?:be )?support|n't support|unknown|unrecogni[sz]ed|unexpected|not permitted|allowed|forbidden"
    r"|deprecated|cannot find field|additional propert|strictly positive|cannot both|unavailable"
)
_TOO_MUCH = re.compile(
    r"too (?:large|long|many|high)|context|exceed|at most|less than|maximum|between|range", re.IGNORECASE
)
"""Then a server takes the field, but not so much for this request."""

_OF_ONE = re.compile(
    r"content.?(?:filter|polic|management|moderat)|moderat|flagged|responsibleai|violat|inappropriate|sensitive"
    r"|harmful|data.?inspection|high risk|unsafe"
    r"|context.?(?:length|size|window)|prompt is too long|payload too large|request (?:entity )?too large"
    r"|(?:process|decod|pars|identify|open)\w{0,9}(?: \w{1,20}){0,2} image|(?:invalid|corrupt|broken|bad)(?:ed)? image"
    r"|image\w{0,9}(?: \w{1,20}){0,4} (?:too|exceed|restriction|corrupt)",
    re.IGNORECASE,
)
"""What servers say of a request's picture or length."""
_OF_ALL = re.compile(
    r"quota|billing|credits?\b|api.?key|unauthori[sz]ed|permission|suspended|deactivated|not found|does not exist"
    r"|(?:un|no |not |failed to )load|crash|out of memory",
    re.IGNORECASE,
)
"""What they say of the account or the model."""


def refused_fields(received: Received, sent: Collection[str], model: str) -> set[str]:
    """The fields of a request that a server refuses by name.

    Args:
        received: What came instead of a reply.
        sent: The fields that were sent.
        model: The model's name, which may look like a field's.
    """
    if received.status not in _MENDABLE:
        return set()
    told = re.sub(r'\\[nrt"]', " ", received.text[:_READ])
    told = re.sub(rf"(?<!\w){re.escape(model)}(?!\w)", " ", told) if model else told
    told = re.sub(r"(?i)\bexpected one of\b.*", "", told)  # the fields that it does take
    named = {field for field in REFUSABLE if field in sent and _refuses(told, field)}
    # Some take either, not both.
    return named - {"temperature"} if "top_p" in named else named


def _refuses(told: str, field: str) -> bool:
    named = rf"(?<![\w-]){field.replace('_', '[_ ]')}(?![\w-])"
    not_taken = rf"(?i:{_NOT_TAKEN})[^.]{{0,60}}{named}|{named}[^.]{{0,60}}(?i:{_NOT_TAKEN})|(?i:\bno) .?{named}"
    if not re.search(not_taken, told):
        return False
    return field not in _NUMBERS or not _TOO_MUCH.search(told)


def refuse_failure(received: Received, key_variable: str, *, proven: bool) -> None:
    """Raises an error for a response that is not a success.

    Args:
        received: The response.
        key_variable: The environment variable that holds the key.
        proven: Whether the server has answered other requests.

    Raises:
        NoReply: The status is not 2xx.
    """
    if received.is_success:
        return
    status = received.status
    raise NoReply(
        f"HTTP {status} {received.reason}: {excerpt(received.text)}",
        again=passes(status),
        wait=retry_after(received.retry_after),
        advice=_advice(received, key_variable, proven=proven),
        about_this=is_of_one(status, received.text, proven=proven),
    )


def passes(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _TRY_AGAIN or status >= 500


def is_of_one(status: int, told: str, *, proven: bool) -> bool:
    """Whether an error concerns this one request: its words say so, or others like it were answered."""
    told = told[:_READ]
    if status in (401, 429) or _OF_ALL.search(told):
        return False
    return bool(_OF_ONE.search(told)) or (proven and status in _REFUSED_FOR_WHAT_IT_HOLDS)


def _advice(received: Received, key_variable: str, *, proven: bool) -> str:
    status = received.status
    if 300 <= status < 400 or status in (404, 405):
        return WRONG_ADDRESS
    if status == 401 or (status == 403 and not proven and not is_of_one(status, received.text, proven=False)):
        has = "refuses the key in" if received.keyed else "wants a key: set"
        return f"It {has} the environment variable {key_variable} (server.key_variable names it)."
    return ""


def excerpt(text: str) -> str:
    """The beginning of a server's words, as one printable line in quotes: of an error in JSON its message."""
    return repr(short_line(_message_in(text) or text, _SHOWN))


def _message_in(text: str) -> str:
    try:
        found = from_json(text) if len(text) < _READ else None
    except ValueError:
        return ""
    for key in ("error", "message", "detail"):
        found = found.get(key, found) if isinstance(found, dict) else found
    return found if isinstance(found, str) else ""


def retry_after(said: str) -> float | None:
    """Seconds until the next request, from Retry-After: a number, or the date when they end; None: nothing sensible."""
    try:
        seconds = float(said.strip())
    except ValueError:
        seconds = _seconds_until(said.strip())
    return max(0.0, seconds) if math.isfinite(seconds) and seconds <= _LONGEST_WAIT else None


def _seconds_until(date: str) -> float:
    try:
        when = parsedate_to_datetime(date)
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return (aware - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):  # no date, or one that no clock has
        return math.nan
