"""The teacher's pairs: every draw is kept with its outcome, repeats are dropped, a kill changes nothing."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makers import artifact, content, kept, mute, task
from parityalign.config.schema import AnnotateSettings
from parityalign.core.errors import WorkFailed
from parityalign.core.records import ImageRef, Pair, Reply, content_id
from parityalign.engines import AnswerStore, CachedModel
from parityalign.models.backends.fake import FakeModel
from parityalign.stages.annotate import annotate_images


def images(count, task_name="toy"):
    return [ImageRef(image_id=content_id(str(n)), path=f"{n}.png", task=task_name) for n in range(count)]


def chatty(request, decoding):
    """A different but seeded reply to every draw, of every kind that there is."""
    kind = request.seed % 6
    return [
        "no pair at all",
        "Question: What is <image>? Answer: tea",
        "Question: What is sold? Answer: tea",
        "question: what is SOLD?  answer: Tea.",
        "Question: What is sold? Answer: milk",
        f"Question: Which number? Answer: {request.seed}",
    ][kind]


def teacher(reply=chatty, **options):
    return FakeModel(reply, name="fake:teacher", special_tokens=frozenset({"<image>"}), **options)


def run(folder, pictures, model, *, tasks=None, seed=0, progress=mute, **options):
    options = {"pairs_per_image": 1, "batch_size": 4} | options
    made = artifact(folder, "pairs")
    tasks = tasks or {"toy": task()}
    annotate_images(
        made, pictures, tasks, kept(folder, model), settings=AnnotateSettings(**options), seed=seed, progress=progress
    )
    return made


def replies(made):
    return list(made.stream("replies.jsonl", Reply))


def pairs_of(made):
    return list(made.stream("pairs.jsonl", Pair))


def test_each_image_is_asked_with_the_prompt_of_its_own_task_and_nothing_else(tmp_path):
    model = teacher(lambda request, _: f"Question: What is {request.image}? Answer: tea")
    pictures = [*images(2, "one"), *images(2, "two")]
    tasks = {"two": task("two"), "one": task("one"), "unused": task("unused")}
    made = run(tmp_path, pictures, model, tasks=tasks)
    assert [(request.image, request.prompt) for request in model.asked] == [
        ("0.png", "write for two"),
        ("1.png", "write for two"),
        ("0.png", "write for one"),
        ("1.png", "write for one"),
    ]
    pair = pairs_of(made)[2]
    assert (pair.task, pair.image, pair.question, pair.answer) == ("one", "", "What is 0.png?", "tea")
    assert pair.pair_id == content_id(pair.image_id, "one", pair.question, pair.answer, "fake:teacher")


def test_draws_follow_the_settings_and_their_seeds_hang_on_image_task_number_and_seed(tmp_path):
    decodings = []

    def reply(request, decoding):
        decodings.append(decoding)
        return f"Question: Which? Answer: {request.seed}"

    seeds = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = teacher(reply)
        run(tmp_path / name, images(3), model, seed=seed, pairs_per_image=2, temperature=0.7, max_new_tokens=9)
        seeds.append([request.seed for request in model.asked])
    assert seeds[0] == seeds[1] and not {*seeds[0]} & {*seeds[2]} and len({*seeds[0]}) == 6
    assert {(d.temperature, d.max_new_tokens) for d in decodings} == {(0.7, 9)}


def test_every_reply_is_kept_as_it_came_with_its_outcome(tmp_path):
    texts = iter(
        [
            "Question: What is sold? Answer: tea",
            "question: what is SOLD? answer: TEA.",
            "Question: What is sold? Answer: milk",
            "Question: What is sold? Answer: milk",
            "nothing",
            "Question: What is <image>? Answer: tea",
            "Question: How much? Answer: 5\n",
        ]
    )
    made = run(tmp_path, images(1), teacher(lambda *_: next(texts)), pairs_per_image=7)
    outcomes = [reply.outcome for reply in replies(made)]
    assert outcomes == ["ok", "duplicate", "repeat_question", "repeat_question", "no_question", "special_token", "ok"]
    assert replies(made)[6].raw == "Question: How much? Answer: 5\n"
    pairs = pairs_of(made)
    assert [(pair.question, pair.answer) for pair in pairs] == [("What is sold?", "tea"), ("How much?", "5")]
    assert [reply.pair_id for reply in replies(made) if reply.pair_id] == [pair.pair_id for pair in pairs]
    counts = made.manifest["counts"]
    dropped = {"duplicate": 1, "repeat_question": 2, "no_question": 1, "special_token": 1}
    assert counts == {"replies": 7, "pairs": 2, **dropped}
    assert made.manifest["by_task"] == {"toy": dict(Counter(outcomes))}


def test_the_same_pair_on_another_image_is_no_duplicate(tmp_path):
    made = run(tmp_path, images(3), teacher(lambda *_: "Question: What is sold? Answer: tea"))
    assert len({pair.pair_id for pair in pairs_of(made)}) == 3


def test_a_half_character_in_a_reply_does_not_stop_the_run(tmp_path):
    made = run(tmp_path, images(1), teacher(lambda *_: "Question: What is \ud800? Answer: tea"))
    assert pairs_of(made)[0].question == "What is ??"


def test_a_teacher_that_never_writes_a_pair_stops_the_run_after_three_batches(tmp_path):
    model = teacher(lambda request, _: f"I see \x1b[31m {request.image} " + "x" * 300)
    with pytest.raises(WorkFailed) as failure:
        run(tmp_path, images(40), model)
    message = str(failure.value)
    assert len(model.asked) == 12 and "none of 12 replies of fake:teacher for the task toy" in message
    shown = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert [line[:22] for line in shown] == [f"'I see \\x1b[31m {n}.png x"[:22] for n in range(3)]
    assert "\x1b" not in message and max(map(len, shown)) < 220 and "12 no_question" in message
    assert failure.value.exit_status == 1
    # What was computed is kept, and a second attempt asks for nothing before it says the same.
    with pytest.raises(WorkFailed, match="none of 12"):
        run(tmp_path, images(40), model)
    assert len(model.asked) == 12


def test_fewer_than_three_batches_without_a_pair_stop_the_run_too(tmp_path):
    with pytest.raises(WorkFailed, match="none of 2 replies"):
        run(tmp_path, images(2), teacher(lambda *_: ""))


def test_a_task_without_a_pair_stops_the_run_though_another_has_some(tmp_path):
    def reply(request, _):
        return "Question: What? Answer: tea" if request.prompt.endswith("one") else "nothing"

    with pytest.raises(WorkFailed, match="for the task two"):
        tasks = {"one": task("one"), "two": task("two")}
        run(tmp_path, [*images(20, "one"), *images(20, "two")], teacher(reply), tasks=tasks)


def test_a_late_first_pair_is_early_enough_within_three_batches(tmp_path):
    model = teacher(lambda r, _: "Question: What? Answer: tea" if r.image == "11.png" else "nothing")
    assert len(pairs_of(run(tmp_path, images(40), model))) == 1


def test_a_finished_artifact_asks_nobody(tmp_path):
    run(tmp_path, images(4), teacher())
    annotate_images(
        artifact(tmp_path, "pairs"),
        images(4),
        {"toy": task()},
        CachedModel("t", lambda: pytest.fail("the teacher was loaded"), AnswerStore()),
        settings=AnnotateSettings(),
        seed=0,
        progress=mute,
    )


def test_progress_counts_draws_by_task(tmp_path):
    told = []
    model = teacher(lambda *_: "Question: What? Answer: tea")
    run(tmp_path, images(3), model, pairs_per_image=2, progress=lambda *step: told.append(step))
    assert told == [("annotate toy", 0, 6), ("annotate toy", 4, 6), ("annotate toy", 6, 6)]


class Killed(BaseException):
    """Stands for the end of the process."""


@settings(max_examples=25, deadline=None)
@given(batches=st.integers(0, 12), cut=st.integers(0, 400), per_image=st.integers(1, 5))
def test_a_run_killed_anywhere_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path_factory, batches, cut, per_image):
    folder = tmp_path_factory.mktemp("runs")
    pictures = images(9)
    run(folder / "whole", pictures, teacher(), pairs_per_image=per_image)
    left = iter(range(4 * batches))

    def mortal(request, decoding):
        if next(left, None) is None:
            raise Killed
        return chatty(request, decoding)

    try:
        made = run(folder / "killed", pictures, teacher(mortal), pairs_per_image=per_image)
        (made.path / "manifest.json").unlink()  # killed after all, just before the end
        (made.path / "begun.json").write_text(json.dumps({"inputs": {}, "settings": {}, "version": 1}))
    except Killed:
        pass
    for file in ("replies.jsonl", "pairs.jsonl"):
        stream = folder / "killed/pairs" / file
        if stream.exists():
            stream.write_bytes(stream.read_bytes()[: -cut or None])
    again = teacher()
    run(folder / "killed", pictures, again, pairs_per_image=per_image)
    assert len(again.asked) == max(0, 9 * per_image - 4 * batches)
    assert content(folder / "killed/pairs") == content(folder / "whole/pairs")
