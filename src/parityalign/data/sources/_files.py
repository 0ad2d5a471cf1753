"""Images that are their own files."""

import os
from functools import partial
from pathlib import Path

from parityalign.core import Found, leads_out, printable_path
from parityalign.data.images import Unfit, read_bytes


def found_file(path: Path, inside: Path | None = None) -> Found:
    """A file as an image of a source; links that lead out of the folder `inside` are not followed."""
    return Found(name=printable_path(path), read=partial(_read, path, inside), path=path)


def _read(path: Path, inside: Path | None) -> bytes:
    if printable_path(path) != str(path):
        raise Unfit("unreadable_name", "the file name is not valid text; rename the file")
    if inside and path.is_symlink() and leads_out(path, inside):
        raise Unfit("outside_folder", "a link that leads out of the folder is not followed")
    try:
        is_file = path.is_file()
    except OSError as problem:  # too long a name, or a folder without access
        raise Unfit("unreadable", problem.strerror) from problem
    if not is_file and "\0" not in str(path):  # with a NUL, `read_bytes` reports the problem
        locked = path.is_dir() and not os.access(path, os.R_OK | os.X_OK)
        raise Unfit("unreadable", "a folder without access") if locked else Unfit("not_a_file")
    return read_bytes(path)
