"""What levelling must keep: how fast the student is, in interleaved trials, and what it had right, asked again."""

import gc
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from makers import artifact, kept, mute, task
from parityalign.config.loading import LoadingSettings
from parityalign.config.schema import EvaluateSettings, IdentifySettings
from parityalign.config.training import LevelSettings
from parityalign.core import Request
from parityalign.core.records import Judged, Pair, Question, Verdict, VerdictKind
from parityalign.core.results import Control, Controls, Forgotten, Speed
from parityalign.engines.asking import Asked, CachedModel, cached
from parityalign.engines.store import AnswerStore
from parityalign.metrics._statistics import share_interval
from parityalign.models import memory
from parityalign.models.backends import _hf_model, hf
from parityalign.models.backends.fake import FakeModel
from parityalign.models.memory import fits_twice, held_meanwhile, peak_bytes
from parityalign.pipeline import engine_parity, run_models
from parityalign.report.controls import control_table
from parityalign.report.retention import forgotten_table, speed_line, speed_table
from parityalign.stages._timing_trials import ENOUGH_SECONDS, MOST_PARTS, MOST_PASSES
from parityalign.stages.evaluate import speed_questions
from parityalign.stages.forgotten import Case, ask_again, pair_regressions, previously_right, regressions_by_task
from parityalign.stages.level import choose_pairs
from parityalign.stages.speed import measured_speed, time_students, times_as_fast
from projects import configure, done
from tiny import drawn, fast_vlm

SECONDS = st.floats(0.01, 100)
PARTS = st.lists(st.tuples(SECONDS, SECONDS), min_size=2, max_size=20)


# The interval of a share


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_one_case_an_image_the_interval_is_wilsons(hits, misses):
    if not hits + misses:
        return
    flags = [True] * hits + [False] * misses
    theirs = stats.binomtest(hits, hits + misses).proportion_ci(method="wilson")
    assert share_interval(flags, range(len(flags))) == pytest.approx(tuple(theirs), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_it_holds_the_share_and_stays_between_nothing_and_all(cases):
    flags, images = zip(*cases, strict=True)
    low, high = share_interval(flags, images)
    assert 0 <= low <= sum(flags) / len(flags) + 1e-12
    assert sum(flags) / len(flags) - 1e-12 <= high <= 1


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 40))
def test_cases_that_share_their_image_and_its_fate_count_as_one(images, each, lost):
    flags = [image < lost for image in range(images)]
    repeated = [flag for flag in flags for _ in range(each)]
    clusters = [image for image in range(images) for _ in range(each)]
    assert share_interval(repeated, clusters) == pytest.approx(share_interval(flags, range(images)), abs=1e-9)


def test_it_covers_the_truth_about_as_often_as_it_says():
    chance, covered, worlds = np.random.default_rng(0), 0, 1000
    for _ in range(worlds):
        level = chance.beta(0.6, 5.4, size=60)  # the truth is 0.1
        low, high = share_interval(list((chance.random((60, 3)) < level[:, None]).ravel()), np.repeat(range(60), 3))
        covered += low <= 0.1 <= high
    assert 0.93 <= covered / worlds <= 0.98


# The ratio of two speeds


def of(times, **options):
    before, after = zip(*times, strict=True)
    return times_as_fast(before, after, **({"resamples": 200, "seed": 0} | options))


@settings(max_examples=50, deadline=None)
@given(PARTS)
def test_the_ratio_and_its_interval_lie_between_the_parts_own_ratios(times):
    ratio = of(times)
    own = [before / after for before, after in times]
    low, high = ratio.ci
    assert min(own) - 1e-5 <= low <= high <= max(own) + 1e-5
    assert min(own) - 1e-5 <= ratio.value <= max(own) + 1e-5


@settings(max_examples=50, deadline=None)
@given(PARTS, st.floats(0.1, 10))
def test_a_student_that_takes_a_constant_factor_of_the_time_has_an_interval_without_width(times, factor):
    ratio = of([(factor * seconds, seconds) for seconds, _ in times])
    assert [ratio.value, *ratio.ci] == pytest.approx([factor] * 3, abs=2e-6)


