"""A provider's batch interface: every question once, whatever the provider does and whenever somebody comes back."""

import json
import signal
from collections import Counter
from dataclasses import replace

import pytest

from batching import Provider
from makers import draw, speckle
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import as_yaml, load_config
from parityalign.config.serving import ServerSettings
from parityalign.core.errors import Interrupted, UserError, WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.core.remote import Said
from parityalign.engines import Asked, CachedModel, Spent, connect, cost, in_words, job_book, of_stage
from parityalign.engines.spending import room_for_jobs
from parityalign.engines.store import AnswerStore
from parityalign.planning import costs
from parityalign.planning.works import Workload
from projects import configure, done, make_project, refusal
from serving import answer, image_of, prompt_of, reply, serving

GREEDY = Decoding(max_new_tokens=8)
BATCH = {"above": 3, "poll": 0.001}
PROBES, FIRST = 2, 1
"""What is asked at once before a file is made: whether pictures are seen, and one of the questions."""


async def well(body: dict, before: int) -> bytes:
    return reply(f"{prompt_of(body)} seen {len(image_of(body))}")


@pytest.fixture
def picture(tmp_path):
    return str(draw(tmp_path / "red.png"))


class Asking:
    """The model behind the provider, as one process of a run has it."""

    def __init__(self, served: Provider, folder, **settings) -> None:
        batch = settings.pop("batch", {})
        batch = None if batch is None else BATCH | batch
        self.settings = ServerSettings(
            **{"backoff": 0.001, "timeout": 60.0, "max_attempts": 4, "batch": batch} | settings
        )
        self.name = f"{served.url}#m"
        self.told: list[str] = []
        self.store = AnswerStore(folder / "answers.sqlite", run="r")
        self.store.begin_stage("stage")
        self.model = CachedModel(self.name, self._connected, self.store)

    def _connected(self):
        made = connect(self.name, LoadingSettings(), self.settings, self.store)
        made._tell = self.told.append
        return made

    def answer(self, requests: list[Request], decoding: Decoding = GREEDY) -> list[str]:
        asked = [Asked(str(place), each.image, each.prompt, "", seed=each.seed) for place, each in enumerate(requests)]
        answers = self.model.answer(asked, decoding=decoding, batch_size=1, on_progress=lambda *_: None)
        return [each.text if each.not_asked is None else each.not_asked for each in answers.values()]

    @property
    def spent(self) -> Spent:
        return of_stage(self.store.spent(), "stage").get(self.name, Spent())


def questions(picture: str, count: int) -> list[Request]:
    return [Request(picture, f"question {number}") for number in range(count)]


def expected(requests: list[Request], served: Provider) -> list[str]:
    length = len(image_of(served.asked[-1]))
    return [f"{each.prompt} seen {length}" for each in requests]


def at_once(served: Provider) -> list[str]:
    return [prompt_of(body) for body in served.asked if prompt_of(body).startswith("question")]


class Stop:
    """Ctrl-C at a number of looks at the clock: the process ends there, and another goes on."""

    def __init__(self, *calls: int) -> None:
        self.calls = [*calls]

    def __call__(self, served: Provider) -> None:
        if self.calls and len(served.calls) >= self.calls[0]:
            self.calls.pop(0)
            signal.raise_signal(signal.SIGINT)


# ---- every question once ----


