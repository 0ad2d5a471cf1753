"""Checks a model's files without loading them: in a folder, or on the Hugging Face hub at the commit of a run.

Files of the hub are kept in the local cache; once those of a commit are there, no network is needed.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import constants, get_session

from parityalign.config import LoadingSettings, is_path
from parityalign.core import UserError, WorkFailed, out_of_reach, proxies_in_words, unusable_proxy

INDEX = "model.safetensors.index.json"
"""Index of the file of each weight, if there are several."""
WEIGHTS = "model.safetensors"
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
"""Everything but the weights: configurations, tokenizer, chat template."""
_LARGEST = 2**29
"""Bytes of such a file; the largest tokenizers have 40 MB."""
MODULES: Mapping[str, int] = MappingProxyType({"layer|depth|block|expert|stage|level": 10_000})
"""The most of what a model has one module for each of."""
PICTURE: Mapping[str, int] = MappingProxyType({"num_|token|length": 2**24, "height|width": 2**14, "": 2**31})
"""The most that a processor makes of one picture: placeholders, pixels on a side, and anything."""
_NEEDED = {
    "config.json": ("config.json",),
    "a processor (processor_config.json or preprocessor_config.json)": (
        "processor_config.json",
        "preprocessor_config.json",
    ),
    "a tokenizer (tokenizer.json or tokenizer_config.json)": ("tokenizer.json", "tokenizer_config.json"),
}
_EXPECTED = "config.json, *.safetensors, the processor's configuration and the tokenizer"
_PATIENCE = 5.0
"""Seconds in which the hub has to answer."""
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def model_folder(location: str, loading: LoadingSettings, *, weights: bool) -> Path:
    """The folder of a model's files: its own, or its commit in the cache, downloaded from the hub if needed.

    Args:
        location: Folder or `OWNER/NAME` on the hub.
        loading: The revision, and whether the model's code is included.
        weights: Whether the weights are needed too; a download may be many gigabytes.

    Raises:
        UserError: There is no such model, it may not be read, it lacks files, or the hub cannot be reached.
        WorkFailed: The disk refused.
    """
    if is_path(location):
        check_model_folder(location)
        return Path(location).expanduser()
    files = published_files(location, loading)
    _refuse_incomplete(location, list(files))
    return fetched(location, loading, weights=weights)


def hub_answers() -> bool:
    """Whether the hub is in reach; asked once and briefly, since its own client tries for half a minute."""
    return not constants.HF_HUB_OFFLINE and not unusable_proxy() and _in_reach(constants.ENDPOINT)


@cache
def _in_reach(address: str) -> bool:
    try:
        get_session().head(address, timeout=_PATIENCE)
    except (HTTPError, OSError):
        return False
    return True


def check_model_folder(location: str) -> None:
    """Refuses a folder that cannot be a vision-language model; anything that is not a path may be a hub id.

    Raises:
        UserError: There is no such folder, or it lacks files; the message names them.
    """
    if not is_path(location):
        return
    folder = Path(location).expanduser()
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise UserError(f"the model folder {location} is {what}. Give a folder that holds {_EXPECTED}.")
    _refuse_incomplete(location, [path.name for path in _files_of(location, folder)])
    lost = [name for name in weight_files(folder) if not (folder / name).is_file()]
    if lost:
        raise UserError(
            f"the model {location} lacks {len(lost)} of its files with weights, such as {lost[0]}, or these are "
            f"not regular files.\nCopy or download it again; transformers opens {WEIGHTS}, or what {INDEX} names."
        )


def _files_of(location: str, folder: Path) -> list[Path]:
    """What lies in a model's folder.

    Raises:
        UserError: It cannot be read, or a file that will be opened is not a regular file or far too large.
    """
    try:
        paths = list(folder.iterdir())
        small = [path for path in paths if any(map(path.match, _SMALL)) and not path.is_dir()]
        odd = [path.name for path in small if not path.is_file() or path.stat().st_size > _LARGEST]
    except OSError as problem:
        raise UserError(f"cannot read the model folder {location}: {problem.strerror}") from problem
    if odd:
        raise UserError(
            f"{odd[0]} in the model folder {location} is not a regular file, or larger than {_LARGEST >> 20} MB, so it "
            "is not opened.\nCopy or download it again."
        )
    return paths


def _refuse_incomplete(location: str, names: list[str]) -> None:
    lacking = [words for words, files in _NEEDED.items() if not set(files) & set(names)]
    if not any(name.endswith(".safetensors") for name in names):
        lacking.append("weights (*.safetensors)")
        pickled = [name for name in names if name.endswith(_PICKLED)]
        if pickled:
            raise UserError(
                f"the model {location} lacks safetensors: its weights are pickled only ({pickled[0]}), and opening "
                "such a file may run any code.\nName a revision with *.safetensors, or convert it where you trust it: "
                "load it with transformers and save_pretrained."
            )
    if lacking:
        raise UserError(f"{location} is not a model folder: it lacks {' and '.join(lacking)}.\nExpected: {_EXPECTED}.")


def commit_of(name: str, loading: LoadingSettings) -> str:
    """The commit of a model's branch, tag or default branch; from the hub, or from the cache if it cannot be reached.

    Raises:
        UserError: There is no such model or revision, or the hub cannot be reached and the cache has none.
    """
    if loading.commit:
        return loading.commit
    from huggingface_hub import HfApi  # noqa: PLC0415

    with _answers(name, loading.revision):
        found: str = HfApi().resolve_revision(name, revision=loading.revision).resolved
    return found


def fetched(name: str, loading: LoadingSettings, *, weights: bool) -> Path:
    """The folder of a model's files in the cache, downloaded if they are missing.

    Args:
        name: `OWNER/NAME` on the hub.
        loading: The revision, and whether the model's code is included.
        weights: Whether to include the weights, which may be many gigabytes.

    Raises:
        UserError: There is no such model, it may not be read, or the hub cannot be reached.
        WorkFailed: The disk refused.
    """
    commit = commit_of(name, loading)
    folder = _snapshot(name, commit, [*_SMALL, "*.py"] if loading.remote_code else [*_SMALL])
    return _snapshot(name, commit, weight_files(folder)) if weights else folder


def weight_files(folder: Path) -> list[str]:
    """The files of a model's weights by its index, existing or not.

    Raises:
        UserError: The index is damaged.
    """
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise _broken(index, "'weight_map' does not name the file of each weight")
    return sorted(set(names.values()))


def refuse_damaged(location: str, folder: Path) -> None:
    """Refuses truncated or invalid weight files, by their headers; missing files are skipped.

    Args:
        location: The model in messages.
        folder: The folder of its files.

    Raises:
        UserError: Some are damaged; the message names the files.
    """
    damaged = ", ".join(_damaged(folder))
    if damaged:
        raise UserError(f"cannot load the weights of {location}: damaged: {damaged}.\nCopy or download it again.")


def _damaged(folder: Path) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    for path in filter(Path.is_file, (folder / name for name in weight_files(folder))):
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as problem:
            yield f"{path.name} ({problem})"


def stored_parameters(folder: Path) -> int | None:
    """How many parameters a model's files hold, by their headers, running statistics included.

    None if some files are missing, damaged or quantised.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    config, count = folder / "config.json", 0
    try:
        if config.is_file() and "quantization_config" in read_object(config):
            return None
        for name in weight_files(folder):
            with safe_open(folder / name, framework="np") as weights:
                count += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
    except (SafetensorError, OSError, UserError):
        return None
    return count


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in one of a model's files.

    Raises:
        UserError: The file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:  # broken JSON, broken UTF-8, absurd nesting
        raise _broken(path, str(problem)) from problem
    if not isinstance(content, dict):
        raise _broken(path, f"it should hold a JSON object, but holds a {type(content).__name__}")
    return content


