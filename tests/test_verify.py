"""Verify: what its filters drop, what they ask, and that nothing that is dropped goes unsaid."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import artifact, kept, mute, task
from parityalign.config import AnnotateSettings, Backend, IdentifySettings, RunConfig, VerifySettings
from parityalign.config.automatic import decide_level
from parityalign.core import Answer, Decoding, ImageRef, Pair, Reply, Verdict, WouldBeGap, content_id
from parityalign.engines import AnswerStore, Asked, CachedModel, TwoModels, cached
from parityalign.models.backends import fake
from parityalign.models.backends.fake import FakeModel
from parityalign.planning.sizes import PromptSize, PromptSizes
from parityalign.planning.works import Counts, Shares, workloads
from parityalign.stages.annotate import REPLIES, annotate_images, written_pairs
from parityalign.stages.filters import question_limit, same_question, visual_advantage
from parityalign.stages.filters._questions import gist
from parityalign.stages.filters._shares import lowest
from parityalign.stages.identify import VERDICTS, Known, identify_gaps
from parityalign.stages.verifying import filters_of, likelihoods_of
from projects import WORDS, configure, done, make_project, refusal, table
from serving import image_of, reply, serving

NONE_ON = {"least_likely": 0, "least_sure": 0}


def pair(number: int, *, task_name="toy", question=None, answer="tea", image=None) -> Pair:
    return Pair(
        pair_id=content_id(task_name, str(number)),
        image_id=image or str(number),
        image=f"{number}.png",
        task=task_name,
        question=question or f"What is in {number}?",
        answer=answer,
        teacher="fake:teacher",
    )


class Sure(FakeModel):
    """A model that tells how likely its replies are to it."""

    def __init__(self, reply, logprob, **options):
        super().__init__(reply, **options)
        self._logprob = logprob

    def generate_scored(self, requests, decoding):
        texts = self.generate(requests, decoding)
        return [(text, self._logprob(request)) for text, request in zip(texts, requests, strict=True)]


def config_with(**verify) -> RunConfig:
    models = {"teacher": "embedded:teacher", "student": "embedded:student", "tasks": {"toy": {"images": "pool"}}}
    return RunConfig.model_validate({"run": "runs/a", **models, "verify": verify})


def verified(folder, pairs, teacher, *, likelihoods=None, student=None, second=None, **verify):
    """The artifact of identify for a student that has nothing right, and the verdicts by number of the pair."""
    made = artifact(folder, "verdicts")
    models = TwoModels(
        kept(folder, student or FakeModel(lambda request, _: "milk", name="student")),
        kept(folder, teacher) if isinstance(teacher, FakeModel) else teacher,
        kept(folder, second) if second else None,
    )
    known = Known(filters_of(config_with(**verify)), likelihoods=likelihoods or {})
    tasks = {name: task(name) for name in {each.task for each in pairs}}
    identify_gaps(made, pairs, tasks, models, settings=IdentifySettings(batch_size=3), progress=mute, known=known)
    return made, list(made.stream(VERDICTS, Verdict))


def right(request, _decoding):
    return "tea"


# How sure the teacher is


values = st.dictionaries(
    st.integers(0, 60), st.none() | st.sampled_from([-3.0, -1.0, -0.5, -0.01]) | st.floats(-50, 0), max_size=40
)


@given(values, st.floats(0.01, 0.99))
def test_at_most_the_share_of_each_task_is_dropped_and_all_of_it_is_below_what_stays(known, share):
    gaps = [
        WouldBeGap(pair(number, task_name="ab"[number % 2]), Answer(item_id="", text="tea", logprob=value))
        for number, value in known.items()
    ]
    dropped = {*lowest(gaps, share, lambda gap: gap.answer.logprob)}
    for name in "ab":
        told = [gap for gap in gaps if gap.pair.task == name and gap.answer.logprob is not None]
        gone = [gap.answer.logprob for gap in told if gap.pair.pair_id in dropped]
        left = [gap.answer.logprob for gap in told if gap.pair.pair_id not in dropped]
        assert len(gone) <= share * len(told)
        assert not gone or max(gone) < min(left)
        distinct = len({gap.answer.logprob for gap in told}) == len(told)
        assert not distinct or len(gone) == int(share * len(told))
    assert all(gap.pair.pair_id not in dropped for gap in gaps if gap.answer.logprob is None)


def test_the_gaps_that_the_teacher_is_least_sure_of_are_dropped_with_the_reason_and_are_no_gaps(tmp_path):
    pairs = [pair(number) for number in range(10)]
    teacher = Sure(right, lambda request: -0.1 * int(request.image.partition(".")[0]), name="teacher")
    made, verdicts = verified(tmp_path, pairs, teacher, **NONE_ON | {"least_sure": 0.2})
    assert [each.verdict for each in verdicts] == ["teacher_only"] * 8 + ["dropped"] * 2
    assert verdicts[9].reason == "least_sure: the teacher is less sure of this answer than of the task's others"
    assert (verdicts[9].student_text, verdicts[9].teacher_text) == ("milk", "tea")
    assert [gap.pair_id for gap in made.stream("gaps.jsonl", Pair)] == [each.pair_id for each in pairs[:8]]
    expected = {"pairs": 10, "gaps": 8, "teacher_only": 8, "dropped": 2, "dropped: least_sure": 2}
    assert made.manifest["counts"] == expected
    assert [answer.logprob for answer in made.stream("teacher.jsonl", Answer)][:3] == [0.0, -0.1, -0.2]
    assert len(teacher.asked) == 10, "it costs no question"


def test_answers_without_a_log_probability_are_not_asked_for_again_and_that_is_said(tmp_path):
    pairs = [pair(number) for number in range(10)]
    before = FakeModel(right, name="teacher")
    made, _ = verified(tmp_path / "old", pairs, before, **NONE_ON)
    with AnswerStore(tmp_path / "old" / "answers.sqlite")._file.writing() as file:
        assert file.execute("SELECT COUNT(logprob), COUNT(*) FROM answers").fetchone() == (0, 20)
    now = Sure(right, lambda request: -1.0, name="teacher")
    (tmp_path / "old" / "verdicts").rename(tmp_path / "old" / "before")
    made, verdicts = verified(tmp_path / "old", pairs, now, least_sure=0.5, least_likely=0.5)
    assert not now.asked
    assert {each.verdict for each in verdicts} == {"teacher_only"}
    assert "How sure the teacher is of its answer is not known of 10 of 10 gaps" in made.manifest["note"]
    assert "How likely the teacher was to write a pair is not known of 10 of 10 gaps" in made.manifest["note"]


@pytest.mark.parametrize(("thinks", "known"), [(0, -9.0), (5, None)])
def test_what_a_thinking_model_tells_of_its_thoughts_is_no_sureness_of_its_answer(thinks, known):
    model = CachedModel("t", lambda: Sure(right, lambda _: -9.0), AnswerStore(), thinking_tokens=thinks)
    (answer,) = model.answer(
        [Asked("one", "", "What?", "")], decoding=Decoding(8), batch_size=1, on_progress=lambda *_: None
    ).values()
    assert answer.logprob == known


@given(st.floats(-1e6, 0.0))
def test_a_log_probability_is_kept_with_its_answer_and_told_to_three_digits(value):
    model = cached(Sure(right, lambda _: value))
    (answer,) = model.answer(
        [Asked("one", "", "What?", "")], decoding=Decoding(8), batch_size=1, on_progress=lambda *_: None
    ).values()
    assert answer.logprob == pytest.approx(value, rel=0.005)


def test_pairs_that_the_teacher_was_unlikely_to_write_are_dropped_by_what_came_with_their_replies(tmp_path):
    images = [ImageRef(image_id=str(number), path=f"{number}.png", task="toy") for number in range(10)]

    def said(request, _decoding):
        number = request.image.partition(".")[0]
        return f"Question: What is in {number}? Answer: tea" if request.prompt == "write for toy" else "tea"

    teacher = Sure(said, lambda request: -30.0 if request.image == "4.png" else -3.0, name="teacher")
    made = artifact(tmp_path, "pairs")
    annotate_images(
        made, images, {"toy": task()}, kept(tmp_path, teacher), settings=AnnotateSettings(), seed=0, progress=mute
    )
    replies = list(made.stream(REPLIES, Reply))
    assert [reply.logprob for reply in replies] == [-3.0] * 4 + [-30.0] + [-3.0] * 5
    likelihoods = likelihoods_of(replies)
    assert likelihoods[replies[4].pair_id] == pytest.approx(-30 / len(replies[4].raw))
    _, verdicts = verified(
        tmp_path, written_pairs(made, images), teacher, likelihoods=likelihoods, **NONE_ON | {"least_likely": 0.1}
    )
    assert [each.verdict == "dropped" for each in verdicts] == [number == 4 for number in range(10)]
    assert verdicts[4].reason.startswith("least_likely: ")


# What costs questions


def test_filters_ask_about_would_be_gaps_alone(tmp_path):
    pairs = [pair(number) for number in range(6)]
    teacher = FakeModel(lambda request, _: "tea" if int(request.image[0]) < 4 else "coke", name="teacher")
    student = FakeModel(lambda request, _: "tea" if int(request.image[0]) < 2 else "milk", name="student")
    _, verdicts = verified(tmp_path, pairs, teacher, student=student, **NONE_ON | {"re_answers": 3})
    kinds = ["student_right"] * 2 + ["teacher_only"] * 2 + ["neither"] * 2
    assert [each.verdict for each in verdicts] == kinds
    assert Counter(request.image for request in teacher.asked) == {"2.png": 4, "3.png": 4, "4.png": 1, "5.png": 1}


def test_a_drawn_answer_that_does_not_agree_drops_the_gap_and_ends_the_drawing(tmp_path):
    def said(request, decoding):
        return "tea" if decoding.temperature == 0 or request.image == "0.png" else "coke"

    teacher = FakeModel(said, name="teacher")
    _, verdicts = verified(tmp_path, [pair(0), pair(1)], teacher, **NONE_ON | {"re_answers": 4})
    assert [each.verdict for each in verdicts] == ["teacher_only", "dropped"]
    assert verdicts[1].reason == "re_answers: a drawn answer of the teacher is another"
    drawn = [request for request in teacher.asked if request.seed]
    assert Counter(request.image for request in drawn) == {"0.png": 4, "1.png": 1}
    assert len({request.seed for request in drawn}) == len(drawn)


def test_a_gap_that_needs_no_picture_is_dropped(tmp_path):
    def said(request, _decoding):
        return "coke" if request.image.endswith("grey.png") and "in 0" in request.prompt else "tea"

    made, verdicts = verified(
        tmp_path, [pair(0), pair(1)], FakeModel(said, name="teacher"), **NONE_ON | {"blank_picture": True}
    )
    assert [each.verdict for each in verdicts] == ["teacher_only", "dropped"]
    assert verdicts[1].reason == "blank_picture: the teacher answers the same without the picture"
    assert "grey.png" in made.manifest["files"]


def test_a_gap_that_the_teacher_calls_unanswerable_is_dropped(tmp_path):
    replies = {"0.png": "No, it is not.", "1.png": "Yes.", "2.png": "nothing to say", "3.png": "**no**"}

    def said(request, _decoding):
        return replies[request.image] if "answered from the image" in request.prompt else "tea"

    pairs = [pair(number, question="What {is} it?") for number in range(4)]
    _, verdicts = verified(tmp_path, pairs, FakeModel(said, name="teacher"), **NONE_ON | {"answerable": True})
    assert [each.verdict for each in verdicts] == ["dropped", "teacher_only", "teacher_only", "dropped"]


class Scores:
    """A teacher to which the picture makes an answer the likelier the larger the number of its pair."""

    def score(self, gaps, *, blank=False):
        return {gap.pair.pair_id: -9.0 if blank else -9.0 + int(gap.pair.image_id) for gap in gaps}

    def note(self, text):
        assert not text


def test_where_the_picture_helps_least_the_gap_is_dropped():
    gaps = [WouldBeGap(pair(number), Answer(item_id="", text="tea")) for number in (3, 0, 2, 1, 4)]
    assert [*visual_advantage.check(gaps, Scores(), 0.4)] == [pair(0).pair_id, pair(1).pair_id]


def test_of_a_teacher_that_gives_text_alone_no_visual_advantage_is_known_and_that_is_said(tmp_path):
    teacher = CachedModel("teacher", lambda: FakeModel(right, name="teacher"), AnswerStore(), shows=False)
    made, verdicts = verified(tmp_path, [pair(0), pair(1)], teacher, **NONE_ON | {"visual_advantage": 0.9})
    assert {each.verdict for each in verdicts} == {"teacher_only"}
    assert "By how much the picture helps is not known of 2 of 2 gaps" in made.manifest["note"]


def test_a_later_filter_is_not_asked_about_what_an_earlier_one_dropped(tmp_path):
    teacher = Sure(right, lambda request: -float(request.image[0]), name="teacher")
    pairs = [pair(number) for number in range(4)]
    _, verdicts = verified(tmp_path, pairs, teacher, **NONE_ON | {"least_sure": 0.5, "re_answers": 1})
    assert [each.verdict for each in verdicts] == ["teacher_only"] * 2 + ["dropped"] * 2
    assert Counter(request.image for request in teacher.asked) == {"0.png": 2, "1.png": 2, "2.png": 1, "3.png": 1}


def test_a_gap_that_a_person_corrected_is_left_alone(tmp_path):
    vouched = pair(0).model_copy(update={"written": "coke"})
    teacher = FakeModel(lambda request, _: "no" if "alone" in request.prompt else "tea", name="teacher")
    _, verdicts = verified(tmp_path, [vouched, pair(1)], teacher, **NONE_ON | {"answerable": True})
    assert [each.verdict for each in verdicts] == ["teacher_only", "dropped"]


# Questions over the pool


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is the brand of the phone?", "what brand is this telephone", True),
        ("What colour is the car?", "What is the color of the car?", True),
        ("What colour is the car?", "Which car has what color?", False),
        ("Is the man above the woman?", "Is the woman above the man?", False),
        ("What does the left sign say?", "What does the right sign say?", False),
        ("What colour is the car?", "What is the car?", False),
    ],
)
def test_questions_are_the_same_whatever_small_words_they_have(one, other, same):
    assert (gist(one) == gist(other)) == same


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["What is it?", "What is this?", "Who is it?"]))))
def test_so_many_of_each_question_stay_whatever_the_order_of_the_pool(asked):
    pairs = [pair(n, question=words, image=str(place)) for n, (place, words) in enumerate(asked)]
    for left, limit, place in (
        (question_limit.among(pairs, 2), 2, lambda each: ""),
        (same_question.among(pairs, True), 1, lambda each: each.image_id),
    ):
        counts = Counter((place(each), gist(each.question)) for each in pairs)
        kept_now = Counter((place(each), gist(each.question)) for each in pairs if each.pair_id not in left)
        assert kept_now == {what: min(count, limit) for what, count in counts.items()}
    assert question_limit.among(pairs, 2) == question_limit.among(pairs[::-1], 2)


def test_nobody_is_asked_about_a_question_that_is_there_often_enough(tmp_path):
    pairs = [pair(number, question="What is it?") for number in range(4)]
    teacher = FakeModel(right, name="teacher")
    made, _ = verified(tmp_path, pairs, teacher, **NONE_ON | {"question_limit": 1})
    assert len(teacher.asked) == 1
    assert made.manifest["counts"]["dropped: question_limit"] == 3


# In a run


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def teacher_that_doubts(path, doubted=WORDS):
    """The teacher of a project says that the pictures of these words do not answer their questions."""
    table(path, WORDS)
    rows = json.loads(path.read_text())["replies"]
    doubts = [{"image": f"{word}.png", "contains": "answered from the image", "text": "no"} for word in doubted]
    path.write_text(json.dumps({"replies": [*doubts, *rows]}))


def test_filters_that_leave_nothing_end_in_a_clear_result_with_the_counts_by_reason(project):
    teacher_that_doubts(project / "teacher.json")
    said = done("run", configure(project, verify={"answerable": True}))
    assert "gaps 0" in said and "dropped: answerable 4" in said
    assert "No gap is left: the filters of verify had a reason against every one." in " ".join(said.split())
    assert "Nothing to train on: the student is unchanged." in " ".join(said.split())
    report = (project / "runs" / "a" / "report.html").read_text()
    assert "dropped: cannot be answered from the picture" in report


def test_what_is_switched_off_has_no_part_in_the_manifest_and_what_is_new_is_named(project):
    done("run", configure(project, verify=NONE_ON), "--until", "identify")
    settings = json.loads((project / "runs" / "a" / "verdicts" / "manifest.json").read_text())["settings"]
    assert not [name for name in settings if name.startswith("verify")]
    config = configure(project, verify=NONE_ON | {"answerable": True})
    told = [line.split() for line in done("run", config, "--dry-run").splitlines()]
    (row,) = [line for line in told if line[:1] == ["identify"] and "again:" in line]
    assert "verify.answerable" in row and "4" in row


@pytest.mark.slow
def test_a_run_of_before_the_filters_is_not_trained_anew_while_nothing_is_known_of_its_answers(project, trainable):
    done("run", configure(project, verify=NONE_ON))
    said = done("run", configure(project))
    assert "identify: done again: verify.least_likely (0.1) matters now" in said
    assert "level: up to date" in said and "is not known of 4 of 4 gaps" in " ".join(said.split())


@pytest.mark.slow
def test_a_run_that_lost_its_answer_store_still_knows_how_sure_the_teacher_was(project, monkeypatch):
    def load(location, _loading=None):
        told = fake.load(location)
        return Sure(told._reply, lambda request: -0.1 * WORDS.index(Path(request.image).stem), name=told.name)

    monkeypatch.setattr(fake, "BACKEND", Backend(load=load))
    done("run", configure(project, verify={"least_sure": 0.5, "least_likely": 0}), "--until", "identify")
    (project / "runs" / "a" / "answers.sqlite").unlink()
    said = done("run", configure(project, verify={"least_sure": 0.25, "least_likely": 0}), "--until", "identify")
    assert "dropped: least_sure 1" in said and "not known" not in said
    said = done("run", configure(project, verify={"least_sure": 0, "least_likely": 0.5}), "--until", "identify")
    assert "dropped: least_likely 2" in said and "not known" not in said


def test_a_filter_that_comes_with_parityalign_is_set_in_its_section(project):
    message = refusal("run", configure(project, filters=["least_sure"]))
    assert "the filter 'least_sure' comes with parityalign; it is set by 'verify.least_sure'" in message


def test_the_settings_and_the_files_of_filters_have_the_same_names_and_each_can_be_used():
    everything = {
        name: 0.5 if name in ("least_likely", "least_sure", "visual_advantage") else 1
        for name in VerifySettings.model_fields
    }
    everything["second_teacher"] = "fake:second.json"
    assert [chosen.name for chosen in filters_of(config_with(**everything))] == list(VerifySettings.model_fields)


def test_a_plan_counts_what_filters_ask():
    config = config_with(re_answers=4, visual_advantage=0.1, second_teacher="fake:second.json")
    config = config.model_copy(update={"level": decide_level(config.level, None)})
    sizes = PromptSizes(*[PromptSize(100.0, 10.0)] * 3, pictures=1)
    seen = {role: {"toy": sizes} for role in config.roles}
    works = workloads(config, {"toy": Counts(100, 0)}, seen, {"toy": Shares.assumed(0.4)})
    rows = {(work.stage, work.given): work.requests for work in works}
    assert rows["verify re_answers", False] == 160
    assert rows["verify visual_advantage", True] == 80
    assert rows["verify second_teacher", False] == 40
    assert [work.stage for work in works if work.role == "second_teacher"] == ["verify second_teacher"]
    assert not [stage for stage, _ in rows if stage.startswith("verify least")]


# The second teacher


def test_a_gap_is_kept_only_if_the_second_teacher_answers_as_the_pair_says(tmp_path):
    says = {"0": "tea", "1": "milk", "2": "It is tea.", "3": "", "4": "not tea"}
    pairs = [pair(number) for number in range(6)]
    student = FakeModel(lambda request, _: "tea" if request.image == "5.png" else "milk", name="student")
    second = FakeModel(lambda request, _: says[request.image.partition(".")[0]], name="second")
    made, verdicts = verified(
        tmp_path, pairs, FakeModel(right), student=student, second=second, **NONE_ON, second_teacher="fake:second.json"
    )
    reasons = [each.reason for each in verdicts if each.verdict == "dropped"]
    assert reasons == [
        "second_teacher: the second teacher answers otherwise",
        "second_teacher: the second teacher gives no answer",
        "second_teacher: the second teacher answers otherwise",
    ]
    assert [gap.pair_id for gap in made.stream("gaps.jsonl", Pair)] == [pairs[0].pair_id, pairs[2].pair_id]
    assert made.manifest["counts"]["dropped: second_teacher"] == 3
    assert len(second.asked) == 5, "what the student has right is not asked"


def test_the_second_teacher_is_another_model_and_its_settings_stand_beside_the_others():
    with pytest.raises(ValueError, match="verify.second_teacher is embedded:teacher, which is the teacher"):
        config_with(second_teacher="embedded:teacher")
    with pytest.raises(ValueError, match="there is no kind of model 'hff'"):
        config_with(second_teacher="hff:x")
    assert config_with().roles == ("teacher", "student")


def test_a_run_with_a_second_teacher_asks_it_once_and_is_judged_again_when_it_is_another(tmp_path):
    project = make_project(tmp_path)
    table(project / "second.json", WORDS[5:])
    table(project / "third.json", WORDS)
    config = configure(project, verify={**NONE_ON, "second_teacher": "fake:second.json"})
    assert "identify: done (" in done("run", config, "--until", "identify")
    reasons = Counter(reason_of(project / "runs/a"))
    assert reasons == {"": 7, "second_teacher: the second teacher answers otherwise": 1}
    assert "second.json" in done("answers", project / "runs/a")
    # The run's own file names it from where it lies.
    assert "identify: up to date" in done("run", project / "runs/a/run.yaml", "--until", "identify", "--details")
    done("run", configure(project, verify={**NONE_ON, "second_teacher": "fake:third.json"}), "--until", "identify")
    assert Counter(reason_of(project / "runs/a")) == {"": 8}
    without = done("run", configure(project, verify=NONE_ON), "--until", "identify")
    assert "identify: done again" in without


def test_a_served_second_teacher_gets_its_own_key_and_never_the_teachers(tmp_path, monkeypatch):
    monkeypatch.setenv("PARITYALIGN_API_KEY", "sk-of-the-teacher-1")
    monkeypatch.setenv("PARITYALIGN_SECOND_API_KEY", "sk-of-the-second-2")

    async def says(body, before):
        return reply("stop", usage=(10 + len(image_of(body)), 2))

    project = make_project(tmp_path)
    with serving(says) as served:
        settings = {"verify": {**NONE_ON, "second_teacher": f"{served.url}#m"}, "server": {"backoff": 0.001}}
        done("run", configure(project, **settings), "--until", "identify")
    assert served.headers and all("Bearer sk-of-the-second-2" in head for head in served.headers)
    assert "sk-of-the-teacher-1" not in "".join(served.headers)
    assert Counter(reason_of(project / "runs/a")) == {"": 4, "second_teacher: the second teacher answers otherwise": 4}
    assert "second_teacher" in (project / "runs/a/run.yaml").read_text()


def reason_of(run: Path) -> list[str]:
    verdicts = [json.loads(line) for line in (run / "verdicts" / VERDICTS).read_text().splitlines()]
    return [each["reason"] if each["verdict"] == "dropped" else "" for each in verdicts]