def test_every_question_is_answered_once_by_a_provider_that_takes_days_loses_a_job_and_answers_out_of_order(
    picture, tmp_path
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    requests = questions(picture, 60)
    fates = [
        lambda job: setattr(job, "hours", 50),
        lambda job: vars(job).update(lost=True, hours=30),
        lambda job: vars(job).update(end="expired", answers=5, hours=24),
        lambda job: vars(job).update(end="cancelled", answers=0, hours=10),
    ]
    stop = Stop(12, 20, 33)
    interrupts, told, texts = [], [], []

    class Interrupting(Provider):
        async def responds(self, method, path, content):
            stop(self)
            return await super().responds(method, path, content)

    with serving(well, kind=Interrupting) as served:
        served.fates = fates
        while not texts:
            asking = Asking(served, tmp_path, batch={"file_requests": 14})
            try:
                texts = asking.answer(requests)
            except KeyboardInterrupt as interrupt:
                interrupts.append(interrupt)
            told += asking.told
    assert texts == expected(requests, served) and len(interrupts) == 3
    assert isinstance(interrupts[0], Interrupted)
    assert "59 questions wait at the provider of http" in str(interrupts[0])
    assert served.clock > 48  # days of its clock
    prompts = {each.prompt for each in requests}
    # Each was answered at once or in one job, never in two.
    assert served.answers + Counter(at_once(served)) == Counter(dict.fromkeys(prompts, 1))
    # Asked twice were only those of the lost job, and what the expired and the cancelled one left.
    assert sum(served.lines.values()) + len(at_once(served)) == 60 + 14 + (14 - 5) + 14
    assert max(served.lines.values()) == 2
    assert not asking.store.jobs.all() and not served.files
    assert any("the provider has no such job any more; its 14 questions are asked again" in each for each in told)
    assert any("is expired: 5 answers; 9 questions are asked again" in each for each in told)
    spent = asking.spent
    assert spent.answers == sum(served.answers.values()) + len(served.asked)
    assert spent.in_jobs == 60 - len(at_once(served))
    assert spent.requests == sum(served.lines.values()) + len(served.asked)


@pytest.mark.parametrize("at", ["before the job is made", "after it was made"])
def test_a_run_that_is_killed_while_it_hands_in_submits_nothing_twice(picture, tmp_path, monkeypatch, at):
    keep, calls = job_book.JobBook.keep, []

    def killed(self, job):
        calls.append(job)
        if len(calls) == 2:  # the reply of the provider was not noted
            raise KeyboardInterrupt
        keep(self, job)

    async def cut(self, file):
        raise KeyboardInterrupt

    with serving(well, kind=Provider) as served, monkeypatch.context() as patched:
        if at == "after it was made":
            patched.setattr(job_book.JobBook, "keep", killed)
        else:
            patched.setattr("parityalign.models.backends._jobs.OpenAIDesk.submit", cut)
        with pytest.raises(KeyboardInterrupt):
            Asking(served, tmp_path).answer(questions(picture, 9))
        patched.undo()
        texts = Asking(served, tmp_path).answer(questions(picture, 9))
        assert texts == expected(questions(picture, 9), served)
        assert served.lines + Counter(at_once(served)) == Counter(each.prompt for each in questions(picture, 9))
        assert len(served.jobs) == 1


def test_what_is_in_a_job_is_not_asked_again_by_whoever_shares_the_store_and_wants_more(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        with pytest.raises(WorkFailed, match="8 questions to .*#m wait at its provider .batch_0"):
            Asking(served, tmp_path, batch={"wait": 0}).answer(questions(picture, 9))
        texts = Asking(served, tmp_path).answer(questions(picture, 20))
        assert texts == expected(questions(picture, 20), served)
    assert set(served.lines.values()) == {1} and len(served.jobs) == 2


def test_what_another_run_took_from_the_shared_store_meanwhile_is_not_handed_in_again(picture, tmp_path):
    class Shared(Provider):
        def _look(self, name):
            if self.clock > 10:
                other = AnswerStore(tmp_path / "answers.sqlite", run="other")
                for job in other.jobs.all():
                    other.keep(job.model, dict.fromkeys(job.questions, Said("by another")), Spent())
                    other.jobs.drop(job)
            return super()._look(name)

    with serving(well, kind=Shared) as served:
        texts = Asking(served, tmp_path).answer(questions(picture, 9))
    assert texts.count("by another") == 8 and len(served.made) == 1


def test_results_are_read_on_where_the_connection_broke(picture, tmp_path):
    class Breaking(Provider):
        async def _results(self, name):
            sent = await super()._results(name)
            if self.calls.count(f"GET files/{name}/content") == 1:
                return sent[: len(sent) // 2]  # and nothing more for long
            return sent

    with serving(well, kind=Breaking) as served:
        asking = Asking(served, tmp_path, timeout=0.5)
        assert asking.answer(questions(picture, 9)) == expected(questions(picture, 9), served)
    assert asking.spent.in_jobs == 8 and len(served.made) == 1


def test_what_was_kept_before_a_break_does_not_hide_what_comes_after_it(picture, tmp_path, monkeypatch):
    monkeypatch.setattr("parityalign.engines.jobs._AT_ONCE", 10)

    class Breaking(Provider):
        async def _results(self, name):
            sent = await super()._results(name)
            again = self.calls.count(f"GET files/{name}/content") > 1
            return sent if again else sent[: len(sent) * 9 // 10]

    with serving(well, kind=Breaking) as served:
        asking = Asking(served, tmp_path, timeout=0.5)
        assert asking.answer(questions(picture, 400)) == expected(questions(picture, 400), served)
    assert set(served.lines.values()) == {1} and asking.spent.retries == 0


def test_a_process_that_comes_back_reads_results_as_the_one_that_handed_them_in(picture, tmp_path):
    async def script(body, before):
        if prompt_of(body) == "question 4":
            return answer('{"error": {"message": "cannot"}}', "400 Bad Request")
        return await well(body, before)

    def said(folder, *, comes_back):
        (tmp_path / folder).mkdir()
        with serving(script, kind=Provider) as served:
            if comes_back:
                with pytest.raises(WorkFailed, match="wait at its provider"):
                    Asking(served, tmp_path / folder, batch={"wait": 0}).answer(questions(picture, 12))
            return Asking(served, tmp_path / folder).answer(questions(picture, 12))

    assert said("back", comes_back=True) == said("whole", comes_back=False)


def test_what_fills_a_queue_with_jobs_of_ours_costs_no_question_an_attempt(picture, tmp_path):
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    refused = [lambda job: vars(job).update(end="failed", hours=0, errors=[full])] * 6
    with serving(well, kind=Provider) as served:
        served.fates = [lambda job: setattr(job, "hours", 200), *refused]
        asking = Asking(served, tmp_path, batch={"file_requests": 4})
        assert asking.answer(questions(picture, 9)) == expected(questions(picture, 9), served)


def test_another_run_that_is_about_to_make_its_job_is_left_to_it(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        with pytest.raises(WorkFailed, match="wait at its provider"):
            Asking(served, tmp_path, batch={"wait": 0}).answer(questions(picture, 9))
        (job,) = AnswerStore(tmp_path / "answers.sqlite", run="r").jobs.all()
        other = AnswerStore(tmp_path / "answers.sqlite", run="other").jobs
        made, served.jobs = served.jobs, {}
        other.drop(job)
        other.keep(replace(job, job="", run="other"))
        with pytest.raises(WorkFailed, match="wait at its provider"):
            Asking(served, tmp_path, batch={"wait": 0}).answer(questions(picture, 9))
        assert job.file in served.files and len(served.made) == 1
        served.jobs = made
        assert Asking(served, tmp_path).answer(questions(picture, 9)) == expected(questions(picture, 9), served)


def test_what_is_in_a_job_is_waited_for_also_when_the_setting_is_gone(picture, tmp_path, monkeypatch):
    monkeypatch.setattr("parityalign.engines.jobs._NO_MORE", ServerSettings(batch={**BATCH, "above": 10**9}).batch)
    with serving(well, kind=Provider) as served:
        with pytest.raises(WorkFailed, match="wait at its provider"):
            Asking(served, tmp_path, batch={"wait": 0}).answer(questions(picture, 9))
        texts = Asking(served, tmp_path, batch=None).answer(questions(picture, 20))
        assert texts == expected(questions(picture, 20), served)
    assert sum(served.lines.values()) == 8 and len(at_once(served)) == 12


def test_a_few_questions_are_asked_at_once(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        Asking(served, tmp_path).answer(questions(picture, 3))
    assert len(at_once(served)) == 3 and not served.calls


def test_files_keep_to_the_bytes_that_a_provider_takes(tmp_path):
    requests = [Request(str(speckle(tmp_path / f"{n}.png", n, size=(20 + 10 * n, 40))), "question") for n in range(12)]
    sizes = []

    class Weighing(Provider):
        def _upload(self, content):
            sent = super()._upload(content)
            sizes.append(len([*self.files.values()][-1]))
            return sent

    with serving(well, kind=Weighing) as served:
        Asking(served, tmp_path, batch={"file_bytes": 30_000}).answer(requests)
        assert len(sizes) > 2 and max(sizes) <= 30_000 and sum(served.lines.values()) == 11
        large = [Request(each.image, "another question") for each in requests]
        with pytest.raises(WorkFailed, match="server.batch.file_bytes: 2,000.*\n.*max_pixels"):
            Asking(served, tmp_path, batch={"file_bytes": 2000}).answer(large)


# ---- what goes wrong with single questions ----


def test_questions_that_fail_are_asked_again_those_that_are_declined_are_not(picture, tmp_path):
    failures, failing = Counter(), {f"question {n}" for n in range(5, 11)}

    async def script(body, before):
        prompt = prompt_of(body)
        if prompt == "question 4":
            return answer('{"error": {"code": "content_filter", "message": "flagged"}}', "400 Bad Request")
        if prompt in failing and failures[prompt] < 2:
            failures[prompt] += 1
            return answer('{"error": "oh"}', "500 Oh")
        return await well(body, before)

    with serving(script, kind=Provider) as served:
        asking = Asking(served, tmp_path)
        texts = asking.answer(questions(picture, 12))
        wanted = expected(questions(picture, 12), served)
        assert texts == [*wanted[:4], "declined: HTTP 400 : 'flagged'", *wanted[5:]]
        assert Asking(served, tmp_path).answer(questions(picture, 12)) == texts
    assert set(Counter(at_once(served)) + served.lines - Counter(dict.fromkeys(served.lines, 1))) >= failing
    assert asking.spent.refused == 1 and asking.spent.retries >= 5


def test_a_field_that_is_refused_in_a_job_only_is_left_out_of_the_next(picture, tmp_path):
    async def script(body, before):
        in_job = prompt_of(body).startswith("question") and not any(body is each for each in served.asked)
        if in_job and "seed" in body:
            return answer("\"Unsupported parameter: 'seed'\"", "400 Bad Request")
        return await well(body, before)

    with serving(script, kind=Provider) as served:
        asking = Asking(served, tmp_path)
        asking.answer(questions(picture, 9), Decoding(8, 0.5))
    assert len(served.jobs) == 2 and "seed" not in [*served.jobs.values()][-1].lines[0]["body"]
    assert "the server does not accept seeds" in in_words(asking.name, asking.spent, asking.settings)


def test_what_concerns_all_questions_ends_the_work_with_the_providers_words(picture, tmp_path):
    async def script(body, before):
        in_job = prompt_of(body).startswith("question") and not any(body is each for each in served.asked)
        return answer('{"error": "no credits left"}', "402 Pay") if in_job else await well(body, before)

    with serving(script, kind=Provider) as served, pytest.raises(WorkFailed, match="batch_0 gave HTTP 402.*no credits"):
        Asking(served, tmp_path).answer(questions(picture, 9))


def test_questions_without_any_result_are_asked_as_often_as_they_may(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        served.fates = [lambda job: vars(job).update(answers=0)] * 9
        with pytest.raises(WorkFailed, match="8 questions of the job batch_3 have no answer, after 4 jobs"):
            Asking(served, tmp_path).answer(questions(picture, 9))
        assert len(served.jobs) == 4


def test_lines_that_are_no_results_or_of_other_questions_change_nothing(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        other = {"custom_id": "another", "response": {"status_code": 200, "body": {}}}
        served.extra_lines = [
            "",
            "null",
            "[" * 10**5,
            '{"custom_id": 3}',
            json.dumps(other),
            '{"custom_id": "\\ud83d"}',
        ]
        asking = Asking(served, tmp_path)
        assert asking.answer(questions(picture, 9)) == expected(questions(picture, 9), served)
    assert asking.store.holdings()[0].answers == 9


# ---- what goes wrong with jobs ----


def test_a_job_that_is_not_found_but_listed_is_waited_for(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        served.hidden = 2
        Asking(served, tmp_path).answer(questions(picture, 9))
    assert set(served.lines.values()) == {1}


def test_a_job_that_the_provider_refuses_is_told_in_its_words_and_a_full_queue_is_waited_for(picture, tmp_path):
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    wrong = {"code": "model_not_found", "message": "No model \x1b[31mm"}
    with serving(well, kind=Provider) as served:
        served.fates = [lambda job: vars(job).update(end="failed", errors=[full], hours=0)]
        asking = Asking(served, tmp_path)
        asking.answer(questions(picture, 9))
        assert any("refuses it: token_limit_exceeded Enqueued token limit reached" in each for each in asking.told)
        served.fates = [lambda job: vars(job).update(end="failed", errors=[wrong], hours=0)]
        with pytest.raises(WorkFailed, match="refuses the job batch_2: model_not_found No model [?].31mm\n"):
            Asking(served, tmp_path).answer([Request(picture, f"another {n}") for n in range(9)])


def test_a_server_without_a_batch_interface_is_told_after_one_question(picture, tmp_path):
    class Without(Provider):
        async def responds(self, method, path, content):
            if path.endswith("/files"):
                return answer('{"detail": "Not Found"}', "404 Not Found")
            return await super().responds(method, path, content)

    with (
        serving(well, kind=Without) as served,
        pytest.raises(WorkFailed, match="gave HTTP 404.*(?s:.)*leave server.ba"),
    ):
        Asking(served, tmp_path).answer(questions(picture, 9))
    assert len(at_once(served)) == FIRST


def test_a_kind_of_model_without_jobs_refuses_the_setting(monkeypatch, tmp_path):
    asking = Asking(type("Nowhere", (), {"url": "http://127.0.0.1:1/v1"}), tmp_path)
    monkeypatch.delattr("parityalign.models.backends.openai.OpenAIModel.desk")
    with pytest.raises(
        UserError, match="server.batch is set, but models of the kind of http.* have no batch interface"
    ):
        asking.answer(questions(str(tmp_path / "x.png"), 0) or [Request("", "question")])


# ---- what it costs ----


def test_a_budget_of_requests_holds_for_what_is_in_jobs_too(picture, tmp_path):
    with serving(well, kind=Provider) as served:
        asking = Asking(served, tmp_path, budget_requests=20)
        with pytest.raises(WorkFailed, match="server.budget_requests is 20, and 20 requests took"):
            asking.answer(questions(picture, 50))
        assert sum(served.lines.values()) + len(served.asked) == 20 == asking.spent.requests
        Asking(served, tmp_path, budget_requests=60).answer(questions(picture, 50))
    assert set((served.lines + Counter(at_once(served))).values()) == {1}


def test_tokens_of_jobs_cost_their_share_and_the_budget_knows(picture, tmp_path):
    prices = {"prompt_price": 100.0, "completion_price": 400.0}
    each = (10 * 100 + 2 * 400) / 1e6
    longest = (10 * 100 + 8 * 400) / 1e6  # a reply of full length
    with serving(well, kind=Provider) as served:
        asking = Asking(served, tmp_path, budget_money=0.02, **prices)
        with pytest.raises(WorkFailed, match="server.budget_money is 0.02"):
            asking.answer(questions(picture, 50))
    in_jobs = sum(served.lines.values())
    spent = cost(asking.spent, asking.settings)
    assert spent == pytest.approx(len(served.asked) * each + in_jobs * each / 2)
    assert in_jobs > 5 and spent <= 0.02 < spent + longest
    assert f"{in_jobs:,} answers by the batch interface" in in_words(asking.name, asking.spent, asking.settings)


def test_room_in_a_budget_is_what_its_tightest_limit_leaves():
    spent = Spent(requests=10, prompt_tokens=1000, completion_tokens=100, longest_prompt=100)
    settings = {"budget_requests": 1010, "budget_tokens": 12_100, "budget_money": 2.0, "prompt_price": 1e4}
    assert room_for_jobs(ServerSettings(**settings | {"prompt_price": 0.0001}), spent, 10) == 100
    assert room_for_jobs(ServerSettings(**settings, batch=True), spent, 10) == 0
    assert room_for_jobs(ServerSettings(), spent, 10) is None


@pytest.mark.parametrize(("requests", "batch", "money"), [(1001, True, 1.0), (1000, True, 2.0), (1001, False, 2.0)])
def test_a_plan_reckons_with_the_lower_price_where_jobs_are_made(requests, batch, money):
    work = Workload("annotate", "teacher", requests, prompt_tokens=10**6, reply_tokens=0, patches=0)
    assert costs.money(work, ServerSettings(prompt_price=2.0, batch=batch)) == money


# ---- a run ----


def test_a_run_by_jobs_has_the_pairs_of_one_without_and_status_says_what_waits(tmp_path):
    async def script(body, before):
        told = "Question: What is written?\nAnswer: word" if "Write one question" in prompt_of(body) else "word"
        return reply(f"{told}{len(image_of(body))}")

    class Interrupting(Provider):
        interrupts = False

        def _look(self, name):
            if self.interrupts:
                signal.raise_signal(signal.SIGINT)
            return super()._look(name)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = make_project(tmp_path)
    with serving(script, kind=Interrupting) as served:

        def configured(name: str, **batch):
            server = {"batch": batch or False, "backoff": 0.001}
            return configure(folder, run=f"runs/{name}", teacher=f"{served.url}#m", server=server)

        done("run", configured("plain"), "--until", "annotate")
        config = configured("jobs", above=2, poll=0.001, wait=0)
        loaded = load_config(config)
        (folder / "again.yaml").write_text(as_yaml(loaded, folder))
        assert load_config(folder / "again.yaml").server == loaded.server
        served.interrupts = True
        assert "7 questions wait at the provider of http" in refusal("run", config, "--until", "annotate", status=130)
        served.interrupts = False
        assert "7 questions to http" in refusal("run", config, "--until", "annotate", status=1)
        told = done("status", folder / "runs/jobs")
        assert "7 questions of annotate wait at http" in told and "job batch_0: in_progress, 0 done" in told
        (waiting,) = json.loads(done("status", folder / "runs/jobs", "--json"))["waiting"]
        assert (waiting["stage"], waiting["questions"], waiting["job"]) == ("annotate", 7, "batch_0")
        assert "7 of which wait there" in done("run", config, "--dry-run")
        done("run", configured("jobs", above=2, poll=0.001), "--until", "annotate")
    assert sum(served.lines.values()) == 7
    pairs = [(folder / "runs" / name / "pairs/pairs.jsonl").read_text() for name in ("plain", "jobs")]
    assert pairs[0] == pairs[1]
