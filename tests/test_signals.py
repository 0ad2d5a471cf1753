"""Observations come back from their shards as they went in; what is damaged is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityalign.core.errors import UserError
from parityalign.core.signals import Observation, ObservationRef, read_observations, read_shard, write_shard


def observation(tokens: int, *, seed: int = 0, cells: int = 4, top: int = 3) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        ids=rng.integers(0, 200_000, tokens).astype(np.int32),
        ends=np.arange(1, tokens + 1, dtype=np.int32),
        logprobs=-rng.random(tokens).astype(np.float16),
        top_ids=rng.integers(0, 200_000, (tokens, top)).astype(np.int32),
        top_logprobs=-rng.random((tokens, top)).astype(np.float16),
        tail=np.full(tokens, -np.inf, dtype=np.float16),
        places=rng.random(cells).astype(np.float16),
    )


def lines(shard: str, those: list[Observation]) -> list[ObservationRef]:
    return [
        ObservationRef(pair_id=str(row), shard=shard, row=row, tokens=len(each.ids)) for row, each in enumerate(those)
    ]


def same(one: Observation, other: Observation) -> bool:
    return all(
        np.array_equal(value, getattr(other, name)) and value.dtype == getattr(other, name).dtype
        for name, value in vars(one).items()
    )


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 4])), min_size=1, max_size=8))
def test_a_shard_gives_back_what_was_written(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("shard") / "teacher-0.safetensors"
    written = [observation(tokens, seed=seed, cells=cells) for seed, (tokens, cells) in enumerate(sizes)]
    write_shard(path, written)
    assert all(map(same, written, read_shard(path)))


def test_a_pair_takes_less_than_a_kilobyte(tmp_path):
    pairs = 100
    write_shard(tmp_path / "s", [observation(4, seed=seed, cells=64, top=16) for seed in range(pairs)])
    assert (tmp_path / "s").stat().st_size / pairs < 1000


def test_pairs_are_found_in_several_shards_and_those_without_are_passed_over(tmp_path):
    first, second = [observation(2), observation(3)], [observation(1, seed=5)]
    write_shard(tmp_path / "a", first)
    write_shard(tmp_path / "b", second)
    index = [*lines("a", first), ObservationRef(pair_id="x", shard=None, why_not="special_token"), *lines("b", second)]
    found = list(read_observations(tmp_path, index))
    assert [line.pair_id for line, _ in found] == ["0", "1", "0"]
    assert all(map(same, [*first, *second], [each for _, each in found]))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_missing_or_damaged_shard_is_named_with_the_way_out(tmp_path, damage):
    write_shard(tmp_path / "a", [observation(2)])
    damage(tmp_path / "a")
    with pytest.raises(UserError, match=r"(?s)a cannot be read.*Delete the folder"):
        list(read_observations(tmp_path, lines("a", [observation(2)])))


def test_a_shard_that_the_index_does_not_speak_of_is_refused(tmp_path):
    write_shard(tmp_path / "a", [observation(2)])
    with pytest.raises(UserError, match="does not hold the observation of the pair 0"):
        list(read_observations(tmp_path, lines("a", [observation(3)])))
