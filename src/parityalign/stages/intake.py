"""Intake: checks every image of the sources once, and sets unusable ones aside.

Nothing that comes later has to fear a broken file. Of pictures that are the same one is kept, and pictures of a test
split never enter a pool. Of what was seen the paths and hashes stay in memory, about 370 bytes an image.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from parityalign.config import IntakeSettings
from parityalign.core import (
    BY_CONTENT,
    Artifact,
    Found,
    ImageRef,
    Progress,
    Question,
    Rejected,
    Source,
    UserError,
    content_id,
    found_path,
    groups_of,
    write_whole,
    writing,
)
from parityalign.data import Unfit, open_picture, read_bytes
from parityalign.stages._likeness import Look
from parityalign.stages._looking import Looked, check_shape, hands, look_through
from parityalign.stages._seen import BYTES, NEARLY, PIXELS, Match, Names, SeenImages
from parityalign.stages._stage import Stage, StageRun

ACCEPTED = "accepted.jsonl"
QUARANTINE = "quarantine.jsonl"
IN_TEST_SPLIT = "in_test_split"
_REPEATED = {BYTES: "duplicate", PIXELS: "duplicate_pixels", NEARLY: "near_duplicate"}
REPEATS = frozenset(_REPEATED.values())
"""Why an image was set aside that another one of its task stands for."""

_OF_PAIRS = "of pairs"
_CHUNK = 64
"""Images between two writes."""


def _work(run: StageRun, artifact: Artifact) -> None:
    sort_images(artifact, run.pools, run.tests, settings=run.config.intake, progress=run.progress)


STAGE = Stage(
    "intake",
    artifact="images",
    of=("pools", "tests"),
    settings=("intake",),
    derives=True,
    work=_work,
    help="Check the images: accept usable ones, set broken, duplicate and test images aside.",
)


def sort_images(
    artifact: Artifact,
    pools: Mapping[str, Sequence[Source]],
    tests: Mapping[str, Sequence[Question]],
    *,
    settings: IntakeSettings,
    progress: Progress,
) -> None:
    """Sorts the images of each task's sources into accepted ones and quarantine.

    Args:
        artifact: Gets `accepted.jsonl` and `quarantine.jsonl`, and `files/` with images from inside other files.
        pools: The sources of unlabelled images by task.
        tests: The test splits; their images are kept out of every pool.
        settings: Which valid images are set aside too.
        progress: Called after every chunk of images.

    Raises:
        UserError: A source cannot be read or offers no usable image.
    """
    if artifact.finished:
        return
    with hands() as executor, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata that is not used
        tested = _seen_in(tests if settings.overlap_guard else {}, executor, progress)
        for task, sources in pools.items():
            _Pool(artifact, task, tested, settings).take_in(sources, executor, progress)
    _finish(artifact, pools, _guard(tested, tests, settings))


def accepted_images(artifact: Artifact) -> list[ImageRef]:
    """The images that passed, by task and then in the order of their sources."""
    return [image_with_path(image, artifact.run) for image in artifact.stream(ACCEPTED, ImageRef)]


def image_with_path(image: ImageRef, run: Path) -> ImageRef:
    """An image of a run folder's records, with its full path."""
    return image.model_copy(update={"path": found_path(image.path, run)})


class _Pool:
    """The images of one task while they are sorted."""

    def __init__(self, artifact: Artifact, task: str, tested: SeenImages, settings: IntakeSettings) -> None:
        self._artifact, self._task, self._tested, self._settings = artifact, task, tested, settings
        self._good = artifact.stream(ACCEPTED, ImageRef)
        self._bad = artifact.stream(QUARANTINE, Rejected)
        self._seen = SeenImages()
        self._known = Names(self._resumed())

    def take_in(self, sources: Sequence[Source], executor: Executor, progress: Progress) -> None:
        """Sorts the images that an earlier process did not, in the order of the sources."""
        counts = [source.count() for source in sources]
        total = None if None in counts else sum(count or 0 for count in counts)
        offered = (replace(found, of_pairs=source.of_pairs) for source in sources for found in source.images())
        done = 0
        for chunk in groups_of(offered, _CHUNK):
            self._sort_out(chunk, executor)
            done += len(chunk)
            progress(f"intake {self._task}", done, done + 1 if total is None else max(total, done))
        if total is None:
            progress(f"intake {self._task}", done, done)

    def _resumed(self) -> Iterator[str]:
        """The names of the images sorted before; adds the accepted ones to the pictures seen."""
        for image in self._good:
            if image.task == self._task:
                path = self._artifact.found_path(image.path)
                self._seen.add(Look.kept(image.image_id, image.pixels, image.likeness), path)
                yield image.origin or image.path
        yield from (rejected.path for rejected in self._bad if rejected.task == self._task)

    def _sort_out(self, chunk: Sequence[Found], executor: Executor) -> None:
        fresh = [found for found in chunk if not self._known.take(self._name(found.name))]
        looked = look_through(fresh, executor)
        records = [self._judged(found, saw) for found, saw in zip(fresh, looked, strict=True)]
        self._good.append([record for record in records if isinstance(record, ImageRef)])
        self._bad.append([record for record in records if isinstance(record, Rejected)])

    def _judged(self, found: Found, saw: Looked | Unfit) -> ImageRef | Rejected:
        """Accepts one image, or records why not."""
        reject = partial(Rejected, path=self._name(found.name), task=self._task)
        try:
            if isinstance(saw, Unfit):
                raise saw
            check_shape(saw.size)
        except Unfit as unfit:
            return reject(reason=unfit.reason, detail=unfit.detail)
        match = _match(self._tested, saw, near=True)
        if match:
            return reject(reason=IN_TEST_SPLIT, **self._repeats(match))
        match = _match(self._seen, saw, near=self._settings.near_duplicates)
        if match:
            return reject(reason=_REPEATED[match.how], **self._repeats(match))
        return self._let_in(saw)

    def _repeats(self, match: Match) -> dict[str, str]:
        partner = self._name(match.path)
        return {"detail": f"{match.how} as {partner}", "partner": partner}

    def _name(self, name: str) -> str:
        """A path as the records have it; with a `#` and a row behind it, too."""
        return self._artifact.kept_path(name)

    def _let_in(self, saw: Looked) -> ImageRef:
        found, look = saw.found, saw.look
        path = str(found.path or self._written(saw))
        self._seen.add(look, path)
        return ImageRef(
            image_id=look.image_id,
            path=self._name(path),
            task=self._task,
            origin="" if found.path else self._name(found.name),
            notes=saw.notes,
            pixels=look.pixels,
            likeness=look.likeness,
            of_pairs=found.of_pairs,
        )

    def _written(self, saw: Looked) -> Path:
        """The image as its own file: its unchanged bytes, named by their hash."""
        name = saw.look.image_id
        path = self._artifact.path / BY_CONTENT / name[:2] / f"{name}{saw.ending}"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, saw.found.read())
        return path


