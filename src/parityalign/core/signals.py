"""Signals: the log-probabilities and attention of a model scored teacher-forced on the pairs' answers.

A shard is one safetensors file for one batch of pairs. A line of the index (`ObservationRef`) says in which
shard a pair's arrays are. With the 16 likeliest tokens and an 8 x 8 map, a pair of four tokens takes about 600 bytes.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save

from parityalign.core.artifacts import Artifact
from parityalign.core.errors import UserError
from parityalign.core.files import write_whole
from parityalign.core.jsonl import Stream
from parityalign.core.records import Rationale, Record, content_id

Array = NDArray[Any]

TEACHER, STUDENT = "teacher", "student"
"""The models that are scored; each has an index of that name."""
ON_RATIONALES = "_rationales"
"""Suffix of the model's name in the index of its scores on the teacher's rationales."""
RATIONALES = "rationales.jsonl"

TOP = 16
"""Alternatives stored for each token."""
_PER_TOKEN = ("ids", "ends", "logprobs", "top_ids", "top_logprobs", "tail")


@dataclass(frozen=True)
class Observation:
    """One model scored on one answer, its end token included. Log-probabilities are natural ones."""

    ids: Array
    """(tokens,) int32: the answer in the model's own tokens."""
    ends: Array
    """(tokens,) int32: where in the answer's text each token ends, in characters."""
    logprobs: Array
    """(tokens,) float16, each conditioned on the image, the question and the tokens before it."""
    top_ids: Array
    """(tokens, k) int32: the likeliest tokens at each position, the likeliest first."""
    top_logprobs: Array
    """(tokens, k) float16."""
    tail: Array
    """(tokens,) float16: the log of the probability mass of all other tokens; -inf if there is none."""
    places: Array
    """(cells,) float16: how much the answer's positions attend to each cell of the picture, row by row
    from the upper left corner, sums to 1; empty where the attention cannot be read."""

    @property
    def mean_logprob(self) -> float:
        """Mean over the tokens."""
        return float(self.logprobs.astype(np.float64).mean())


class ObservationRef(Record):
    """Where a pair's observation is stored, or why there is none: one line of an index."""

    pair_id: str
    shard: str | None = None
    """Name of the file; None if only the mean is stored."""
    row: int = 0
    tokens: int = 0
    mean_logprob: float | None = None
    """Of the answer's tokens."""
    has_places: bool = False
    why_not: str | None = None
    """Why there is no observation: a reason code."""


def write_shard(path: Path, observations: Sequence[Observation]) -> None:
    """Writes a batch of observations into one file, atomically.

    Raises:
        WorkFailed: The disk refused.
    """
    write_whole(path, _packed(observations))


def read_shard(path: Path) -> list[Observation]:
    """The observations of a file, in the order in which they were written.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        return _unpacked(load_file(path))
    except (OSError, SafetensorError, KeyError, ValueError) as problem:
        raise UserError(
            f"the observations in {path} cannot be read: {problem}\n"
            f"Delete the folder {path.parent} and run the same command to make it again."
        ) from problem


def pack_observation(observation: Observation) -> bytes:
    """One observation as bytes, in the form of a shard."""
    return _packed([observation])


def unpack_observation(content: bytes) -> Observation:
    """The inverse of `pack_observation`."""
    (observation,) = _unpacked(load(content))
    return observation


def signals_digest(artifact: Artifact, pair_ids: Collection[str]) -> str:
    """A digest of everything that a discrepancy artifact holds on some pairs.

    Raises:
        UserError: The artifact is damaged.
    """
    artifact.check()
    parts = []
    for who in (TEACHER, STUDENT, TEACHER + ON_RATIONALES, STUDENT + ON_RATIONALES):
        index = [line for line in read_index(artifact.path, who) if line.pair_id in pair_ids]
        parts += [f"{line.pair_id} {line.mean_logprob} {line.why_not}" for line in index]
        parts += [
            hashlib.sha256(pack_observation(seen)).hexdigest() for _, seen in read_observations(artifact.path, index)
        ]
    for line in artifact.stream(RATIONALES, Rationale):
        parts += [line.model_dump_json()] if line.pair_id in pair_ids else []
    return content_id(*parts)


def _packed(observations: Sequence[Observation]) -> bytes:
    arrays = {name: np.concatenate([getattr(each, name) for each in observations]) for name in _PER_TOKEN}
    arrays["lengths"] = np.array([len(each.ids) for each in observations], dtype=np.int32)
    arrays["cells"] = np.array([len(each.places) for each in observations], dtype=np.int32)
    arrays["places"] = np.concatenate([each.places for each in observations])
    return save(arrays)


def _unpacked(arrays: Mapping[str, Array]) -> list[Observation]:
    tokens, cells = np.cumsum(arrays["lengths"])[:-1], np.cumsum(arrays["cells"])[:-1]
    columns = [np.split(arrays[name], tokens) for name in _PER_TOKEN]
    places = np.split(arrays["places"], cells)
    return [Observation(*row) for row in zip(*columns, places, strict=True)]


def read_index(folder: Path, who: str) -> list[ObservationRef]:
    """The index of one model: `TEACHER` or `STUDENT`, followed by `ON_RATIONALES` for the scores on rationales.

    Raises:
        UserError: A line is not such a record.
    """
    return list(Stream(folder / f"{who}.jsonl", ObservationRef, read_only=True))


def read_observations(folder: Path, index: Iterable[ObservationRef]) -> Iterator[tuple[ObservationRef, Observation]]:
    """Each line of an index that has an observation, with the observation; one shard at a time is in memory.

    Args:
        folder: The folder of the shards.
        index: The lines, those of one shard next to each other.

    Raises:
        UserError: A shard is missing, damaged, or not the one that the index refers to.
    """
    name: str | None = None
    shard: list[Observation] = []
    for line in index:
        if line.shard is None:
            continue
        if line.shard != name:
            name, shard = line.shard, read_shard(folder / line.shard)
        if line.row >= len(shard) or len(shard[line.row].ids) != line.tokens:
            raise UserError(f"{folder / line.shard} does not hold the observation of the pair {line.pair_id}")
        yield line, shard[line.row]