@settings(max_examples=50, deadline=None)
@given(PARTS, st.randoms(use_true_random=False))
def test_the_ratio_knows_no_order_of_parts(times, chance):
    shuffled = chance.sample(times, len(times))
    assert of(shuffled).value == pytest.approx(of(times).value, abs=2e-6)


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    chance, covered, worlds = np.random.default_rng(1), 0, 300
    for world in range(worlds):
        length = chance.gamma(20, 0.1, size=MOST_PARTS)  # of the questions, the same for both
        noise = chance.lognormal(0, 0.1, size=(2, MOST_PARTS))
        low, high = times_as_fast(1.1 * length * noise[0], length * noise[1], resamples=300, seed=world).ci
        covered += low <= 1.1 <= high
    assert 0.88 <= covered / worlds <= 0.98


def test_one_part_alone_has_no_interval():
    assert times_as_fast([3.0], [2.0], resamples=100, seed=0).model_dump() == {"value": 1.5, "ci": None}


# Timing trials


class Bench:
    """Two fake students on a clock that only they move; notes who answers, and how many are in memory."""

    def __init__(self, *, costs=(1.0, 1.0), room=True, drift=0.0, local=True) -> None:
        self.now, self.calls, self.loaded, self.most = 0.0, [], Counter(), 0
        self.costs = dict(zip(("before", "after"), costs, strict=True))
        self.room, self.drift, self.local, self.alive = room, drift, local, 0

    def load(self, who):
        self.loaded[who] += 1
        return (LocalFake if self.local else RemoteFake)(self, who)

    def answer(self, who, request, decoding):
        self.calls.append((who, request.prompt, decoding.max_new_tokens))
        self.now += self.costs[who] * (1 + self.drift * len(self.calls)) * min(decoding.max_new_tokens, 4)
        return "two words"


class RemoteFake(FakeModel):
    def __init__(self, bench, who):
        super().__init__(lambda *asked: bench.answer(who, *asked), special_tokens=frozenset({"<image>"}))
        self.bench, self.who = bench, who
        bench.alive += 1
        bench.most = max(bench.most, bench.alive)

    def __del__(self):
        self.bench.alive -= 1


class LocalFake(RemoteFake):
    def parameters(self):
        return 1000 if self.who == "before" else 1001

    def fits_twice(self):
        return self.bench.room

    def peak_bytes(self, work):
        work()
        return 5_000_000_000


def asked(count, text="?"):
    return [Asked(str(number), f"{number}.png", f"{number}{text}", text) for number in range(count)]


def timed(folder, bench, questions, *, after=True, progress=mute, wanted=128, max_new_tokens=32):
    made = artifact(folder, "speed")
    models = {who: CachedModel(who, lambda who=who: bench.load(who), AnswerStore()) for who in ("before", "after")}
    chosen = EvaluateSettings(speed_questions=wanted, max_new_tokens=max_new_tokens)
    options = {"settings": chosen, "progress": progress, "clock": lambda: bench.now}
    time_students(made, questions, models["before"], models["after"] if after else None, **options)
    return measured_speed(made, resamples=200, seed=0)


def test_twice_the_time_is_half_the_speed(tmp_path):
    speed = timed(tmp_path, Bench(costs=(1.0, 2.0)), asked(100))
    assert (speed.questions, speed.trials, speed.together) == (100, MOST_PARTS, True)
    assert speed.ratio.model_dump() == {"value": 0.5, "ci": (0.5, 0.5)}
    assert (speed.before.answers_per_second, speed.after.answers_per_second) == (0.25, 0.125)
    assert (speed.before.first_token_seconds, speed.after.first_token_seconds) == (1, 2)
    assert (speed.before.parameters, speed.after.parameters) == (1000, 1001)
    assert speed.after.peak_bytes == 5_000_000_000 and speed.after.words == 2


def test_both_answer_every_question_once_in_turns_after_a_warm_up(tmp_path):
    bench = Bench()
    timed(tmp_path, bench, asked(40))
    for who in ("before", "after"):
        prompts = Counter(prompt for name, prompt, most in bench.calls if name == who and most == 32)
        warmed = {f"{number}?" for number in range(0, 40, MOST_PARTS)}  # the first part: to warm up, and for its memory
        assert prompts == Counter({f"{number}?": 3 if f"{number}?" in warmed else 1 for number in range(40)})
    order = [name for name, _, most in bench.calls if most == 1]
    assert order[:4] == ["before", "before", "after", "after"]  # each to warm up and for its first part
    assert order[4:] == ["after", "before", "before", "after"] * 7 + ["after", "before"]