def refuse_absurd(path: Path, limits: Mapping[str, int]) -> None:
    """Refuses a configuration with numbers that no model has: working with them would take hours, or all memory.

    Args:
        path: One of a model's files; it may be missing.
        limits: The largest number by a pattern for dotted names, such as `text_config.num_hidden_layers`.

    Raises:
        UserError: It has one, which the message names, or it is damaged.
    """
    waiting: list[tuple[str, object]] = [("", read_object(path))] if path.exists() else []
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}".lstrip("."), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(name, each) for each in value]
        elif isinstance(value, int | float):
            over = [most for pattern, most in limits.items() if value > most and re.search(pattern, name)]
            if over:
                raise _broken(path, f"{name} is {value:.4g}, and no model has more than {min(over):,}")


def _broken(path: Path, why: str) -> UserError:
    return UserError(f"the model's file {path} is damaged: {why}.\nCopy or download it again.")


def published_files(name: str, loading: LoadingSettings) -> dict[str, int]:
    """The names and sizes (bytes) of a model's files on the hub; from the cache if it cannot be reached.

    Raises:
        UserError: As `fetched`.
    """
    from huggingface_hub import get_cached_repo_tree  # noqa: PLC0415

    fetched(name, loading, weights=False)  # caches the list
    commit = commit_of(name, loading)
    with _answers(name, commit):
        return {file.path: file.size for file in get_cached_repo_tree(name, revision=commit)}


def _snapshot(name: str, commit: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    with _answers(name, commit):
        # Subfolders hold copies for other programs (ONNX, the original format), often of the same size.
        return Path(snapshot_download(name, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"]))


@contextmanager
def _answers(name: str, revision: str | None) -> Iterator[None]:
    """Says in words what is wrong with a model on the hub, or with the way there."""
    from huggingface_hub import constants, errors  # noqa: PLC0415

    page = f"{constants.ENDPOINT}/{name}"
    try:
        with proxies_in_words(f"the hub cannot be asked for the model {name}"):
            yield
    except errors.GatedRepoError as problem:
        raise UserError(
            f"the model {name} is gated: its licence has to be accepted first.\n"
            f"Accept it at {page}, then log in on this machine: hf auth login"
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise UserError(
            f"there is no model {name} on the hub ({page}), or it is private.\nCheck its name; for a private one log "
            "in: hf auth login; a folder is written with a dot or a slash in front: hf:./folder"
        ) from problem
    except errors.RevisionNotFoundError as problem:
        raise UserError(f"the model {name} has no revision {revision!r}; its branches and tags: {page}") from problem
    except errors.HFValidationError as problem:
        raise UserError(
            f"{name!r} is not the name of a model on the hub; write OWNER/NAME, such as Qwen/Qwen2-VL-2B-Instruct."
        ) from problem
    except out_of_reach() as problem:
        raise UserError(
            f"the model {name} is missing or incomplete in the local cache ({constants.HF_HUB_CACHE}), and the hub "
            "cannot be reached.\nCheck the network and HF_HUB_OFFLINE; or download it on another machine and name the "
            f"folder: hf:./folder (there: hf download {name} --local-dir folder)"
        ) from problem
    except errors.HfHubHTTPError as problem:
        raise WorkFailed(
            f"the hub refuses the model {name}: {str(problem).splitlines()[0]}\nTry again later."
        ) from problem
    except OSError as problem:
        raise WorkFailed(f"cannot keep the files of {name} in {constants.HF_HUB_CACHE}: {problem}") from problem
