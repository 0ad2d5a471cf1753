"""A step's rows as they go through the student: those about one picture together, then cut by tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from parityalign.models import LabelledRow, Seen, SharedRow, patches

Prefix = Callable[[Sequence[LabelledRow]], int]
"""Rows about one picture -> how many tokens they begin with alike; 0: they cannot share a row."""

_LITTLE = 256
"""Tokens of padding that cost less than another micro-batch."""


class Row(NamedTuple):
    """One example as the student's input."""

    pair_id: str
    image: str
    """Path of the image file."""
    answer: LabelledRow
    rationale: LabelledRow | None
    """The example's rationale in place of its answer."""
    view: LabelledRow | None
    """The same with an augmented view of the picture."""
    unseen: Seen | None = None
    """The picture with its pixels, which the others lack, where a frozen tower has yet to look at it."""

    @property
    def labels(self) -> int:
        """The number of tokens of the answer, its end token included."""
        return len(self.answer.ends)

    @property
    def segments(self) -> list[LabelledRow]:
        """What is learnt about the picture itself."""
        return [self.answer, *([self.rationale] if self.rationale else [])]


class Bundle(NamedTuple):
    """Examples about one picture."""

    rows: list[Row]
    prefix: int
    """How many tokens all of their segments begin with; 0: each has a row of its own."""
    tokens: int
    """Tokens of its row, or of all of its rows."""
    patches: int
    """Patches that go through the vision tower."""

    @property
    def shared(self) -> SharedRow:
        """All as one row."""
        return SharedRow([segment for row in self.rows for segment in row.segments], self.prefix)


class MicroBatch(NamedTuple):
    """What goes through the student at once."""

    bundles: list[Bundle]
    size: int
    """Tokens, padding among them, and patches."""
    counts: bool = True
    """Whether it is trained on; else it is there for the passes alone, which other processes make too."""

    @property
    def rows(self) -> list[Row]:
        """Its examples, in the order of their bundles."""
        return [row for bundle in self.bundles for row in bundle.rows]

    @property
    def labels(self) -> int:
        """The number of tokens of its answers, their end tokens included."""
        return sum(row.labels for row in self.rows)


class Limits(NamedTuple):
    """How much a micro-batch takes at most; a single example may take more."""

    tokens: int
    """Tokens, padding among them, and patches."""
    pairs: int
    """Examples."""


def cut(rows: Sequence[Row], limits: Limits, *, patch: int, prefix: Prefix | None = None) -> list[MicroBatch]:
    """Micro-batches of rows of like length, the longest first.

    Args:
        rows: Those of a step.
        limits: Of a micro-batch.
        patch: Pixels along the side of a patch of the vision tower.
        prefix: How many tokens rows about one picture share; None: none share a row.
    """
    found: list[MicroBatch] = []
    waiting: list[Bundle] = []
    size = 0
    for bundle in sorted(_bundles(rows, limits, patch, prefix), key=lambda each: (each.prefix == 0, -each.tokens)):
        together = [*waiting, bundle]
        too_much = _size(together) > limits.tokens or _count(together) > limits.pairs
        if waiting and (too_much or _do_not_fit(waiting[0], bundle)):
            found.append(MicroBatch(waiting, size))
            together = [bundle]
        waiting, size = together, _size(together)
    return [*found, MicroBatch(waiting, size)] if waiting else found


def _bundles(rows: Sequence[Row], limits: Limits, patch: int, prefix: Prefix | None) -> Iterator[Bundle]:
    pictures: dict[str, list[Row]] = {}
    for row in rows:
        pictures.setdefault(row.image, []).append(row)
    for about_one in pictures.values():
        shared = prefix([segment for row in about_one for segment in row.segments]) if prefix else 0
        if not shared:
            yield from (_bundle([row], 0, patch) for row in about_one)
            continue
        waiting: list[Row] = []
        for row in about_one:
            grown = _bundle([*waiting, row], shared, patch)
            if waiting and (len(grown.rows) > limits.pairs or grown.tokens + grown.patches > limits.tokens):
                yield _bundle(waiting, shared, patch)
                waiting = []
            waiting.append(row)
        yield _bundle(waiting, shared, patch)


def _bundle(rows: list[Row], prefix: int, patch: int) -> Bundle:
    segments = [len(segment.encoded.tokens) for row in rows for segment in row.segments]
    views = [len(row.view.encoded.tokens) for row in rows if row.view]
    tokens = sum(segments) - prefix * (len(segments) - 1) if prefix else sum(segments)
    pictures = (1 if prefix else len(segments)) + len(views)
    return Bundle(rows, prefix, tokens + sum(views), patches(rows[0].answer.encoded, patch) * pictures)


def _size(bundles: Sequence[Bundle]) -> int:
    """Tokens and patches of bundles, the longest first."""
    return len(bundles) * bundles[0].tokens + sum(bundle.patches for bundle in bundles)


def _count(bundles: Sequence[Bundle]) -> int:
    return sum(len(bundle.rows) for bundle in bundles)


def _do_not_fit(longest: Bundle, bundle: Bundle) -> bool:
    """Whether a bundle would be mostly padding beside the longest, or is one that shares no row beside one that may."""
    padding = longest.tokens - bundle.tokens
    return padding > max(bundle.tokens, _LITTLE) or bool(longest.prefix) != bool(bundle.prefix)