def test_quick_students_go_through_the_questions_again_with_the_other_one_first(tmp_path):
    bench = Bench(costs=(0.001, 0.002))
    speed = timed(tmp_path, bench, asked(32))
    assert (speed.questions, speed.trials) == (32, MOST_PASSES * MOST_PARTS)
    assert speed.ratio.model_dump() == {"value": 0.5, "ci": (0.5, 0.5)} and speed.before.words == 2
    order = [name for name, prompt, most in bench.calls if most == 1 and prompt == "1?"]
    assert order == ["after", "before", "before", "after"] * (MOST_PASSES // 2)
    slower = ENOUGH_SECONDS / (2 * 4 * 32) / 2.5  # two and a half passes would do
    assert timed(tmp_path / "slower", Bench(costs=(slower, slower)), asked(32)).trials == 3 * MOST_PARTS


def test_a_machine_that_grows_slower_slows_both_alike(tmp_path):
    speed = timed(tmp_path, Bench(drift=0.01), asked(128))
    assert speed.ratio.value == pytest.approx(1, abs=0.01)
    assert speed.ratio.ci[0] <= 1 <= speed.ratio.ci[1]


def test_students_that_do_not_fit_together_are_loaded_in_turns_and_never_both(tmp_path):
    bench = Bench(room=False, costs=(1.0, 2.0))
    speed = timed(tmp_path, bench, asked(64))
    assert bench.most == 1 and sum(bench.loaded.values()) == 3
    assert (speed.together, speed.trials, speed.ratio.value) == (False, MOST_PARTS, 0.5)
    both = Bench()
    timed(tmp_path / "both", both, asked(64))
    assert both.most == 2 and both.loaded == {"before": 1, "after": 1}


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("room", [True, False])
def test_few_questions_make_few_trials(tmp_path, count, room):
    speed = timed(tmp_path, Bench(room=room, costs=(9.0, 9.0)), asked(count))
    assert (speed.questions, speed.trials) == (count, min(count, MOST_PARTS))
    assert (speed.ratio.ci is None) == (count == 1)


def test_questions_that_no_model_would_read_as_text_are_left_out(tmp_path):
    bench = Bench()
    speed = timed(tmp_path, bench, [*asked(3), Asked("x", "x.png", "x <image>", "x <image>")])
    assert speed.questions == 3 and not any("<image>" in prompt for _, prompt, _ in bench.calls)
    nothing = timed(tmp_path / "none", bench, [Asked("x", "x.png", "x <image>", "x <image>")])
    assert nothing.not_measured == "no_questions"


@pytest.mark.parametrize(
    ("options", "reason", "said"),
    [
        ({"wanted": 0}, "not_wanted", "evaluate.speed_questions is 0"),
        ({"questions": 0}, "no_questions", "no question to time"),
        ({"after": False}, "not_levelled", "is the one before"),
        ({"local": False}, "remote", "does not run in this process"),
    ],
)
def test_what_is_not_measured_has_a_reason(tmp_path, options, reason, said):
    bench = Bench(local=options.pop("local", True))
    speed = timed(tmp_path, bench, asked(options.pop("questions", 20)), **options)
    assert speed == Speed(questions=0, trials=0, not_measured=reason)
    assert bench.calls == [] and sum(bench.loaded.values()) == (reason == "remote")
    assert said in speed_line(speed) and speed_table(speed) == []


class Killed(BaseException):
    """Stands for the end of the process."""


def test_it_is_measured_once_and_what_was_cut_off_begins_anew(tmp_path):
    def kill(step, finished, total):
        if finished == 7:
            raise Killed

    with pytest.raises(Killed):
        timed(tmp_path, Bench(), asked(64), progress=kill)
    (tmp_path / "speed" / "trials.jsonl").write_text('{"number": 0')
    slower = Bench(costs=(3.0, 3.0))
    speed = timed(tmp_path, slower, asked(64))
    assert speed.before.first_token_seconds == 3
    nobody = Bench()
    assert timed(tmp_path, nobody, asked(64)) == speed and not nobody.loaded


def test_the_questions_are_a_seeded_part_of_those_that_are_scored():
    questions = [
        Question(question_id=str(number), image=f"{number}.png", question=f"{number}?", answers=("a",))
        for number in range(300)
    ]

    def drawn_of(seed=0, **options):
        tests, tasks = {"one": questions, "two": questions}, {"one": task("one"), "two": task("two")}
        found = speed_questions(tests, tasks, settings=EvaluateSettings(**options), seed=seed)
        return [each.item_id for each in found]

    assert len(drawn_of()) == 128 and drawn_of() == drawn_of() != drawn_of(seed=1)
    assert 40 < sum(item.startswith("one:") for item in drawn_of()) < 88
    assert len(drawn_of(limit=5)) == 10 and len(drawn_of(speed_questions=0)) == 0


# A real model


class Weighed(_hf_model.HFModel):
    """A model of transformers that says what it takes."""

    def parameters(self):
        return int(self._model.num_parameters())

    def fits_twice(self):
        return fits_twice(self._model)

    def peak_bytes(self, work):
        return peak_bytes(self._model, work)


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    model = hf.load(str(fast_vlm(tmp_path_factory.mktemp("tiny") / "student")))
    model.__class__ = Weighed
    return model


@pytest.mark.long
def test_a_real_student_beside_itself_is_about_as_fast_and_as_large(tmp_path, weighed):
    paths = drawn(tmp_path / "pictures", 8)
    questions = [Asked(str(number), path, "what is the colour", "") for number, path in enumerate(paths)]
    made = artifact(tmp_path, "speed")
    chosen = EvaluateSettings(max_new_tokens=4)
    time_students(made, questions, cached(weighed), cached(weighed), settings=chosen, progress=mute)
    speed = measured_speed(made, resamples=200, seed=0)
    assert (speed.questions, speed.together) == (8, True) and speed.trials >= 8
    assert speed.before.parameters == speed.after.parameters == sum(p.numel() for p in weighed._model.parameters())
    assert speed.before.first_token_seconds > 0 and speed.ratio.ci[0] <= speed.ratio.value <= speed.ratio.ci[1]
    weights = weighed._model.get_memory_footprint()
    assert all(usage.peak_bytes is None or usage.peak_bytes >= weights for usage in (speed.before, speed.after))


def test_peak_memory_is_the_weights_and_what_was_taken_besides(weighed):
    weights, size, noise = weighed._model.get_memory_footprint(), 256 * 2**20, 32 * 2**20  # of the whole process
    gc.collect()
    idle, busy = peak_bytes(weighed._model, lambda: None), peak_bytes(weighed._model, lambda: bytearray(size))
    if idle is None:
        pytest.skip("only Linux tells the peak")
    assert idle == pytest.approx(weights, abs=noise)
    assert busy == pytest.approx(weights + size, abs=noise)


def test_where_the_system_does_not_tell_the_peak_it_is_not_known(weighed, monkeypatch, tmp_path):
    monkeypatch.setattr("parityalign.models.memory._CLEAR", tmp_path / "no" / "such")
    done_it = []
    assert peak_bytes(weighed._model, lambda: done_it.append(1)) is None and done_it == [1]


class OnGpus:
    """A model whose weights lie on two GPUs that are told about by `cuda`."""

    device = torch.device("cuda:0")

    def parameters(self):
        return [SimpleNamespace(device=torch.device(name)) for name in ("cuda:0", "cuda:1", "cuda:1", "cpu")]

    def get_memory_footprint(self):
        return 1000


def test_on_gpus_it_is_what_their_allocators_say(monkeypatch):
    held = {"cuda:0": 700, "cuda:1": 300}
    peak = {"cuda:0": 5000, "cuda:1": 5000}  # of something before
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: held[str(gpu)])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda gpu: peak.update({str(gpu): held[str(gpu)]}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu: peak[str(gpu)])
    assert peak_bytes(OnGpus(), lambda: peak.update({"cuda:0": 750, "cuda:1": 320})) == 1000 + 50 + 20


