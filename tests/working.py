"""What processes do that tests start; light, as each of them imports it."""

import os
import signal
import time
from functools import partial

import psutil

from parityalign.core import UserError
from parityalign.engines.on_ray import Arrived, From, Joined, Start, Stop, Stopped
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
    for name, end in (("actor", _end_actor), ("cluster", _end_cluster)):
        mark = folder / f"{name}.mark"
        if word.startswith(name) and not mark.exists():
            mark.touch()
            end()
            time.sleep(60)  # until this process is ended for it
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


def _end_actor():
    os.kill(os.getppid(), signal.SIGKILL)


def _end_cluster():
    """Kills everything of the cluster of this machine, from the inside."""
    raylet = psutil.Process().parent().parent()
    for process in [*raylet.parent().children(), raylet]:
        process.kill()


HERE = {"parityalign": "1", "torch": "2"}


def full_client(replicas, _settings, _folder, post):
    """A client of a cluster without room; it ends replicas together, once it is told to end each of so many."""
    post.send(Joined(replicas, "some nodes", "1 CPU", HERE))
    ended = []
    while len(ended) < replicas:
        ended += [message.number for message in post.received(wait=True) if isinstance(message, Stop)]
    for number in ended:
        post.send(Stopped(number))
    post.received(wait=True)


def client(nodes, room, _settings, _folder, post):
    """A client of a cluster that has these nodes, one of which each replica gets, and then ends with the last."""
    post.send(Joined(room, "some nodes", "1 CPU", HERE))
    left = [*nodes]
    while True:
        for message in post.received(wait=True):
            if isinstance(message, Start) and left:
                versions, late = left.pop(0)
                post.send(From(message.number, Arrived("there", {**HERE, **versions}, time.time() + late)))
            if isinstance(message, Start) and nodes and not left:
                os._exit(3)
            if isinstance(message, Stop):
                post.send(Stopped(message.number))
