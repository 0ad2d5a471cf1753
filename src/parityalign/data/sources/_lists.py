"""Files with one image per line."""

from collections.abc import Callable, Iterator
from pathlib import Path

from parityalign.core import Source, UserError, given_lines, listing_digest
from parityalign.data.sources._files import found_file


def listed(location: str, named: Callable[[str, str], str]) -> Source:
    """The images that the lines of a file name, relative to its folder; blank lines are skipped.

    Args:
        location: The file.
        named: (line, its place for messages) -> the path in it.
    """
    file = Path(location)

    def paths() -> Iterator[Path]:
        for where, line in _lines(file):
            yield file.parent / named(line, where)

    return Source(
        where=location,
        digest=lambda: listing_digest((path for of in ((file,), paths()) for path in of), file.parent),
        count=lambda: sum(1 for _ in _lines(file)),
        images=lambda: map(found_file, paths()),
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        for number, line in given_lines(path):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield f"{path}, line {number}", text
    except OSError as problem:
        raise UserError(f"cannot read the list of images {path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise UserError(f"{path} is not UTF-8 text: {problem}. A list holds one path per line") from problem