def test_what_a_gpu_keeps_for_later_is_given_back_before_its_peak_is_looked_at(monkeypatch):
    reserved = {"now": 500, "peak": 900}  # of a model that is gone
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(memory, "clear_device_cache", lambda garbage_collection: reserved.update(now=20))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda gpu: reserved.update(peak=reserved["now"]))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda gpu: reserved["peak"])
    assert held_meanwhile(lambda: reserved.update(peak=70) or "made") == ("made", 70.0)
    assert held_meanwhile(lambda: None) == (None, 20.0)


@pytest.mark.parametrize(("free", "fits"), [(500, False), (2000, True)])
@pytest.mark.parametrize("kept", [0, 400])
def test_another_model_fits_where_there_is_room_for_its_weights_and_more(monkeypatch, weighed, free, fits, kept):
    """On GPUs what their allocator keeps for later is room too."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (free - kept, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda gpu: 700 + kept)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: 700)
    assert fits_twice(OnGpus()) is fits
    weights = weighed._model.get_memory_footprint()
    memory = SimpleNamespace(available=weights * free // 1000)
    monkeypatch.setattr("parityalign.models.memory.psutil.virtual_memory", lambda: memory)
    assert fits_twice(weighed._model) is fits


def test_a_run_gives_back_the_memory_of_models_that_it_lets_go_of_and_only_then(project, trainable, monkeypatch):
    given = []
    monkeypatch.setattr(run_models, "give_back_memory", lambda: given.append("back"))
    done("run", project / "run.yaml")
    assert given
    given.clear()
    done("run", project / "run.yaml")
    assert not given, "nothing was asked, so nothing was loaded"


class Compared:
    """A model here, and one behind a server."""

    def __init__(self, told):
        self.told = told

    def generate(self, requests, _decoding):
        self.told.append("asked")
        return ["red"] * len(requests)

    def close(self):
        self.told.append("closed")


def test_a_model_that_a_server_is_compared_with_is_gone_before_the_server_is_asked(monkeypatch):
    told = []
    monkeypatch.setattr(engine_parity, "load_model", lambda *_: Compared(told))
    monkeypatch.setattr(engine_parity, "give_back_memory", lambda: told.append("given back"))
    requests = [Request("a.png", "what")]
    assert engine_parity.compare_engines("vllm:x", LoadingSettings(), Compared(told), requests, print) == "1 of 1"
    assert told == ["asked", "closed", "given back", "asked"]


# What was forgotten


def pair(number, name="toy", image=None):
    return Pair(
        pair_id=f"{name}-{number}",
        image_id=image or f"i{number}",
        image=f"{number}.png",
        task=name,
        question=f"{number}?",
        answer=f"answer {number}",
        teacher="t",
    )


KINDS = [VerdictKind.STUDENT_RIGHT, VerdictKind.BOTH, VerdictKind.TEACHER_ONLY, VerdictKind.DROPPED]


def judged(count, name="toy"):
    pairs = [pair(number, name) for number in range(count)]
    verdicts = [
        Verdict(pair_id=each.pair_id, verdict=KINDS[number % 4], reason="", student_text=each.answer)
        for number, each in enumerate(pairs)
    ]
    return pairs, verdicts


def chosen_of(pairs, verdicts, trained=(), seed=0, **options):
    return previously_right(
        [*map(Judged, pairs, verdicts)], set(trained), settings=EvaluateSettings(**options), seed=seed
    )


def test_what_was_right_and_not_trained_on_is_asked_again():
    pairs, verdicts = judged(40)
    trained = {each.pair_id for each in pairs[:20]}
    numbers = [int(known.pair.pair_id.removeprefix("toy-")) for known in chosen_of(pairs, verdicts, trained)]
    assert numbers == [20, 21, 24, 25, 28, 29, 32, 33, 36, 37]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 30))
def test_which_are_asked_hangs_on_their_identity_not_on_their_place(chance, count):
    pairs, verdicts = judged(60)
    order = chance.sample(range(60), 60)
    moved = chosen_of([pairs[n] for n in order], [verdicts[n] for n in order], forgotten_pairs=count)
    here = chosen_of(pairs, verdicts, forgotten_pairs=count)
    assert {known.pair.pair_id for known in moved} == {known.pair.pair_id for known in here}
    assert len(here) == count


def forget(folder, known, tasks, student, **options):
    made, rules = artifact(folder, "forgotten"), IdentifySettings(batch_size=4, **options)
    ask_again(made, known, tasks, student, settings=rules, progress=mute)
    return made, pair_regressions(made, [each.pair for each in known], tasks, settings=rules)


TASKS = {"toy": task(), "other": task("other")}
NOBODY = CachedModel("nobody", lambda: pytest.fail("the student was loaded"), AnswerStore())


def test_lost_pairs_are_counted_by_task_with_the_judge_of_identify(tmp_path):
    known = [*chosen_of(*judged(40)), *chosen_of(*judged(80, "other"))]
    right = {known.pair.question: known.pair.answer for known in known if int(known.pair.question[:-1]) >= 8}
    student = FakeModel(lambda request, _: right.get(request.prompt.partition("\n")[0], "nothing"))
    made, lost = forget(tmp_path, known, {"toy": task(), "other": task("other")}, kept(tmp_path, student))
    assert {name: (part.had_right, part.lost) for name, part in lost.tasks.items()} == {
        "toy": (20, 4),
        "other": (40, 4),
    }
    assert (lost.total.had_right, lost.total.images, lost.total.lost) == (60, 40, 8)
    assert lost.tasks["toy"].share == 0.2 and lost.tasks["toy"].ci[0] < 0.2 < lost.tasks["toy"].ci[1]
    assert made.manifest["counts"] == {"pairs asked again": 60}
    assert {request.prompt for request in student.asked} == {f"{known.pair.question}\nanswer" for known in known}


def test_a_pair_that_the_judge_is_unsure_of_is_not_lost(tmp_path):
    known = chosen_of(*judged(40))
    student = FakeModel(lambda request, _: f"iced {said[request.prompt.partition(chr(10))[0]]}")
    said = {each.pair.question: each.pair.answer for each in known}
    _, lost = forget(tmp_path / "judge", known, {"toy": task()}, kept(tmp_path, student))
    assert (lost.total.had_right, lost.total.lost) == (20, 0)


def test_a_student_that_was_left_as_it_is_is_not_asked_and_lost_nothing(tmp_path):
    _, lost = forget(tmp_path, chosen_of(*judged(40)), {"toy": task()}, None)
    assert (lost.total.had_right, lost.total.lost, lost.total.share) == (20, 0, 0)
    assert lost.total.ci[0] == 0 < lost.total.ci[1]


def test_what_was_asked_is_not_asked_again(tmp_path):
    known = chosen_of(*judged(40))
    forget(tmp_path, known, {"toy": task()}, kept(tmp_path, FakeModel(lambda *_: "nothing")))
    _, lost = forget(tmp_path, known, {"toy": task()}, NOBODY)
    assert lost.total.lost == 20
    again = FakeModel(lambda *_: "nothing")
    forget(tmp_path / "other", [*known, *chosen_of(*judged(4, "other"))], TASKS, kept(tmp_path, again))
    assert len(again.asked) == 0  # the same pictures and prompts


def test_where_nothing_was_right_there_is_no_share(tmp_path):
    _, lost = forget(tmp_path, [], {"toy": task()}, NOBODY)
    assert lost.model_dump() == regressions_by_task([]).model_dump()
    assert lost.total.model_dump() == {"had_right": 0, "images": 0, "lost": 0, "share": None, "ci": None}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans())))
def test_the_tasks_add_up_to_the_total(rows):
    counted = regressions_by_task(Case(name, str(image), lost) for name, image, lost in rows)
    assert sum(part.had_right for part in counted.tasks.values()) == counted.total.had_right == len(rows)
    assert sum(part.lost for part in counted.tasks.values()) == counted.total.lost


# How it looks


def test_the_line_says_the_ratio_its_interval_and_the_counts(tmp_path):
    speed = timed(tmp_path, Bench(costs=(1.0, 2.0)), asked(64))
    assert speed_line(speed) == "speed: 0.50 times as fast as before [0.50, 0.50] (64 questions, 16 trials)"
    assert [tuple(row) for row in speed_table(speed)] == [
        ("parameters, millions", "0.00", "0.00"),
        ("answers per second", "0.25", "0.12"),
        ("time to first token, ms", "1,000.0", "2,000.0"),
        ("peak memory, GB", "5.000", "5.000"),
        ("words in an answer", "2.00", "2.00"),
    ]
    assert speed_line(None) == "" and speed_table(None) == []


def test_the_table_has_a_row_a_task_and_one_for_all():
    questions = regressions_by_task([Case("one", str(number), number < 2) for number in range(20)])
    pairs = regressions_by_task([Case("two", str(number), number < 1) for number in range(10)])
    rows = forgotten_table(Forgotten(questions=questions, pairs=pairs))
    assert [row.task for row in rows] == ["two", "one", "all"]
    assert rows[0][1:] == ("10", "1", "10.0 [1.8, 40.4]", "-", "-", "-")
    assert rows[2][1:3] == ("10", "1") and rows[2][4:6] == ("20", "2")
    assert forgotten_table(None) == []


def test_controls_say_what_each_forgot():
    lost = regressions_by_task([Case("one", str(number), number < 2) for number in range(20)]).total
    table = control_table(Controls(controls=(Control(name="a", forgotten=lost), Control(name="b"))))
    assert table.headings[-1] == "forgotten, %"
    assert [row[-1] for row in table.rows] == ["10.0 [2.8, 30.1]", "-"]


# On a run


def scores_of(project):
    return json.loads((project / "runs" / "a" / "scores.json").read_text())


@pytest.mark.slow
def test_a_run_says_what_was_forgotten_and_why_speed_was_not_measured(project, trainable):
    output = done("run", project / "run.yaml")
    forgotten = scores_of(project)["forgotten"]
    assert forgotten["questions"]["total"]["had_right"] == 4 and forgotten["questions"]["total"]["lost"] == 0
    assert forgotten["pairs"]["total"]["lost"] == 0
    assert scores_of(project)["speed"]["not_measured"] == "remote"
    assert "speed: not measured, since the student does not run in this process" in output
    assert "0 of 4 test questions that it had right" in output
    page = (project / "runs" / "a" / "report.html").read_text()
    assert "What levelling kept" in page and "does not run in this process" in page


@pytest.mark.slow
def test_what_the_run_trained_on_is_not_asked_again(project, trainable):
    done("run", configure(project, level={"held_out": 0.3}))
    run = project / "runs" / "a"
    pairs = [json.loads(line) for line in (run / "pairs" / "pairs.jsonl").read_text().splitlines()]
    verdicts = [Verdict.model_validate_json(line) for line in (run / "verdicts" / "verdicts.jsonl").open()]
    choice = choose_pairs([*map(Judged, map(Pair.model_validate, pairs), verdicts)], LevelSettings(held_out=0.3), 0)
    asked = {json.loads(line)["item_id"] for line in (run / "forgotten" / "after.jsonl").open()}
    right = {verdict.pair_id for verdict in verdicts if verdict.verdict == VerdictKind.STUDENT_RIGHT}
    assert asked == right - {pair.pair_id for pair in choice.training}
    assert 0 < len(asked) < len(right)


@pytest.mark.long
def test_a_changed_setting_redoes_what_it_touches(project, trainable):
    def manifests():
        return {
            name: (project / "runs" / "a" / name / "manifest.json").stat().st_mtime_ns
            for name in ("answers", "forgotten", "speed")
        }

    said = {"batch_size": 3, "resamples": 100}
    done("run", configure(project, level={"replay": 0.0}, evaluate=said))
    assert scores_of(project)["forgotten"]["pairs"]["total"]["had_right"] == 4
    changes = [
        ({"speed_questions": 3}, {"speed"}),
        ({"forgotten_pairs": 3}, {"forgotten"}),
        ({"max_new_tokens": 31}, {"answers", "speed"}),
        ({"resamples": 200}, set()),
    ]
    for change, redone in changes:
        before, said = manifests(), {**said, **change}
        done("run", configure(project, level={"replay": 0.0}, evaluate=said))
        assert {name for name, at in manifests().items() if at != before[name]} == redone
    assert scores_of(project)["forgotten"]["pairs"]["total"]["had_right"] == 3
    assert len((project / "runs" / "a" / "forgotten" / "after.jsonl").read_text().splitlines()) == 3
