"""Uploads to the Hugging Face hub: the levelled student, and an export that is a data set."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from parityalign import __version__
from parityalign.config import config_in
from parityalign.core import (
    BEGUN,
    CONFIG,
    MANIFEST,
    SCORES,
    ExportFormat,
    Scores,
    UserError,
    WorkFailed,
    load_part,
    out_of_reach,
    proxies_in_words,
    read_given,
    read_manifest,
    refuse_changed,
    unusable_proxy,
)
from parityalign.export.benchmarks import EVALUATION, benchmark_scores, leaderboard_entries
from parityalign.export.forms import EXPORTS, part_of
from parityalign.export.student_card import STUDENT
from parityalign.report import read_record
from parityalign.stages import HELD_OUT, LEVELLED

_SCORES_THERE = ".eval_results/parityalign.yaml"
"""Where the hub looks for scores on benchmarks, in a model's repository."""

_LONGEST_DECLARED = 50_000
"""Bytes of a stranger's file that are read."""


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

    Where its test splits are the hub's benchmarks, its scores on them go into `.eval_results/`, which the hub shows
    beside the model and beside those of others.

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
    _check_name(repo)
    manifest = read_manifest(run / STUDENT)
    if manifest is None or manifest.get("outcome") != LEVELLED:
        raise UserError(
            f"{run} has no levelled student to push: level has not finished, or there was nothing to train on.\n"
            f"First: parityalign run {run / CONFIG}"
        )
    for name in manifest["files"]:
        refuse_changed(run / STUDENT / name)
    entries = _leaderboard(run)
    with _told(repo):
        page = _upload(run / STUDENT, repo, "model", public=public, but=[HELD_OUT])  # what was said on one's own images
        if entries:
            _push_scores(entries, repo)
    return page


def push_data_set(folder: Path, repo: str, *, public: bool) -> str:
    """Uploads an export that the hub's viewer shows; other files of the repository stay.

    Args:
        folder: Of the export.
        repo: `OWNER/NAME`; created if it does not exist.
        public: Whether everybody may see it. An existing repository keeps its visibility.

    Returns:
        The URL of the data set's page.

    Raises:
        UserError: The token lacks write access, or the repository is public without `public`.
        WorkFailed: The hub cannot be reached.
    """
    _check_name(repo)
    with _told(repo):
        return _upload(folder, repo, "dataset", public=public, but=[])


def check_pushable(form: str, repo: str | None, *, public: bool) -> None:
    """Refuses the upload of an export that cannot succeed, before anything is written; None: there is no upload.

    Raises:
        UserError: As `check_push`, or the format is no data set of the hub.
    """
    check_push(repo, public=public)
    if repo is not None and not load_part(EXPORTS, part_of(form), ExportFormat).on_hub:
        raise UserError(f"--push uploads a data set, and {form} is none that the hub shows; use --format hf-dataset")


def _upload(folder: Path, repo: str, kind: Literal["model", "dataset"], *, public: bool, but: list[str]) -> str:
    """Uploads a folder without the files that only a run needs; returns the address of its page."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    api = HfApi()
    page = api.create_repo(repo, private=not public, exist_ok=True, repo_type=kind)
    if not public and not api.repo_info(repo, repo_type=kind).private:
        raise UserError(f"{repo} exists and is public. Add --public, or name another.")
    api.upload_folder(
        repo_id=repo,
        repo_type=kind,
        folder_path=folder,
        ignore_patterns=[MANIFEST, BEGUN, *but],
        delete_patterns=[_SCORES_THERE],  # those of a student that this one replaces
        commit_message=f"Made with parityalign {__version__}",
    )
    return str(page)


def _leaderboard(run: Path) -> str:
    """The scores on test splits that the hub lists as benchmarks; empty if there are none."""
    scores = read_record(run / SCORES, Scores)
    results = benchmark_scores(config_in(run), scores) if scores else []
    names = {result.data_set for result in results if result.comparable and result.data_set}
    return leaderboard_entries(results, {name: text for name in sorted(names) if (text := _declared(name))})


def _declared(name: str) -> str:
    """What a data set on the hub says of itself as a benchmark; empty: it is none, or cannot be read."""
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        path = HfApi().hf_hub_download(name, EVALUATION, repo_type="dataset")
        return read_given(Path(path), _LONGEST_DECLARED).decode("utf-8", "replace")
    except (HfHubHTTPError, OSError):
        return ""  # no fault of the student's own page, which can be pushed again
    except out_of_reach():
        return ""


def _push_scores(entries: str, repo: str) -> None:
    from huggingface_hub import HfApi  # noqa: PLC0415

    HfApi().upload_file(
        repo_id=repo,
        path_or_fileobj=entries.encode(),
        path_in_repo=_SCORES_THERE,
        commit_message="Scores on benchmarks",
    )


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
            f"cannot reach the hub to push {repo}: {problem}\nWhat is to be pushed is complete: "
            "push it later with the same command."
        ) from problem


def _no_name(repo: str) -> UserError:
    return UserError(f"--push {repo!r} is not a name on the hub; write it as OWNER/NAME")
