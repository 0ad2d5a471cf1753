"""Publishes the levelled student: writes its model card from the run, and uploads it to the Hugging Face hub."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parityalign import __version__
from parityalign.config import RunConfig, backend_of, is_path, split_model
from parityalign.core import (
    BEGUN,
    CONFIG,
    MANIFEST,
    SCORES,
    Scores,
    UserError,
    WorkFailed,
    out_of_reach,
    proxies_in_words,
    read_manifest,
    refuse_changed,
    unusable_proxy,
    write_whole,
)
from parityalign.export.model_card import Made, card, licence_of
from parityalign.export.origins import checked_in_words, model_name, sources_in_words
from parityalign.report import SCORE_HEADINGS, headline, held_out_line, read_record, score_table
from parityalign.stages import HELD_OUT, LEVELLED
from parityalign.tasks import task_of

STUDENT = "student"
CARD = "README.md"


def write_card(config: RunConfig) -> None:
    """Writes the levelled student's README.md, with scores if there are any; none if no student was levelled.

    It is not part of the artifact but a view of the run, like the report: no manifest lists it.

    Raises:
        WorkFailed: The disk refused.
    """
    manifest = read_manifest(config.run / STUDENT)
    if manifest is None or manifest.get("outcome") != LEVELLED:
        return
    path, text = config.run / STUDENT / CARD, card(_made(config, manifest))
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text)


def check_push(repo: str | None, *, public: bool) -> None:
    """Refuses an upload that cannot succeed, before hours of work; None: there is no upload.

    Raises:
        UserError: It is not OWNER/NAME, this machine is not logged in or its proxy cannot be used, or `public` is set
            without a repository.
    """
    if repo is not None:
        _check_name(repo)
    elif public:
        raise UserError("--public makes the repository of --push public; give --push OWNER/NAME too")


def _check_name(repo: str) -> None:
    from huggingface_hub import get_token  # noqa: PLC0415

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise _no_name(repo)
    if why := unusable_proxy():
        raise UserError(f"--push {repo} cannot reach the hub: {why}.")
    if get_token() is None:
        raise UserError(
            f"--push {repo} needs a hub token with write access, and this machine has none.\n"
            "Log in: hf auth login   (or set HF_TOKEN)"
        )


def push_student(run: Path, repo: str, *, public: bool) -> str:
    """Uploads the levelled student, without the run's own files; other files of the repository stay.

    Args:
        run: The run folder.
        repo: `OWNER/NAME`; created if it does not exist.
        public: Whether everybody may see it. An existing repository keeps its visibility.

    Returns:
        The URL of the student's page.

    Raises:
        UserError: Nothing was levelled, a file of it is damaged, the token lacks write access, or the repository is
            public without `public`.
        WorkFailed: The hub cannot be reached.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415

    _check_name(repo)
    manifest = read_manifest(run / STUDENT)
    if manifest is None or manifest.get("outcome") != LEVELLED:
        raise UserError(
            f"{run} has no levelled student to push: level has not finished, or there was nothing to train on.\n"
            f"First: parityalign run {run / CONFIG}"
        )
    for name in manifest["files"]:
        refuse_changed(run / STUDENT / name)
    api = HfApi()
    with _told(repo):
        page = api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.model_info(repo).private:
            raise UserError(f"{repo} exists and is public. Add --public, or name another.")
        api.upload_folder(
            repo_id=repo,
            folder_path=run / STUDENT,
            ignore_patterns=[MANIFEST, BEGUN, HELD_OUT],  # what was said on the user's images
            commit_message=f"Levelled with parityalign {__version__}",
        )
    return str(page)


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Says in words what the hub has against an upload; a token is in none of it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    try:
        with proxies_in_words(f"cannot reach the hub to push {repo}"):
            yield
    except HFValidationError as problem:
        raise _no_name(repo) from problem
    except HfHubHTTPError as problem:
        if problem.response.status_code in (401, 403, 404):
            raise UserError(
                f"this machine's token has no write access to {repo} ({problem.response.status_code}).\n"
                "Log in with one that has it: hf auth login   (or set HF_TOKEN)"
            ) from problem
        raise WorkFailed(f"the hub refuses {repo}: {str(problem).splitlines()[0]}\nTry again later.") from problem
    except out_of_reach() as problem:
        raise WorkFailed(
            f"cannot reach the hub to push {repo}: {problem}\nThe student in the run is complete: "
            "push it later with the same command."
        ) from problem


def _no_name(repo: str) -> UserError:
    return UserError(f"--push {repo!r} is not a name on the hub; write it as OWNER/NAME")


def _made(config: RunConfig, manifest: Mapping[str, Any]) -> Made:
    _, location = split_model(config.student)
    on_hub = backend_of(config.student).hub and not is_path(location)
    scores = read_record(config.run / SCORES, Scores)
    scored = scores is not None and bool(scores.tasks)
    pairs = (read_manifest(config.run / "verdicts") or {}).get("counts", {}).get("pairs", 0)
    return Made(
        base=location if on_hub else model_name(config.student),
        base_on_hub=on_hub,
        commit=config.loading.student.pinned if on_hub else None,
        licence=_licence(location, config, on_hub=on_hub),
        teacher=model_name(config.teacher),
        sources={name: sources_in_words(data) for name, data in config.tasks.items()},
        prompt=task_of(*next(iter(config.tasks.items()))).answer_prompt,
        counts={"pairs": pairs, **manifest["counts"]},
        recipe=dict(_flat(manifest["settings"])),
        result={name: value for name, value in manifest["result"].items() if value is not None},
        scores=[SCORE_HEADINGS, *score_table(scores)] if scores and scored else [],
        headline=headline(scores) if scores and scored else "",
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


def _licence(location: str, config: RunConfig, *, on_hub: bool) -> dict[str, str]:
    """The licence in the base model's card, if that is on this machine; nothing is downloaded."""
    path: object = Path(location).expanduser() / CARD
    if on_hub:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

        path = try_to_load_from_cache(location, CARD, revision=config.loading.student.pinned)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}
    return licence_of(Path(path).read_text(encoding="utf-8", errors="replace"))
