"""A process that prepares pictures for another one (see picture_processes.py), and keeps them where it may.

One process opens the processor and forks the others: fourteen that each import torch keep a 16-core machine busy for a
quarter of a minute. Each ends when the other end of its socket is gone, however that came about.
"""

import gc
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from parityalign.core import PictureRoom, keeping_pictures
from parityalign.models.eight_bits import drawn
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.models.picture_processes import Answer, Channel, Opening
from parityalign.models.pictures import Pictures
from parityalign.models.tracing import remember, tried

_USUAL = (1024, 768)
"""Width and height of a picture as many are."""


def main(descriptor: int) -> None:
    """Forks the processes that serve the one that began this one, and waits until they have ended."""
    with suppress(OSError, EOFError), socket.socket(fileno=descriptor) as control:
        opening: Opening = Channel(control).receive()
        ends = [socket.socket(fileno=socket.recv_fds(control, 1, 1)[1][0]) for _ in range(opening.processes)]
        remember(opening.tried)
        prompter = Prompter(open_processor(opening.location, opening.loading))
        _ = prompter.cuts_elsewhere if opening.uncut else prompter.eight_bits  # tried once for all
        _fork(prompter, opening, ends)


def _fork(prompter: Prompter, opening: Opening, ends: Sequence[socket.socket]) -> None:
    gc.freeze()  # what all of them have stays shared
    for place, end in enumerate(ends):
        if not os.fork():
            for other in ends[place + 1 :]:  # else they would not be told that the other end is gone
                other.close()
            with suppress(OSError, EOFError):
                _serve(Channel(end), prompter, opening)
            return
        end.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _serve(channel: Channel, prompter: Prompter, opening: Opening) -> None:
    said: list[str] = []
    room = None
    if opening.room:
        folder, most, sharers = opening.room
        room = PictureRoom(folder, most, said.append, sharers)
    with keeping_pictures(room):
        pictures = Pictures(prompter, 0, uncut=opening.uncut)
    with suppress(Exception):
        pictures.prepare(drawn(_USUAL))  # the first one takes ten times as long
    channel.send(tried())
    while True:
        path, prompt = channel.receive()
        channel.send(_answer(pictures, path, prompt, said))
        said.clear()


def _answer(pictures: Pictures, path: str, prompt: str, said: list[str]) -> Answer:
    try:
        seen = pictures.begin(path, prompt).result()
    except Exception:  # noqa: BLE001 - whatever it is, the run itself will meet it and say it
        return Answer(None, said)
    return Answer(seen._replace(encoded=replace(seen.encoded, levels=None)), said)
