"""A first look: a few pairs, made and judged as the run will do it, before the rest is paid for."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from parityalign.core import PREVIEW, Artifact, ImageRef, Reply, UserError, Verdict, sample
from parityalign.engines import TwoModels
from parityalign.pipeline.run import Run
from parityalign.report import Preview, write_preview
from parityalign.stages import (
    REPLIES,
    VERDICTS,
    Known,
    annotate_images,
    asked_images,
    filters_of,
    identify_gaps,
    likelihoods_of,
    written_pairs,
)

_STAGE = "preview"


def make_preview(run: Run, count: int) -> list[Preview]:
    """Asks for one pair on each of a few images, spread over the tasks, judges them, and writes `preview.html`.

    The answers are kept, so that the run does not ask for them again.

    Args:
        run: The run; intake is done first.
        count: How many images.

    Raises:
        UserError: No task has images for the teacher to write about.
        WorkFailed: The teacher writes no pair for a task; the message shows its replies.
    """
    run.do(run.stages[0])
    run.models.store.begin_stage(_STAGE)
    offered = asked_images(run.artifact("images"))
    if not offered:
        raise UserError(
            f"{run.folder.path} has pairs of your own only, so there is nothing for the teacher to write. "
            f"To judge them: parityalign identify {run.folder.path}"
        )
    images = _chosen(offered, list(run.tasks), count, run.config.seed)
    with TemporaryDirectory(prefix="parityalign-") as scratch:
        found = _made(run, images, Path(scratch))
    write_preview(run.folder.path / PREVIEW, found, run.config.run.name)
    return found


def _chosen(images: Sequence[ImageRef], tasks: Sequence[str], count: int, seed: int) -> list[ImageRef]:
    """As many images of each task as of the others, and those that are left over of the first ones."""
    chosen = []
    for place, task in enumerate(tasks):
        wanted = count // len(tasks) + (place < count % len(tasks))
        of_task = [image for image in images if image.task == task]
        chosen += sample(of_task, wanted, f"preview {seed}", lambda image: image.image_id)
    return chosen


def _made(run: Run, images: Sequence[ImageRef], scratch: Path) -> list[Preview]:
    config, tasks = run.config, {image.task: run.tasks[image.task] for image in images}
    annotated, judged = (_artifact(scratch, name) for name in ("pairs", "verdicts"))
    annotate_images(
        annotated,
        images,
        tasks,
        run.teacher,
        settings=config.annotate.model_copy(update={"pairs_per_image": 1, "extra_draws": None}),
        seed=config.seed,
        progress=run.progress,
    )
    pairs = {pair.pair_id: pair for pair in written_pairs(annotated, images)}
    identify_gaps(
        judged,
        list(pairs.values()),
        tasks,
        TwoModels(run.student, run.teacher),
        settings=config.identify,
        progress=run.progress,
        known=Known(filters_of(config), likelihoods=likelihoods_of(annotated.stream(REPLIES, Reply))),
    )
    verdicts = {verdict.pair_id: verdict for verdict in judged.stream(VERDICTS, Verdict)}
    paths = {(image.image_id, image.task): image.path for image in images}
    return [
        Preview(
            Path(paths[reply.image_id, reply.task]),
            reply,
            pairs.get(reply.pair_id or ""),
            verdicts.get(reply.pair_id or ""),
        )
        for reply in annotated.stream(REPLIES, Reply)
    ]


def _artifact(scratch: Path, name: str) -> Artifact:
    made = Artifact(scratch / name, inputs={}, settings={}, version=1)
    made.begin()
    return made
