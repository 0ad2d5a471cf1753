"""What the student is trained on: gaps with replay or a control's choice, split so that no image leaks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import artifact, task
from parityalign.config.schema import IdentifySettings, RunConfig
from parityalign.config.training import LevelSettings
from parityalign.core.interfaces import LevelResult
from parityalign.core.records import Judged, Pair, Verdict, VerdictKind
from parityalign.core.results import HeldOutPair
from parityalign.stages.acceptance import hold_out, is_better, judged_after
from parityalign.stages.level import choose_pairs, level_on_gaps, was_levelled
from parityalign.stages.run_scores import held_out_of
from parityalign.stages.targets import with_teacher_answers

KINDS = list(VerdictKind)
GAP, RIGHT, BOTH, DROPPED, NEITHER = (
    VerdictKind.TEACHER_ONLY,
    VerdictKind.STUDENT_RIGHT,
    VerdictKind.BOTH,
    VerdictKind.DROPPED,
    VerdictKind.NEITHER,
)
TASKS, RULE = {"toy": task()}, IdentifySettings()


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
    return choice, {pair.pair_id for pair in choice.training}


def held_images(choice):
    return {pair.image_id for pair, _ in choice.held_out}


def ids(kinds, *wanted):
    return {f"p{number}" for number, kind in enumerate(kinds) if kind in wanted}


@given(st.lists(st.sampled_from(KINDS), max_size=60), st.sampled_from([0, 0.2, 0.5, 0.75]), st.integers(0, 5))
def test_all_gaps_that_are_not_held_out_are_trained_on_and_replay_has_its_share(kinds, replay, seed):
    choice, taken = chosen(kinds, replay=replay, seed=seed)
    held = hold_out(judged(*kinds), LevelSettings(), seed).images
    free = {f"p{number}" for number in range(len(kinds)) if f"i{number}" not in held}
    gaps, right = ids(kinds, GAP) & free, ids(kinds, RIGHT, BOTH) & free
    wanted = round(len(gaps) * replay / (1 - replay))
    assert gaps <= taken <= gaps | right
    assert choice.replayed == len(taken - gaps) == min(wanted, len(right))


@given(
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=60),
    st.integers(1, 12),
    st.sampled_from([0.05, 0.3, 0.9]),
    st.sampled_from(["gaps", "all", "random"]),
)
def test_images_are_held_out_before_anything_is_chosen_and_all_their_usable_pairs_judge(
    kinds, images, held_out, select
):
    choice, _ = chosen(kinds, images=images, held_out=held_out, select=select)
    pairs = judged(*kinds, images=images)
    held = hold_out(pairs, LevelSettings(held_out=held_out), 0)
    together = len({pair.image_id for pair, verdict in pairs if verdict.verdict != DROPPED})
    assert len(held.images) == (min(max(1, round(held_out * together)), together - 1) if together > 1 else 0)
    assert not held.images & {pair.image_id for pair in choice.training}
    assert choice.held_out == [
        each for each in pairs if each.pair.image_id in held.images and each.verdict.verdict in (GAP, RIGHT, BOTH)
    ]


def test_many_held_out_pairs_are_sampled():
    kinds = [GAP, RIGHT] * 30
    choice, _ = chosen(kinds, held_out=0.5, held_out_pairs=7)
    assert len(choice.held_out) == 7


@given(st.integers(1, 20), st.integers(0, 200))
def test_replay_is_by_default_the_pools_share_of_right_pairs_between_a_half_and_four_fifths(gaps, right):
    choice, taken = chosen([GAP] * gaps + [RIGHT] * right)
    trained = len(taken) - choice.replayed
    free_right = right - sum(verdict.verdict == RIGHT for _, verdict in choice.held_out)
    share = min(0.8, max(0.5, free_right / max(1, free_right + trained)))
    assert choice.replayed == min(free_right, round(trained * share / (1 - share)))


def test_replay_is_drawn_by_task_in_proportion_to_the_gaps():
    kinds = [GAP] * 30 + [RIGHT] * 60 + [GAP] * 10 + [RIGHT] * 400
    pairs = [
        Judged(pair.model_copy(update={"task": "few" if number >= 90 else "many"}), verdict)
        for number, (pair, verdict) in enumerate(judged(*kinds))
    ]
    choice = choose_pairs(pairs, LevelSettings(replay=0.5), 0)
    right = {pair.pair_id for pair, verdict in pairs if verdict.verdict == RIGHT}
    count = Counter((pair.task, pair.pair_id in right) for pair in choice.training)
    assert abs(count["many", True] - count["many", False]) <= 1 and abs(count["few", True] - count["few", False]) <= 1


def test_an_unsure_pair_is_neither_a_gap_nor_replayed():
    kinds = [GAP] * 4 + [RIGHT] * 3 + [VerdictKind.UNSURE] * 40
    for select in ("gaps", "all", "random"):
        choice, taken = chosen(kinds, select=select)
        assert not ids(kinds, VerdictKind.UNSURE) & {*taken, *(pair.pair_id for pair, _ in choice.held_out)}


def test_the_controls_take_what_they_say_and_never_a_dropped_pair():
    kinds = [GAP] * 4 + [RIGHT] * 9 + [NEITHER] * 5 + [DROPPED] * 40
    held = hold_out(judged(*kinds), LevelSettings(), 0).images
    usable = {name for name in ids(kinds, GAP, RIGHT, NEITHER) if name.replace("p", "i") not in held}
    assert chosen(kinds, select="all")[1] == usable
    choice, taken = chosen(kinds, select="random")
    _, gaps = chosen(kinds, select="gaps")
    assert len(taken) == len(gaps) and taken < usable and choice.replayed == 0
    assert taken != gaps


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_auto_takes_gaps_and_the_pools_own_replay_and_says_what_the_pool_came_to(gaps, right, neither):
    kinds = [GAP] * gaps + [RIGHT] * right + [NEITHER] * neither
    choice, _ = chosen(kinds, select="auto")
    held = {image.replace("i", "p") for image in hold_out(judged(*kinds), LevelSettings(), 0).images}
    free = [len(ids(kinds, kind) - held) for kind in (GAP, RIGHT, NEITHER)]
    fixed, _ = chosen(kinds, select="gaps")
    assert choice[:3] == fixed[:3] and not fixed.why
    assert f"{100 * free[0] / max(1, sum(free)):.0f} % of the {sum(free):,} usable pairs are gaps" in choice.why


def test_the_draw_hangs_on_the_seed_and_the_pairs_but_not_on_their_order():
    kinds = [GAP] * 10 + [RIGHT] * 40
    pairs = judged(*kinds)
    there = choose_pairs(pairs, LevelSettings(), 0)
    back = choose_pairs(pairs[::-1], LevelSettings(), 0)
    assert {pair.pair_id for pair in there.pairs} == {pair.pair_id for pair in back.pairs}
    assert held_images(there) == held_images(back)
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


def before(held):
    """What the student said in identify."""
    return {pair.pair_id: pair.answer if verdict.verdict in (RIGHT, BOTH) else "?" for pair, verdict in held}


def knows(*verdicts):
    """The held-out pairs that a levelled student has right: those with these verdicts."""

    def check(student, held):
        assert (student.path / "model.safetensors").is_file()
        after = {p.pair_id: p.answer if v.verdict in verdicts else "?" for p, v in held}
        return judged_after(held, before(held), after, TASKS, RULE)

    return check


def run(folder, kinds, trainer, check=None, **options):
    made = artifact(folder, "student")
    check = check or knows(GAP, RIGHT, BOTH)
    level_on_gaps(made, judged(*kinds), trainer, check, settings=LevelSettings(**options), seed=0)
    return made


def test_the_leveller_gets_the_choice_and_the_manifest_tells_what_came_of_it(tmp_path):
    trainer = Trainer()
    kinds = [GAP] * 10 + [RIGHT] * 40 + [DROPPED]
    made = run(tmp_path, kinds, trainer, held_out=0.1)
    choice, _ = chosen(kinds, held_out=0.1)
    assert trainer.calls == [(choice.training, [pair for pair, _ in choice.held_out])]
    training, held = len(choice.training), len(choice.held_out)
    sizes = {"replay": choice.replayed, "training": training, "held_out": held}
    assert made.manifest["counts"] == {"pairs": 51, "gaps": 10, **sizes}
    assert made.manifest["training_by_task"] == {"toy": training}
    assert made.manifest["result"]["best_step"] == 6 and made.manifest["result"]["held_out_loss_after"] == 1.0
    assert was_levelled(made) and "model.safetensors" in made.manifest["files"]


def test_a_step_that_did_not_fit_is_noted(tmp_path):
    made = artifact(tmp_path, "student")

    def tight(pairs, held_out, out):
        (out / "model.safetensors").write_bytes(b"weights")
        return LevelResult(9, 6, 2.0, 1.0, micro_batch_tokens=4000)

    level_on_gaps(made, judged(GAP, GAP), tight, knows(GAP), settings=LevelSettings(batch_size=16), seed=0)
    assert (
        "steps of 16 pairs were split into micro-batches, at times of no more than 4,000 tokens"
        in made.manifest["note"]
    )
    assert made.manifest["result"]["micro_batch_tokens"] == 4000


def test_weights_part_of_the_way_are_noted(tmp_path):
    def part_of_the_way(pairs, held_out, out):
        (out / "model.safetensors").write_bytes(b"weights")
        return LevelResult(9, 6, 2.0, 1.0, interpolation=0.75)

    made = run(tmp_path, [GAP] * 4, part_of_the_way)
    assert "lowest with weights 75% of the way from the student's to the trained ones" in made.manifest["note"]
    assert "of the way" not in run(tmp_path / "whole", [GAP] * 4, Trainer()).manifest["note"]


@pytest.mark.parametrize("kinds", [[], [RIGHT, NEITHER], [DROPPED]])
def test_without_gaps_the_student_is_left_as_it_is_and_the_manifest_says_so(tmp_path, kinds):
    made = run(tmp_path, kinds, lambda *_: pytest.fail("trained on nothing"))
    assert made.manifest["outcome"] == "no_gaps" and "student is unchanged" in made.manifest["note"]
    counts = made.manifest["counts"]
    assert (counts["pairs"], counts["gaps"], counts["training"]) == (len(kinds), 0, 0)
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


# Acceptance


MANY = [GAP] * 20 + [RIGHT] * 100


def test_a_student_that_learns_the_gaps_and_forgets_the_rest_is_refused_and_left_as_it_was(tmp_path):
    made = run(tmp_path, MANY, Trainer(), knows(GAP), held_out=0.5)
    assert made.manifest["outcome"] == "not_better" and not was_levelled(made)
    assert [*made.manifest["files"]] == ["held_out.jsonl"] and "left as it was" in made.manifest["note"]
    found = held_out_of(made, seed=0)
    assert not found.accepted and found.total.gaps_closed.share == found.total.lost.share == 1.0
    assert found.total.before.count > found.total.after.count


def test_a_student_that_learns_the_gaps_and_keeps_the_rest_is_taken(tmp_path):
    made = run(tmp_path, MANY, Trainer(), held_out=0.5)
    assert was_levelled(made) and {*made.manifest["files"]} == {"held_out.jsonl", "model.safetensors"}
    found = held_out_of(made, seed=0)
    assert found.accepted and found.total.after.share == 1.0 and found.total.lost.count == 0
    low, high = found.total.difference.ci
    assert 0 < low <= found.total.difference.score <= high and found.total.p < 0.05
    assert found.total.pairs == found.total.before.of == sum(task.pairs for task in found.tasks.values())


@pytest.mark.parametrize(
    ("by_image", "taken"),
    [
        ([1], True),
        ([1] * 29 + [-1] * 27, False),
        ([1] * 8 + [-1] * 4, True),
        ([4, -1, -1, -1], False),  # four pairs on one picture are no four witnesses
    ],
)
def test_a_gain_smaller_than_its_standard_error_over_images_may_be_chance_and_is_refused(by_image, taken):
    held = [
        HeldOutPair(
            pair_id=f"{image}-{pair}",
            image_id=str(image),
            task="signs",
            right_before=change < 0,
            right_after=change > 0,
            text="",
        )
        for image, change in enumerate(by_image)
        for pair in range(abs(change))
    ]
    assert is_better(LevelResult(1, 1, 2.0, 1.0), held) is taken


def test_a_student_that_learns_as_much_as_it_forgets_is_refused_whatever_its_loss(tmp_path):
    def check(student, held):
        learnt, lost = ([p.pair_id for p, v in held if v.verdict == kind][:3] for kind in (GAP, RIGHT))
        right = {p.pair_id for p, v in held if v.verdict == RIGHT} - {*lost} | {*learnt}
        after = {p.pair_id: p.answer if p.pair_id in right else "?" for p, _ in held}
        return judged_after(held, before(held), after, TASKS, RULE)

    made = run(tmp_path, MANY, Trainer(), check, held_out=0.5)
    assert held_out_of(made, 0).total.difference.score == 0 and not was_levelled(made)


@pytest.mark.parametrize(("after", "taken"), [(1.0, True), (2.0, False), (3.0, False)])
def test_of_the_same_right_answers_the_loss_decides(tmp_path, after, taken):
    def trainer(pairs, held_out, out):
        (out / "model.safetensors").write_bytes(b"weights")
        return LevelResult(9, 6, 2.0, after)

    assert was_levelled(run(tmp_path, MANY, trainer, knows(RIGHT), held_out=0.5)) == taken


def test_where_no_checkpoint_was_better_by_the_loss_nobody_is_asked(tmp_path):
    def trainer(pairs, held_out, out):
        (out / "model.safetensors").write_bytes(b"the student before")
        return LevelResult(9, 0, 2.0, 2.0)

    made = run(tmp_path, MANY, trainer, lambda *_: pytest.fail("it was asked"), held_out=0.5)
    assert made.manifest["outcome"] == "not_better" and held_out_of(made, 0).total.difference.score == 0


def test_the_identity_of_a_student_is_its_files_alone(tmp_path):
    one, other = (run(tmp_path / name, kinds, Trainer()) for name, kinds in (("a", MANY), ("b", MANY[1:])))
    assert one.digest == other.digest
    refused = run(tmp_path / "c", MANY, Trainer(), knows(GAP), held_out=0.5)
    assert refused.digest != one.digest


def test_a_kill_once_the_held_out_pairs_were_kept_changes_nothing_of_the_identity(tmp_path):
    whole = run(tmp_path / "whole", MANY, Trainer())
    killed = artifact(tmp_path / "killed", "student").path
    (killed / "held_out.jsonl").write_bytes((whole.path / "held_out.jsonl").read_bytes())
    assert run(tmp_path / "killed", MANY, Trainer()).manifest == whole.manifest


def answered(kind, said, **changes):
    """A pair whose answer is `tea`, and what the teacher said of it."""
    (each,) = judged(kind)
    pair = each.pair.model_copy(update={"pair_id": f"{kind} {said} {changes}"} | changes)
    return Judged(pair, each.verdict.model_copy(update={"pair_id": pair.pair_id, "teacher_text": said}))


def test_the_teachers_short_answer_is_learnt_where_it_agrees_and_no_person_said_otherwise():
    cases = {
        "green tea": answered(GAP, "**green tea**."),
        "black tea": answered(BOTH, "black tea"),
        "tea": answered(RIGHT, None),
        "milk": answered(NEITHER, "coffee", answer="milk"),
        "mint tea": answered(GAP, "mint", answer="mint tea", written="tea"),
        "my tea": answered(GAP, "tea", answer="my tea", teacher="given:mine.jsonl"),
        "long tea": answered(GAP, "tea " * 60, answer="long tea"),
    }
    every = [*cases.values()]
    learnt = with_teacher_answers([pair for pair, _ in every], every)
    assert [pair.answer for pair in learnt] == [*cases]
    assert [pair.pair_id for pair in learnt] == [pair.pair_id for pair, _ in every]


@pytest.mark.parametrize(("target", "answers"), [(None, {"tea"}), ("teacher", {"tea", "green tea"})])
def test_by_default_the_pairs_own_answers_are_learnt(tmp_path, target, answers):
    every = [
        Judged(pair, verdict.model_copy(update={"teacher_text": "green tea"} if verdict.verdict == GAP else {}))
        for pair, verdict in judged(*[GAP, RIGHT] * 10)
    ]
    learnt = []

    def trainer(pairs, held_out, out):
        learnt.extend(pairs)
        return LevelResult(steps=1, best_step=0, held_out_loss_before=1.0, held_out_loss_after=1.0)

    settings = LevelSettings(target=target)
    level_on_gaps(artifact(tmp_path, "student"), every, trainer, lambda *_: [], settings=settings, seed=0)
    assert {pair.answer for pair in learnt} == answers


def test_signals_of_other_answers_than_those_learnt_are_refused():
    told = {"run": "r", "teacher": "embedded:teacher", "student": "embedded:student", "tasks": {"vqa": {"images": "."}}}
    with pytest.raises(ValueError, match="belong to the pairs' own answers"):
        RunConfig.model_validate(told | {"level": {"target": "teacher", "objective": "discrepancy"}})
    assert RunConfig.model_validate(told | {"level": {"target": "teacher"}}).level.target == "teacher"
