"""What the student is trained on: gaps with replay or a control's choice, split so that no image leaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import artifact
from parityalign.config.training import LevelSettings
from parityalign.core.interfaces import LevelResult
from parityalign.core.records import Judged, Pair, Verdict, VerdictKind
from parityalign.stages.level import choose_pairs, level_on_gaps, was_levelled

KINDS = list(VerdictKind)
GAP, RIGHT, BOTH, DROPPED, NEITHER = (
    VerdictKind.TEACHER_ONLY,
    VerdictKind.STUDENT_RIGHT,
    VerdictKind.BOTH,
    VerdictKind.DROPPED,
    VerdictKind.NEITHER,
)


def judged(*kinds, images=None):
    """Pairs with these verdicts, each on an image of its own unless told otherwise."""
    pairs = [
        Pair(
            pair_id=f"p{number}",
            image_id=f"i{number % (images or len(kinds))}",
            image="a.png",
            task="toy",
            question="What?",
            answer="tea",
            teacher="t",
        )
        for number in range(len(kinds))
    ]
    verdicts = [Verdict(pair_id=pair.pair_id, verdict=kind, reason="") for pair, kind in zip(pairs, kinds, strict=True)]
    return [*map(Judged, pairs, verdicts)]


def chosen(kinds, *, images=None, seed=0, **options):
    choice = choose_pairs(judged(*kinds, images=images), LevelSettings(**options), seed)
    return choice, {pair.pair_id for pair in (*choice.training, *choice.held_out)}


def ids(kinds, *wanted):
    return {f"p{number}" for number, kind in enumerate(kinds) if kind in wanted}


@given(st.lists(st.sampled_from(KINDS), max_size=60), st.sampled_from([0, 0.2, 0.5, 0.75]), st.integers(0, 5))
def test_all_gaps_are_trained_on_and_replay_has_its_share_as_far_as_there_is_any(kinds, replay, seed):
    choice, taken = chosen(kinds, replay=replay, seed=seed)
    gaps, right = ids(kinds, GAP), ids(kinds, RIGHT, BOTH)
    wanted = round(len(gaps) * replay / (1 - replay))
    assert gaps <= taken <= gaps | right
    assert choice.replayed == len(taken - gaps) == min(wanted, len(right))


@given(
    st.lists(st.sampled_from([GAP, RIGHT]), min_size=2, max_size=60),
    st.integers(1, 12),
    st.sampled_from([0.05, 0.3, 0.9]),
    st.sampled_from(["gaps", "all", "random"]),
)
def test_no_image_is_on_both_sides_and_the_share_is_kept(kinds, images, held_out, select):
    choice, taken = chosen(kinds, images=images, held_out=held_out, select=select)
    training, aside = ({pair.image_id for pair in side} for side in (choice.training, choice.held_out))
    assert not training & aside
    assert len(choice.training) + len(choice.held_out) == len(taken)
    together = len(training | aside)
    if together > 1:
        assert training and len(aside) == min(max(1, round(held_out * together)), together - 1)
    else:
        assert not aside


def test_an_unsure_pair_is_neither_a_gap_nor_replayed():
    kinds = [GAP] * 4 + [RIGHT] * 3 + [VerdictKind.UNSURE] * 40
    assert chosen(kinds)[1] == ids(kinds, GAP, RIGHT)


def test_the_controls_take_what_they_say_and_never_a_dropped_pair():
    kinds = [GAP] * 4 + [RIGHT] * 9 + [NEITHER] * 5 + [DROPPED] * 40
    usable = ids(kinds, GAP, RIGHT, NEITHER)
    assert chosen(kinds, select="all")[1] == usable
    choice, taken = chosen(kinds, select="random")
    assert len(taken) == 8 and taken < usable and choice.replayed == 0
    assert taken != chosen(kinds, select="gaps")[1]


def test_the_draw_hangs_on_the_seed_and_the_pairs_but_not_on_their_order():
    kinds = [GAP] * 10 + [RIGHT] * 40
    pairs = judged(*kinds)
    there = choose_pairs(pairs, LevelSettings(), 0)
    back = choose_pairs(pairs[::-1], LevelSettings(), 0)
    for side, reversed_side in zip(there[:2], back[:2], strict=True):
        assert {pair.pair_id for pair in side} == {pair.pair_id for pair in reversed_side}
    assert chosen(kinds, seed=0)[1] != chosen(kinds, seed=1)[1]


def test_one_more_pair_changes_one_replay_pair_at_most():
    kinds = [GAP] * 10 + [RIGHT] * 40
    before, after = chosen(kinds)[1], chosen([*kinds, RIGHT])[1]
    assert len(before ^ after) <= 2


class Trainer:
    """Remembers what it was given and saves a file."""

    def __init__(self):
        self.calls = []

    def __call__(self, pairs, held_out, out):
        self.calls.append((list(pairs), list(held_out)))
        (out / "model.safetensors").write_bytes(b"weights")
        return LevelResult(steps=9, best_step=6, held_out_loss_before=2.0, held_out_loss_after=1.0)


def run(folder, kinds, trainer, **options):
    made = artifact(folder, "student")
    level_on_gaps(made, judged(*kinds), trainer, settings=LevelSettings(**options), seed=0)
    return made


def test_the_leveller_gets_the_choice_and_the_manifest_tells_what_came_of_it(tmp_path):
    trainer = Trainer()
    kinds = [GAP] * 10 + [RIGHT] * 40 + [DROPPED]
    made = run(tmp_path, kinds, trainer, held_out=0.1)
    choice, _ = chosen(kinds, held_out=0.1)
    assert trainer.calls == [(choice.training, choice.held_out)]
    assert made.manifest["counts"] == {"gaps": 10, "replay": 10, "training": 18, "held_out": 2}
    assert made.manifest["training_by_task"] == {"toy": 18}
    assert made.manifest["result"]["best_step"] == 6 and made.manifest["result"]["held_out_loss_after"] == 1.0
    assert was_levelled(made) and "model.safetensors" in made.manifest["files"]


def test_a_step_that_did_not_fit_is_noted(tmp_path):
    made = artifact(tmp_path, "student")
    tight = lambda *_: LevelResult(9, 6, 2.0, 1.0, micro_batch_size=4)  # noqa: E731
    level_on_gaps(made, judged(GAP, GAP), tight, settings=LevelSettings(batch_size=16), seed=0)
    assert "each step of 16 pairs was split into micro-batches of 4" in made.manifest["note"]
    assert made.manifest["result"]["micro_batch_size"] == 4


@pytest.mark.parametrize("kinds", [[], [RIGHT, NEITHER], [DROPPED]])
def test_without_gaps_the_student_is_left_as_it_is_and_the_manifest_says_so(tmp_path, kinds):
    made = run(tmp_path, kinds, lambda *_: pytest.fail("trained on nothing"))
    assert made.manifest["outcome"] == "no_gaps" and "student is unchanged" in made.manifest["note"]
    assert made.manifest["counts"] == {"gaps": 0, "replay": 0, "training": 0, "held_out": 0}
    assert not was_levelled(made)


def test_a_single_image_is_trained_on_with_nothing_held_out(tmp_path):
    trainer = Trainer()
    run(tmp_path, [GAP], trainer)
    assert [len(side) for side in trainer.calls[0]] == [1, 0]


def test_a_finished_student_is_not_trained_again(tmp_path):
    trainer = Trainer()
    for _ in range(2):
        made = run(tmp_path, [GAP, RIGHT, GAP], trainer)
    assert len(trainer.calls) == 1 and was_levelled(made)