def _match(seen: SeenImages, saw: Looked, *, near: bool) -> Match | None:
    return seen.match(saw.look, lambda: open_picture(saw.found.read()).image, near=near)


def _seen_in(tests: Mapping[str, Sequence[Question]], executor: Executor, progress: Progress) -> SeenImages:
    """The pictures of the test splits; what cannot be opened there equals nothing."""
    seen = SeenImages()
    paths = list(dict.fromkeys(question.image for questions in tests.values() for question in questions))
    done = 0
    offered = (Found(name=path, read=partial(read_bytes, Path(path)), path=Path(path)) for path in paths)
    for chunk in groups_of(offered, _CHUNK):
        for saw in look_through(chunk, executor):
            if isinstance(saw, Looked):
                seen.add(saw.look, saw.found.name)
        done += len(chunk)
        progress("read the test splits", done, len(paths))
    return seen


def _guard(tested: SeenImages, tests: Mapping[str, Sequence[Question]], settings: IntakeSettings) -> str:
    """What the overlap guard compared the images with, in words."""
    if not tests:
        return "no test split to compare the images with"
    if not settings.overlap_guard:
        return "off, so images of the test splits may be in the pools"
    pictures = len({question.image for questions in tests.values() for question in questions})
    unopened = f", {pictures - len(tested):,} could not be opened" if pictures > len(tested) else ""
    return f"compared with {len(tested):,} pictures of the test splits{unopened}"


def _finish(artifact: Artifact, pools: Mapping[str, Sequence[Source]], guard: str) -> None:
    outcomes = {task: Counter[str]() for task in pools}
    noted = Counter[str]()
    for image in artifact.stream(ACCEPTED, ImageRef):
        outcomes[image.task]["accepted"] += 1
        noted.update(image.notes)
    for rejected in artifact.stream(QUARANTINE, Rejected):
        outcomes[rejected.task][rejected.reason] += 1
    _refuse_without_images(pools, outcomes)
    total = sum(outcomes.values(), Counter[str]())
    artifact.note(f"overlap guard: {guard}; {total[IN_TEST_SPLIT]:,} of {total.total():,} images were dropped")
    artifact.finish(
        total,
        identity=content_id(*_what_matters(artifact, pools)),
        by_task={task: dict(counts) for task, counts in outcomes.items()},
        noted=dict(noted),
    )


def _what_matters(artifact: Artifact, pools: Mapping[str, Sequence[Source]]) -> Iterator[str]:
    """Of the images their task and content; where files of pairs name some, also what was set aside and why."""
    named = {task for task, sources in pools.items() if any(source.of_pairs for source in sources)}
    accepted: dict[str, str] = {}
    for image in artifact.stream(ACCEPTED, ImageRef):
        accepted[image.path] = image.image_id
        yield from (image.task, image.image_id, *([_OF_PAIRS] if image.of_pairs else ()))
    for rejected in artifact.stream(QUARANTINE, Rejected):
        if rejected.task in named:
            name = Path(rejected.path).name
            yield from (rejected.task, name, rejected.reason, accepted.get(rejected.partner, ""))


def _refuse_without_images(pools: Mapping[str, Sequence[Source]], outcomes: Mapping[str, Counter[str]]) -> None:
    unusable = [
        f"{', '.join(source.where for source in sources)} (task {task}): {_in_words(outcomes[task])}"
        for task, sources in pools.items()
        if not outcomes[task]["accepted"]
    ]
    if unusable:
        listed = "\n  ".join(unusable)
        raise UserError(f"no usable image in\n  {listed}\n{_advice(outcomes)}")


def _advice(outcomes: Mapping[str, Counter[str]]) -> str:
    if any(counts["unsupported_format"] for counts in outcomes.values()):
        return "These are pictures in formats that are not read (HEIC of an iPhone, AVIF, ...): convert them to JPEG."
    return "Name a source that holds images."


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no file"
