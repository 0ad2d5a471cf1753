"""The levelled student's page: its card and the chart of its scores, gathered from the run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parityalign.config import RunConfig, backend_of, is_path, split_model
from parityalign.core import CARD, CARD_FIGURE, SCORES, Scores, read_manifest, write_whole
from parityalign.export.benchmarks import benchmark_scores, hub_name
from parityalign.export.model_card import Made, card, licence_of
from parityalign.export.origins import checked_in_words, model_name, sources_in_words
from parityalign.report import (
    SCORE_HEADINGS,
    changed_questions,
    headline,
    held_out_line,
    read_record,
    score_figure,
    score_table,
)
from parityalign.stages import LEVELLED
from parityalign.tasks import task_of

STUDENT = "student"
_WON, _LOST = 8, 4
"""Questions won and lost on the card."""


def write_card(config: RunConfig) -> None:
    """Writes the levelled student's README.md and its figure, if there are scores; neither if none was levelled.

    They are not part of the artifact but views of the run, like the report: no manifest lists them.

    Raises:
        WorkFailed: The disk refused.
    """
    manifest = read_manifest(config.run / STUDENT)
    if manifest is None or manifest.get("outcome") != LEVELLED:
        return
    scores = read_record(config.run / SCORES, Scores)
    _write(config.run / STUDENT / CARD, card(_made(config, manifest, scores)))
    if scores and scores.tasks:
        _write(config.run / STUDENT / CARD_FIGURE, score_figure(scores))
    else:
        (config.run / STUDENT / CARD_FIGURE).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text)


def _made(config: RunConfig, manifest: Mapping[str, Any], scores: Scores | None) -> Made:
    _, location = split_model(config.student)
    on_hub = backend_of(config.student).hub and not is_path(location)
    scored = scores is not None and bool(scores.tasks)
    pairs = (read_manifest(config.run / "verdicts") or {}).get("counts", {}).get("pairs", 0)
    return Made(
        base=location if on_hub else model_name(config.student),
        base_on_hub=on_hub,
        commit=config.loading.student.pinned if on_hub else None,
        licence=_licence(config.student, config.loading.student.pinned),
        teacher=model_name(config.teacher),
        teacher_licence=_licence(config.teacher, config.loading.teacher.pinned),
        sources={name: sources_in_words(data) for name, data in config.tasks.items()},
        data_sets=list(dict.fromkeys(_data_sets(config))),
        prompt=task_of(*next(iter(config.tasks.items()))).answer_prompt,
        counts={"pairs": pairs, **manifest["counts"]},
        recipe=dict(_flat(manifest["settings"])),
        result={name: value for name, value in manifest["result"].items() if value is not None},
        scores=[SCORE_HEADINGS, *score_table(scores)] if scores and scored else [],
        headline=headline(scores) if scores and scored else "",
        results=benchmark_scores(config, scores) if scores else [],
        changed=changed_questions(config.run, scores, seed=config.seed, won=_WON, lost=_LOST) if scores else None,
        held_out=held_out_line(scores.held_out) if scores else "",
        version=manifest["parityalign"],
        checked=checked_in_words(config.run),
    )


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in sorted(settings.items()):
        if isinstance(value, dict):
            yield from _flat({f"{name}.{key}": each for key, each in value.items()})
        else:
            yield name, "none" if value is None else value


def _licence(spec: str, commit: str | None) -> dict[str, str]:
    """The licence in a model's own card, if that is on this machine; nothing is downloaded."""
    if not backend_of(spec).hub:
        return {}
    _, location = split_model(spec)
    path: object = Path(location).expanduser() / CARD
    if not is_path(location):
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

        path = try_to_load_from_cache(location, CARD, revision=commit)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}
    return licence_of(Path(path).read_text(encoding="utf-8", errors="replace"))


def _data_sets(config: RunConfig) -> Iterator[str]:
    """The names of data sets on the hub that images came from."""
    for data in config.tasks.values():
        yield from filter(None, map(hub_name, data.images))
