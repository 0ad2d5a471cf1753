"""Streams rows of Hugging Face data sets, from the hub or from a folder; images stay undecoded bytes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from parityalign.config import SAVED, divided
from parityalign.core import UserError, did_you_mean, files_below, missing_package, out_of_reach, proxies_in_words

if TYPE_CHECKING:
    import datasets

_OPENED = frozenset(".arrow .csv .gz .json .jsonl .md .parquet .tar .tsv .txt .webdataset .xml .yaml .zip .zst".split())
"""Suffixes of files that the library opens itself; pictures are left to us."""


class SplitRows(NamedTuple):
    """One split of a data set."""

    rows: Iterator[Mapping[str, object]]
    """In order; an image is `{"bytes": ..., "path": ...}`, never decoded."""
    total: int | None
    """Number of rows, if the data set reports it."""


def open_table(name: str, *, prefer: Sequence[str] = (), configs: Sequence[str] = ()) -> SplitRows:
    """The rows of one split.

    Args:
        name: `OWNER/NAME` on the hub, or the path of a folder or of a Parquet file, each followed by
            `:SPLIT` if it has several, or `:CONFIGURATION/SPLIT` if it holds several data sets.
        prefer: Splits to choose from if none is named and there are several, in order of preference.
        configs: Likewise configurations.

    Raises:
        UserError: The package `datasets` is missing, or there is no such data set, configuration or split, or no
            network.
    """
    if find_spec("datasets") is None:
        raise missing_package(f"reading {name}", "datasets", "'parityalign[datasets]'")
    place, said = divided(name)
    config, _, split = (said or "").rpartition("/")
    _refuse_pipes(Path(place))
    with _readable(name):
        table = _opened(place, _chosen_config(place, config, configs), split or None, prefer)
        for column, kind in (table.features or {}).items():
            if type(kind).__name__ == "Image":
                table = table.cast_column(column, _undecoded())
    known = (table.info.splits or {}).get(str(table.split))
    return SplitRows(_rows(name, table), known.num_examples if known else None)


def _rows(name: str, table: "datasets.IterableDataset") -> Iterator[Mapping[str, object]]:
    with _readable(name):
        yield from table


def _refuse_pipes(place: Path) -> None:
    """Refuses a folder with a pipe or device among the files that the library would open, and wait for."""
    for path in files_below(place) if place.is_dir() else [place]:
        if path.suffix.lower() in _OPENED and path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"cannot read the data set {place}: {path} is a pipe or a device, not a file")


def _refuse_elsewhere(folder: Path, tables: Mapping[str, Sequence[str]]) -> None:
    """Refuses a folder whose README names tables of this machine outside it; links in it are followed."""
    homes = (Path(os.path.abspath(folder)), Path(os.path.realpath(folder)))
    for table in chain.from_iterable(tables.values()):
        protocol, _, place = table.split("::")[-1].rpartition("://")
        inside = any(Path(os.path.abspath(place)).is_relative_to(home) for home in homes)
        if protocol in ("", "file", "local") and not inside:
            raise UserError(f"the data set {folder} names {place}, which is outside its folder; see its README.md")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    # No network, no such set, broken files.
    unreadable: tuple[type[Exception], ...] = (*out_of_reach(), OSError, ValueError, RuntimeError)
    try:
        with proxies_in_words(f"cannot read the data set {name}"):
            yield
    except unreadable as problem:
        raise UserError(
            f"cannot read the data set {name}: {(str(problem) or repr(problem)).splitlines()[0]}.\n"
            "Check its name and the network; or download it and name the folder: hf:./folder"
        ) from problem


def _undecoded() -> "datasets.Image":
    import datasets  # noqa: PLC0415

    return datasets.Image(decode=False)


def _chosen_config(place: str, config: str, prefer: Sequence[str]) -> str | None:
    """The configuration to read; None where nothing asks for one, or there is none."""
    if not (config or prefer) or _is_saved(Path(place)) or Path(place).is_file():
        return None
    import datasets  # noqa: PLC0415

    known = datasets.get_dataset_config_names(place)
    if config and config not in known:
        raise UserError(f"{place} has no configuration {config!r}. {did_you_mean(config, known)}")
    liked = [config] if config else known if len(known) == 1 else [name for name in prefer if name in known]
    if not liked:
        raise UserError(
            f"{place} has the configurations {', '.join(known)}; say which, with a split: hf:{place}:{known[0]}/SPLIT"
        )
    return liked[0]


def _is_saved(place: Path) -> bool:
    return any((place / name).is_file() for name in SAVED)


def _opened(place: str, config: str | None, split: str | None, prefer: Sequence[str]) -> "datasets.IterableDataset":
    import datasets  # noqa: PLC0415

    path = Path(place)
    if _is_saved(path):
        saved = datasets.load_from_disk(place)
        parts = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        return parts[_chosen(place, list(parts), split, prefer)].to_iterable_dataset()
    if path.is_file():
        return datasets.load_dataset("parquet", data_files=place, split=split or "train", streaming=True)
    if path.is_dir():
        _refuse_elsewhere(path, datasets.load_dataset_builder(place, config).config.data_files or {})
    known = datasets.get_dataset_split_names(place, config)
    return datasets.load_dataset(place, config, split=_chosen(place, known, split, prefer), streaming=True)


def _chosen(place: str, known: Sequence[str], split: str | None, prefer: Sequence[str]) -> str:
    if split is not None:
        if split not in known:
            raise UserError(f"{place} has no split {split!r}. {did_you_mean(split, list(known))}")
        return split
    if len(known) == 1:
        return known[0]
    liked = [name for name in prefer if name in known]
    if not liked:
        raise UserError(f"{place} has the splits {', '.join(known)}; say which: hf:{place}:{known[0]}")
    return liked[0]
