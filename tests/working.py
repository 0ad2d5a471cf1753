"""What processes do that tests start; light, as each of them imports it."""

import os
import signal
import time
from functools import partial

from parityalign.core import UserError
from parityalign.engines.replica import answer
from parityalign.models.backends.fake import FakeModel


def reply(folder, request, _decoding):
    """Says the question backwards, once it is written down; at some questions the process ends, once or always."""
    word = request.prompt
    if word.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    mark = folder / f"{word}.mark"
    if word.startswith("once") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while word[0] == "x" and not _is_gone(folder / "broken"):
        time.sleep(0.01)
    (folder / f"{os.getpid()}.pid").touch()
    while word[0] == "w" and len([*folder.glob("*.pid")]) < 2:  # else the first one there might answer everything
        time.sleep(0.01)
    with (folder / "asked").open("a") as asked:
        asked.write(f"{word} {os.getpid()}\n")
    return word[::-1]


def _is_gone(broken):
    """Whether that process has ended, and the one that started it has noticed."""
    try:
        os.kill(int(broken.read_text()), 0)
    except (FileNotFoundError, ValueError):  # it has yet to write its number
        return False
    except ProcessLookupError:
        return True
    return False


def backwards(folder, post):
    if "BROKEN" in os.environ:
        (folder / "broken").write_text(str(os.getpid()))
        os._exit(3)
    answer(FakeModel(partial(reply, folder), name="backwards"), post)


def refuses(post):
    raise UserError("no such model: look again")


def dies(post):
    os.write(2, b"the driver is missing")
    os._exit(3)
