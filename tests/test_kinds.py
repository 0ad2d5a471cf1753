"""Kinds of questions, quotas and further draws: what a task's pairs should be of, and what annotate does about it."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from makers import artifact, content, kept, mute, speckle, task
from parityalign.config import AnnotateSettings, RunConfig, TaskData
from parityalign.core import RunFolder, Skill, load_part, part_names
from parityalign.core.records import Answer, ImageRef, Pair, Reply, Verdict, VerdictKind, content_id
from parityalign.engines import AnswerStore, CachedModel
from parityalign.models.backends.fake import FakeModel
from parityalign.report import question_tables
from parityalign.report.page import write_report
from parityalign.stages.annotate import annotate_images
from parityalign.stages.drawing import Draw, draw_of, draws_of
from parityalign.stages.parsing import ParsedPair
from parityalign.stages.shortage import OVER_QUOTA, Read, within_quotas
from parityalign.stages.variety import AnswerType, answer_type, opening, same_question
from parityalign.tasks import settled, task_of
from projects import configure, done

KINDS = ("counting", "reading", "colour")


def images(count, name="toy"):
    return [ImageRef(image_id=content_id(str(n)), path=f"{n}.png", task=name) for n in range(count)]


def asked_for(request):
    return request.prompt.rpartition(" ")[2]


def fair(request, _):
    return f"Question: Which {asked_for(request)} is {request.seed}? Answer: tea"


class Watched:
    """Progress that keeps what is said, and how often a model had been asked then."""

    def __init__(self, model):
        self.said, self._model = [], model

    def __call__(self, step, done, total):
        pass

    def say(self, text):
        self.said.append((len(self._model.asked), text))

    def confirm(self, question):
        return True


def annotated(folder, reply=fair, *, count=9, kinds=KINDS, seed=0, progress=None, **options):
    """What a teacher that replies so was asked, the artifact, and its replies."""
    model = FakeModel(reply, name="fake:teacher")
    toy = task_of_kinds(kinds)
    options = {"pairs_per_image": 2, "batch_size": 4, **options}
    made = artifact(folder, "pairs")
    watched = progress or Watched(model)
    teacher = kept(folder, model)
    chosen = AnnotateSettings(**options)
    annotate_images(made, images(count), {"toy": toy}, teacher, settings=chosen, seed=seed, progress=watched)
    return model.asked, made, list(made.stream("replies.jsonl", Reply)), watched


def task_of_kinds(kinds):
    toy = task()
    return toy.__class__(**{**vars(toy), "annotate_prompt": "write {kind}" if kinds else "write", "kinds": kinds})


# What a task asks for by default


def config(folder: Path, teacher="hf:some/teacher", annotate=None, **said) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": str(folder / "run"),
            "teacher": teacher,
            "student": "hf:some/student",
            "tasks": {"textvqa": {"images": "pool", **said}},
            "annotate": annotate or {},
        }
    )


def kinds_in(configured: RunConfig) -> tuple[str, ...] | None:
    return settled(configured).tasks["textvqa"].kinds


SKILLS = [load_part("skills", name, Skill) for name in part_names("skills")]
TEXTVQA = load_part("skills", "textvqa", Skill)


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)
def test_every_shipped_skill_asks_for_a_dozen_kinds_or_fewer_in_a_few_words(skill):
    assert 6 <= len(skill.kinds) <= 12 and len({*skill.kinds}) == len(skill.kinds)
    assert all(len(kind.split()) <= 10 and "{" not in kind for kind in skill.kinds)
    plain, asked = (task_of("x1", TaskData(images="pool", skill=skill.name, kinds=kinds)) for kinds in (None, ()))
    first, _, form = plain.annotate_prompt.partition("\n")
    for kind in skill.kinds:
        assert asked.annotate_prompt_for(kind) == f"{first} The question should be of this kind: {kind}.\n{form}"


def test_kinds_are_the_skills_unless_the_teacher_is_bundled_or_the_prompt_ones_own(tmp_path):
    assert kinds_in(config(tmp_path)) == TEXTVQA.kinds
    assert kinds_in(config(tmp_path, kinds="none")) is None
    assert kinds_in(config(tmp_path, kinds=["mine"])) == ("mine",)
    assert kinds_in(config(tmp_path, teacher="embedded:teacher")) is None
    assert kinds_in(config(tmp_path, teacher="embedded:teacher", kinds=["mine"])) == ("mine",)
    assert kinds_in(config(tmp_path, annotate_prompt="Ask.")) is None
    assert kinds_in(config(tmp_path, annotate_prompt="Ask for {kind}.")) == TEXTVQA.kinds


@given(st.lists(st.text(min_size=1), min_size=1, max_size=12, unique=True), st.integers(0, 99))
def test_draws_on_an_image_go_through_all_kinds_before_one_comes_again(kinds, seed):
    image = ImageRef(image_id="i", path="i.png", task="toy")
    drawing = AnnotateSettings(pairs_per_image=3 * len(kinds), kinds_in_turn=True)
    found = [draw.kind for draw in draws_of([image], task_of_kinds(tuple(kinds)), "t", drawing, seed)]
    rounds = [found[start : start + len(kinds)] for start in range(0, len(found), len(kinds))]
    assert all(sorted(each) == sorted(kinds) for each in rounds)


def test_the_first_draws_on_many_images_ask_for_each_kind_about_equally_often():
    asked = task_of_kinds(tuple("abcdefgh"))
    counts = Counter(asked.kinds_in_turn(f"i{image}", 0)[0] for image in range(2000))
    assert chisquare([counts[kind] for kind in asked.kinds]).pvalue > 1e-4


def made_with(configured: RunConfig, kinds, **drawn) -> None:
    """A run folder whose pairs were asked for with these kinds, and drawn so."""
    asked = task_of("textvqa", configured.tasks["textvqa"].model_copy(update={"kinds": kinds})).annotate_digest
    drawn = {f"annotate.{name}": value for name, value in drawn.items()}
    with RunFolder(configured.run) as run:
        made = run.artifact("pairs", inputs={"annotate prompt of textvqa": asked}, settings=drawn)
        made.finish({})


def test_a_run_that_was_begun_without_kinds_or_at_the_former_top_p_goes_on_so(tmp_path):
    made_with(config(tmp_path), None, temperature=1.0)  # version 0.1 had no top_p
    assert kinds_in(config(tmp_path)) is None
    assert settled(config(tmp_path)).annotate.top_p == 1.0
    assert kinds_in(config(tmp_path, kinds=["mine"])) == ("mine",)
    assert settled(config(tmp_path, annotate={"top_p": 0.8})).annotate.top_p == 0.8
    # Another prompt is asked anew in any case.
    assert kinds_in(config(tmp_path, skill="vqa")) == load_part("skills", "vqa", Skill).kinds


def test_draws_of_a_run_that_was_begun_before_kinds_came_in_turn_are_what_they_were(tmp_path):
    assert settled(config(tmp_path)).annotate.kinds_in_turn
    made_with(config(tmp_path), (), top_p=0.9)
    begun = settled(config(tmp_path)).annotate
    image, asked = ImageRef(image_id="i", path="i.png", task="toy"), task_of_kinds(KINDS)
    drawn = draws_of([image], asked, "t", begun.model_copy(update={"pairs_per_image": 9}), 0)
    assert [draw.kind for draw in drawn] == [KINDS[draw.asked.seed % len(KINDS)] for draw in drawn]
    assert settled(config(tmp_path, annotate={"kinds_in_turn": True})).annotate.kinds_in_turn
    made_with(config(tmp_path), (), top_p=0.9, kinds_in_turn=True)
    assert settled(config(tmp_path)).annotate.kinds_in_turn


def test_a_setting_that_was_given_and_is_taken_back_is_the_default_again(tmp_path):
    made_with(config(tmp_path), ("mine",), top_p=0.8)
    assert kinds_in(config(tmp_path)) == TEXTVQA.kinds
    assert settled(config(tmp_path)).annotate.top_p == AnnotateSettings().top_p == 0.9


def test_a_run_of_the_version_before_is_asked_nothing_by_the_same_file(project):
    plain = {"images": "pool", "test": "test", "kinds": "none"}
    annotate = {"batch_size": 3, "top_p": 1.0}
    done("run", configure(project, tasks={"textvqa": plain}, annotate=annotate), "--until", "annotate")
    run = project / "runs" / "a"
    said = yaml.safe_load((run / "run.yaml").read_text())
    said["tasks"]["textvqa"]["kinds"] = []  # as that version wrote it
    for name in ("most_yes_no", "most_numbers", "most_other", "most_alike", "extra_draws"):
        del said["annotate"][name]
    (run / "run.yaml").write_text(yaml.safe_dump(said))
    manifest = json.loads((run / "pairs" / "manifest.json").read_text())
    manifest.pop("seal", None)
    manifest["settings"] = {key: value for key, value in manifest["settings"].items() if value is not None}
    (run / "pairs" / "manifest.json").write_text(json.dumps(manifest))
    for file in (run / "run.yaml", configure(project)):  # which says nothing of kinds or top_p
        assert "annotate: up to date" in done("run", file, "--until", "annotate")


# Kinds that nobody writes


def never_counting(request, decoding):
    return "I see no <b>number</b>" if asked_for(request) == "counting" else fair(request, decoding)


@pytest.mark.parametrize(("per_image", "batch_size"), [(2, 4), (1, 60)])
def test_a_kind_that_the_teacher_never_writes_is_told_once_after_the_first_hundred_images(
    tmp_path, per_image, batch_size
):
    options = {"pairs_per_image": per_image, "batch_size": batch_size}
    asked, made, _, watched = annotated(tmp_path, never_counting, count=150, **options)
    ((when, text),) = watched.said
    assert 0 <= when - 100 * per_image < batch_size and when < len(asked)
    assert "of the kind 'counting' about" in text and "no_question" in text and "tasks.toy.kinds" in text
    assert "'I see no <b>number</b>'" in text
    assert made.manifest["note"] in text
    assert made.manifest["by_kind"]["toy"]["counting"].keys() == {"no_question"}


def test_a_run_that_goes_on_after_a_kill_tells_it_no_more(tmp_path):
    model = FakeModel(lambda request, _: pytest.fail("killed"), name="fake:teacher")
    first = Watched(model)

    def mortal(request, decoding):
        if first.said:
            raise KeyboardInterrupt
        return never_counting(request, decoding)

    with pytest.raises(KeyboardInterrupt):
        annotated(tmp_path, mortal, count=150, progress=first)
    _, made, _, second = annotated(tmp_path, never_counting, count=150)
    assert len(first.said) == 1 and second.said == [] and "'counting'" in made.manifest["note"]


def test_fewer_images_are_told_at_the_end_and_a_kind_that_was_hardly_asked_for_is_not(tmp_path):
    *_, watched = annotated(tmp_path / "a", never_counting, count=60)
    assert [when for when, _ in watched.said] == [120]
    *_, watched = annotated(tmp_path / "b", never_counting, count=10)
    assert watched.said == []


# Further draws


def seldom(request, decoding):
    """Counting fails three times of four, and repeats itself."""
    if asked_for(request) == "counting" and request.seed % 4:
        return "nothing"
    return f"Question: Which {asked_for(request)} is {request.seed % 5}? Answer: tea"


@settings(max_examples=10, deadline=None)
@given(
    kinds=st.sampled_from([(), KINDS[:1], KINDS]),
    count=st.integers(1, 12),
    per_image=st.integers(1, 4),
    extra=st.floats(0.05, 1),
    seed=st.integers(0, 99),
)
def test_further_draws_keep_to_their_budget_ask_nothing_twice_and_leave_the_others_alone(
    tmp_path_factory, kinds, count, per_image, extra, seed
):
    folder = tmp_path_factory.mktemp("runs")
    told = {"count": count, "kinds": kinds, "pairs_per_image": per_image, "seed": seed}
    before = annotated(folder / "before", seldom_or_plain, **told)
    after = annotated(folder / "after", seldom_or_plain, **told, extra_draws=extra)
    assert len(after[0]) <= len(before[0]) + int(extra * count * per_image)
    assert len({(request.image, request.seed) for request in after[0]}) == len(after[0])
    assert after[0][: len(before[0])] == before[0]
    known = {reply.reply_id: reply for reply in after[2]}
    assert all(known[reply.reply_id] == reply for reply in before[2])
    per = Counter(reply.image_id for reply in after[2] if reply.pair_id)
    assert not per or max(per.values()) <= per_image
    assert [reply.image_id for reply in after[2]] == sorted(
        (reply.image_id for reply in after[2]), key=[image.image_id for image in images(count)].index
    )
    again = annotated(folder / "after", pytest.fail, **told, extra_draws=extra)
    assert again[0] == [] and again[2] == after[2]


def seldom_or_plain(request, decoding):
    if request.image == "0.png":  # a task without any pair is refused
        return fair(request, decoding)
    return "nothing" if request.seed % 9 == 0 else seldom(request, decoding)


def test_what_is_short_is_drawn_again_and_what_the_teacher_never_writes_is_not(tmp_path):
    def reply(request, decoding):
        if asked_for(request) == "colour":
            return "nothing"
        return "nothing" if asked_for(request) == "counting" and request.seed // 3 % 3 else fair(request, decoding)

    _, _, before, _ = annotated(tmp_path / "before", reply, count=60)
    _, _, after, _ = annotated(tmp_path / "after", reply, count=60, extra_draws=1)
    more = Counter(reply.kind for reply in after) - Counter(reply.kind for reply in before)
    assert more["colour"] == 0 and more["counting"] > more["reading"] > 0
    pairs = [Counter(reply.kind for reply in replies if reply.pair_id) for replies in (before, after)]
    assert pairs[1]["counting"] > 1.5 * pairs[0]["counting"]
    assert abs(pairs[1]["counting"] - pairs[1]["reading"]) < abs(pairs[0]["counting"] - pairs[0]["reading"])


@settings(max_examples=8, deadline=None)
@given(batches=st.integers(0, 9))
def test_killed_while_it_draws_further_it_ends_with_the_bytes_of_an_uninterrupted_run(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("runs")
    annotated(folder / "whole", seldom, extra_draws=1)
    left = iter(range(4 * batches))

    def mortal(request, decoding):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return seldom(request, decoding)

    try:
        annotated(folder / "killed", mortal, extra_draws=1)
    except KeyboardInterrupt:
        annotated(folder / "killed", seldom, extra_draws=1)
    assert content(folder / "killed/pairs") == content(folder / "whole/pairs")


def test_at_temperature_0_there_is_nothing_further_to_draw():
    with pytest.raises(ValueError, match="extra_draws is 0.5, but at temperature 0"):
        AnnotateSettings(temperature=0, extra_draws=0.5)


def test_all_that_will_be_asked_is_told_before_the_first_is(tmp_path):
    told = []
    model = FakeModel(fair, name="fake:teacher")
    store = AnswerStore(tmp_path / "answers.sqlite")
    teacher = CachedModel("t", lambda: model, store, before=lambda *counts: told.append((*counts, len(model.asked))))
    tasks = {name: task(name) for name in ("one", "two")}
    pool = [*images(30, "one"), *images(30, "two")]
    chosen = AnnotateSettings(pairs_per_image=2, batch_size=4)
    annotate_images(artifact(tmp_path, "pairs"), pool, tasks, teacher, settings=chosen, seed=0, progress=mute)
    assert told == [(120, 120, 0, 0)] and len(model.asked) == 120


def test_a_dry_run_counts_every_draw(project):
    for number in range(30):
        speckle(project / "pool" / f"more-{number}.png", seed=900 + number)
    output = done("run", configure(project, annotate={"batch_size": 2, "pairs_per_image": 2}), "--dry-run")
    assert next(line for line in output.splitlines() if line.startswith("annotate")).split("yet")[1].split()[0] == "76"


def test_answers_in_the_files_of_a_run_without_a_store_are_those_of_its_kinds_and_decoding(project):
    changes = {"annotate": {"batch_size": 3, "pairs_per_image": 2, "extra_draws": 1}}
    path = configure(project, **changes)
    done("run", path, "--until", "annotate")
    run = project / "runs" / "a"
    replies = len((run / "pairs" / "replies.jsonl").read_text().splitlines())
    assert replies > 16  # the fake repeats itself
    (run / "answers.sqlite").unlink()
    speckle(project / "pool" / "stop.jpg", seed=500)  # a picture that the fake knows
    output = done("run", path, "--dry-run")
    assert next(line for line in output.splitlines() if line.startswith("annotate")).split("done")[-1]
    assert "2 to fake:" in output


# Quotas


def drawn(number: int, pair: ParsedPair | None, per_image: int = 2) -> Read:
    image = ImageRef(image_id=content_id(str(number // per_image)), path="", task="toy")
    draw: Draw = draw_of(image, task(), "t", number % per_image, 0)
    said = Answer(item_id=draw.asked.item_id, text="")
    return Read(draw, said, "ok" if pair else "no_question", pair)


PAIRS = st.one_of(
    st.none(),
    st.builds(
        ParsedPair,
        st.sampled_from(["What is it?", "What is sold?", "Which is it?", "Is it tea?"]),
        st.sampled_from(["yes", "No.", "7", "twelve", "$3.50", "tea", "a sign"]),
    ),
)
SHARES = st.one_of(st.none(), st.floats(0.1, 1))


@settings(max_examples=40)
@given(st.lists(PAIRS, max_size=40), SHARES, SHARES, SHARES, SHARES, st.integers(0, 9), st.randoms())
def test_no_type_of_answer_and_no_opening_has_more_than_its_share_and_nothing_is_dropped_without_need(
    pairs, yes_no, numbers, other, alike, seed, rng
):
    chosen = AnnotateSettings(
        pairs_per_image=2, most_yes_no=yes_no, most_numbers=numbers, most_other=other, most_alike=alike
    )
    read = [drawn(number, pair) for number, pair in enumerate(pairs)]
    found = within_quotas(read, chosen, seed)
    assert [each.draw for each in found] == [each.draw for each in read]
    ok = [each.pair for each in found if each.outcome == "ok"]
    shares = {AnswerType.YES_NO: yes_no, AnswerType.NUMBER: numbers, AnswerType.OTHER: other}
    types, openings = Counter(answer_type(p.answer) for p in ok), Counter(opening(p.question) for p in ok)

    def full(count, share):
        return share is not None and count + 1 > share * len(read) + 1 - 1e-9

    for name, share in shares.items():
        assert share is None or types[name] < share * len(read) + 1
    for count in openings.values():
        assert alike is None or count < alike * len(read) + 1
    for each in found:
        if each.outcome == OVER_QUOTA:
            of_type = answer_type(each.pair.answer)
            assert full(types[of_type] + 1, shares[of_type]) or full(openings[opening(each.pair.question)] + 1, alike)
    mixed = rng.sample(read, len(read))
    marks = {each.draw.asked.item_id: each.outcome for each in within_quotas(mixed, chosen, seed)}
    assert marks == {each.draw.asked.item_id: each.outcome for each in found}


def test_pairs_beyond_a_quota_are_no_pairs_and_further_draws_take_their_place(tmp_path):
    def reply(request, _):
        alike = request.seed % 4
        return f"Question: {'What is' if alike else f'Which {request.seed}'} of {request.seed}? Answer: tea"

    _, made, replies, _ = annotated(tmp_path / "a", reply, count=20, most_alike=0.25)
    outcomes = Counter(reply.outcome for reply in replies)
    pairs = list(made.stream("pairs.jsonl", Pair))
    assert outcomes["over_quota"] > 5 and len(pairs) == 40 - outcomes["over_quota"]
    assert sum(opening(pair.question) == "what is" for pair in pairs) == 10
    _, made, _, _ = annotated(tmp_path / "b", reply, count=20, most_alike=0.25, extra_draws=1)
    more = list(made.stream("pairs.jsonl", Pair))
    assert len(more) > len(pairs) and sum(opening(pair.question) == "what is" for pair in more) == 10
    assert {pair.pair_id for pair in pairs} <= {pair.pair_id for pair in more}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", AnswerType.YES_NO),
        ("no.", AnswerType.YES_NO),
        ("12", AnswerType.NUMBER),
        ("1,200 kg", AnswerType.NUMBER),
        ("twenty one", AnswerType.NUMBER),
        ("$3.50", AnswerType.NUMBER),
        ("45%", AnswerType.NUMBER),
        ("no parking", AnswerType.OTHER),
        ("bus 12", AnswerType.OTHER),
        ("", AnswerType.OTHER),
        ("tea", AnswerType.OTHER),
    ],
)
def test_the_type_of_an_answer(answer, expected):
    assert answer_type(answer) == expected


def test_questions_are_the_same_but_for_case_spaces_and_the_mark_at_their_end():
    assert same_question("What  IS sold?") == same_question("what is sold")
    assert same_question("What is sold?") != same_question("What was sold?")
    assert opening("How many bars?") == "how many" and opening("") == ""


# The report


def test_the_tables_have_kinds_asked_written_usable_and_gaps_and_the_most_frequent_questions(tmp_path):
    def reply(request, _):
        if asked_for(request) == "colour":
            return "nothing"
        return f"Question: What is <b>{request.seed // 3 % 3}</b>? Answer: {'yes' if request.seed % 2 else 7}"

    _, made, replies, _ = annotated(tmp_path, reply, count=30)
    pairs = list(made.stream("pairs.jsonl", Pair))
    assert question_tables(tmp_path, ["toy"])[0].rows[0][-1] == "-"  # not judged yet
    gaps = {pair.pair_id for pair in pairs[::3]}
    judged = artifact(tmp_path, "verdicts")
    kinds = {True: VerdictKind.TEACHER_ONLY, False: VerdictKind.NEITHER}
    judged.stream("verdicts.jsonl", Verdict).write(
        Verdict(pair_id=pair.pair_id, verdict=kinds[pair.pair_id in gaps], reason="") for pair in pairs
    )
    judged.finish({})
    asked, variety, frequent = question_tables(tmp_path, ["toy"])
    for kind, row in zip(sorted(KINDS), asked.rows, strict=True):
        own = [reply for reply in replies if reply.kind == kind]
        written = [reply for reply in own if reply.raw != "nothing"]
        counts = [len(own), len(written), sum(bool(reply.pair_id) for reply in own)]
        assert row == ("toy", kind, *map(str, counts), str(sum(reply.pair_id in gaps for reply in own)))
    assert sum(int(row[-1]) for row in asked.rows) == len(gaps)
    ((_, count, distinct, yes, number, other),) = variety.rows
    assert (count, distinct, other) == (str(len(pairs)), "3", "0 (0 %)")
    assert int(yes.split()[0]) + int(number.split()[0]) == len(pairs)
    told = Counter(pair.question.rstrip("?").lower() for pair in pairs)
    assert {row[2]: int(row[3]) for row in frequent.rows if row[1] == "question"} == told
    assert [row[2:] for row in frequent.rows if row[1] == "beginning"] == [("what is", str(len(pairs)), "100 %")]
    page = write_report(tmp_path).read_text() if (tmp_path / "run.yaml").write_text("seed: 0") else ""
    assert "kind asked for" in page and "what is &lt;b&gt;" in page and "<b>" not in page


def test_before_annotate_and_without_replies_of_a_teacher_there_are_no_tables(tmp_path):
    assert question_tables(tmp_path, []) == []
