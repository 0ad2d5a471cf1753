"""A model behind a server: each question is answered once whatever goes wrong, nothing is spent or told unasked."""

import asyncio
import base64
import json
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from itertools import groupby

import numpy as np
import pytest
from PIL import Image

from makers import content as content_of
from makers import draw, speckle
from parityalign import demo
from parityalign.cli import run_commands
from parityalign.config.loading import LoadingSettings
from parityalign.config.model_specs import split_model
from parityalign.config.run_yaml import as_yaml, load_config, read_config
from parityalign.config.serving import ServerSettings
from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.core.records import Answer
from parityalign.core.remote import Said
from parityalign.data.images import read_picture
from parityalign.engines import Asked, CachedModel, Spent, attempts, connect, in_words, of_stage
from parityalign.engines.asking import answer_key
from parityalign.engines.remote import RemoteModel
from parityalign.engines.store import AnswerStore, KnownModel
from parityalign.models.backends._failures import retry_after
from parityalign.models.backends._images import data_url
from parityalign.models.open import fingerprint, load_model
from projects import WORDS, configure, done, refusal
from serving import Served, answer, image_of, prompt_of, reply, serving

GREEDY = Decoding(max_new_tokens=8)
KEY = "sk-not-to-be-seen-1234567890"
QUICK = {"backoff": 0.001, "timeout": 5.0, "max_attempts": 6}
PROBES = 2


async def well(body: dict, before: int) -> bytes:
    """Answers at once, differently to every prompt and picture."""
    return reply(f"{prompt_of(body)} seen {len(image_of(body))}")


@pytest.fixture
def picture(tmp_path):
    return str(draw(tmp_path / "red.png"))


def model(served: Served, **settings) -> RemoteModel:
    """The served model as it is: whoever asks again gets it asked again."""
    return at(f"{served.url}#m", AnswerStore(), **settings)


def at(spec: str, store: AnswerStore, **settings) -> RemoteModel:
    return connect(spec, LoadingSettings(), ServerSettings(**QUICK | settings), store)


class Kept:
    """The served model as a process of a run has it: its answers are kept in a folder."""

    def __init__(self, served: Served, folder, *, stage: str = "stage", **settings) -> None:
        self.settings = ServerSettings(**QUICK | settings)
        self.name = f"{served.url}#m"
        self.store = AnswerStore(folder / "answers.sqlite", run="r")
        self.store.begin_stage(stage)
        self.model = CachedModel(self.name, lambda: at(self.name, self.store, **settings), self.store)

    def answer(self, requests: list[Request], decoding: Decoding) -> list[Answer]:
        answers = self.model.answer(
            numbered(requests),
            decoding=decoding,
            batch_size=1,
            on_progress=lambda done, total: None,
        )
        return [*answers.values()]

    def generate(self, requests: list[Request], decoding: Decoding) -> list[str]:
        return [answer.text for answer in self.answer(requests, decoding)]

    def known(self, requests: list[Request], decoding: Decoding) -> dict[str, Said]:
        """What the store holds, by prompt."""
        keys = {answer_key(self.name, each, decoding): each.prompt for each in numbered(requests)}
        return {keys[key]: said for key, said in self.store.answers(keys)}

    def spent(self, stage: str = "stage") -> Spent:
        return of_stage(self.store.spent(), stage).get(self.name, Spent())

    def told(self, stage: str = "stage") -> str:
        return in_words(self.name, self.spent(stage), self.settings)


def numbered(requests: list[Request]) -> list[Asked]:
    return [Asked(str(place), each.image, each.prompt, "", seed=each.seed) for place, each in enumerate(requests)]


def questions(picture: str, count: int) -> list[Request]:
    return [Request(picture, f"question {number}") for number in range(count)]


def asked(served: Served) -> list[str]:
    """The prompts that arrived, without those that test whether pictures are seen."""
    return [prompt_of(body) for body in served.asked if prompt_of(body).startswith("question")]


# ---- what is sent ----


def test_a_request_holds_the_picture_then_the_prompt_and_how_to_decode(picture):
    with serving(well) as served:
        model(served).generate([Request(picture, "question", seed=2**40 + 5)], Decoding(9, temperature=0.7))
    body = served.asked[-1]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("m", 0.7, 9, 5)
    assert body["logprobs"] is True


def test_a_greedy_question_has_no_seed_and_is_the_same_question_whatever_its_seed(picture, tmp_path):
    with serving(well) as served:
        texts = Kept(served, tmp_path).generate([Request(picture, "question", seed) for seed in (1, 2)], GREEDY)
    assert asked(served) == ["question"] and texts[0] == texts[1] and "seed" not in served.asked[-1]


def sent_pixels(path) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(data_url(path).partition(",")[2]))).convert("RGB"))


def test_a_plain_file_is_sent_as_it_is(tmp_path):
    for path in (speckle(tmp_path / "a.png", 1), draw(tmp_path / "b.jpg", "blue")):
        head, _, sent = data_url(path).partition(",")
        assert base64.b64decode(sent) == path.read_bytes()
        assert head == f"data:image/{'png' if path.suffix == '.png' else 'jpeg'};base64"


@pytest.mark.parametrize("kind", ["turned", "grey", "transparent", "profile", "bmp"])
def test_any_other_file_is_sent_as_the_pixels_that_a_local_model_sees(tmp_path, kind):
    image = Image.frombytes("RGB", (12, 7), random.Random(3).randbytes(252))
    path, options = tmp_path / "x.png", {}
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        path, options = tmp_path / "x.jpg", {"exif": exif}
    elif kind == "grey":
        image = image.convert("I;16")
    elif kind == "transparent":
        image.putalpha(90)
    elif kind == "profile":
        options = {"icc_profile": b"some profile"}
    else:
        path = tmp_path / "x.bmp"
    image.save(path, **options)
    assert np.array_equal(sent_pixels(path), np.asarray(read_picture(path)))
    assert data_url(path).startswith("data:image/png")


def test_a_picture_that_is_gone_is_named(tmp_path):
    for asking in (model, lambda served: Kept(served, tmp_path)):
        with serving(well) as served, pytest.raises(WorkFailed, match="cannot read the image .*gone.png"):
            asking(served).generate([Request(str(tmp_path / "gone.png"), "question")], GREEDY)


# ---- every question once, whatever goes wrong ----


COUNT = 500
"""Questions that are asked through all faults."""
FAULTS = {
    "burst": 4,
    "500": 4,
    "reset": 3,
    "early reset": 2,
    "stall": 0.2,
    "broken": 2,
    "no choices": 2,
    "html 502": 2,
}
"""What may go wrong with a request, and how often beside the others."""


class Faults:
    """Goes wrong in every way that there is, by a seeded draw for each prompt; then answers late and out of order."""

    def __init__(self, questions: int) -> None:
        self.left = random.Random(7)
        self.plans = {f"question {n}": self.plan() for n in range(questions)}
        self.answered: Counter[str] = Counter()
        self.finished: list[str] = []

    def plan(self) -> list[str]:
        return self.left.choices([*FAULTS], [*FAULTS.values()], k=self.left.choice([0, 0, 0, 0, 0, 1, 1, 2]))

    async def __call__(self, body: dict, before: int) -> bytes | None:
        prompt = prompt_of(body)
        plan = self.plans.get(prompt, [])
        if before < len(plan):
            return await self.fail(plan[before])
        await asyncio.sleep(self.left.random() * 0.005)
        self.answered[prompt] += 1
        self.finished.append(prompt)
        return reply(f"{prompt} seen {len(image_of(body))}", finish="length" if prompt.endswith("0") else "stop")

    async def fail(self, kind: str) -> bytes | None:
        match kind:
            case "burst":
                return answer('{"error": "slow down"}', "429 Too Many Requests", "Retry-After: 0.01")
            case "500":
                return answer("oh", "500 Internal Server Error")
            case "early reset":
                return None
            case "reset":  # more is promised than comes, and the connection is closed
                return reply("some").replace(b"Content-Length: ", b"Connection: close\r\nContent-Length: 9")
            case "stall":
                await asyncio.sleep(60)
            case "broken":
                return answer('{"choices": [{"message"')
            case "no choices":
                return answer('{"choices": []}')
        return answer("<html>bad gateway</html>", "502 Bad Gateway", kind="text/html")


@pytest.mark.slow
def test_hundreds_of_questions_are_answered_once_each_through_every_kind_of_fault(picture, tmp_path, quick_switches):
    faults = Faults(COUNT)
    with serving(faults) as served:
        asking = Kept(served, tmp_path, max_concurrency=24, timeout=3)
        requests = questions(picture, COUNT)
        texts = asking.generate(requests, GREEDY)
    length = len(image_of(served.asked[-1]))
    assert texts == [f"{request.prompt} seen {length}" for request in requests]
    prompts = [request.prompt for request in requests]
    assert faults.answered == Counter(prompts) + faults.answered - Counter(prompts)
    assert {faults.answered[prompt] for prompt in prompts} == {1}
    assert [prompt for prompt in faults.finished if prompt in faults.plans] != prompts  # they came in another order
    failures = sum(map(len, faults.plans.values()))
    assert {kind for plan in faults.plans.values() for kind in plan} == set(FAULTS)
    assert failures > COUNT / 4 and len(asked(served)) == COUNT + failures
    assert {prompt: said.text for prompt, said in asking.known(requests, GREEDY).items()} == dict(
        zip(prompts, texts, strict=True)
    )
    assert asking.store.holdings()[0].answers == COUNT
    # The server goes on with a request whose asker has given up.
    assert served.most_in_flight <= 24 + sum(plan.count("stall") for plan in faults.plans.values())
    total = COUNT + PROBES
    spent = Kept(served, tmp_path).spent()
    assert spent == Spent(
        answers=total,
        requests=total + failures,
        retries=failures,
        prompt_tokens=10 * total,
        completion_tokens=2 * total,
        longest_prompt=10,
        seconds=spent.seconds,
        cut_off=COUNT // 10,
    )
    assert spent.requests == len(served.asked)


@pytest.fixture
def quick_switches():
    """Server and client share this process: without this each waits 5 ms for the other's turn to end."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


def test_retry_after_holds_back_all_questions(picture):
    times = []

    async def script(body, before):
        now = asyncio.get_running_loop().time()
        times.append((now, prompt_of(body)))
        if prompt_of(body) == "question 0" and not before:
            return answer("", "429 Too Many Requests", "Retry-After: 0.6")
        await asyncio.sleep(0.02)
        return await well(body, before)

    with serving(script) as served:
        model(served, max_concurrency=2).generate(questions(picture, 12), GREEDY)
    held = next(when for when, prompt in times if prompt == "question 0")
    assert Counter(prompt for _, prompt in times)["question 0"] == 2
    # One more question was in flight already, and one may have been on its way.
    assert len([when for when, _ in times if held < when < held + 0.55]) <= 2


@pytest.mark.parametrize("said", ["", "soon", "-3"])
def test_a_retry_after_that_says_nothing_is_none(said):
    assert not retry_after(said)


def test_retry_after_may_be_seconds_or_a_date():
    date = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after("2.5") == 2.5
    assert 80 < retry_after(format_datetime(date, usegmt=True)) <= 90
    assert retry_after(format_datetime(date - timedelta(days=1), usegmt=True)) == 0


def test_waits_grow_and_differ_but_not_beyond_a_minute(picture, monkeypatch):
    waits = []

    async def rest(until, seconds):
        waits.append(seconds)

    async def never(body, before):
        return answer("", "503 Service Unavailable")

    monkeypatch.setattr(attempts, "rest", rest)
    with serving(never) as served, pytest.raises(WorkFailed):
        model(served, backoff=1.0, max_attempts=9).generate(questions(picture, 1), GREEDY)
    expected = [min(60, 2**step) for step in range(8)]
    assert len(waits) == 8 and all(most / 2 <= wait <= most for wait, most in zip(waits, expected, strict=True))
    assert len({round(wait / most, 6) for wait, most in zip(waits, expected, strict=True)}) > 1


# ---- giving up, and going on ----


def test_after_a_failure_only_what_has_no_answer_is_asked_again(picture, tmp_path):
    broken = {"question 7"}

    async def script(body, before):
        return answer("down", "500 Internal Server Error") if prompt_of(body) in broken else await well(body, before)

    with serving(script) as served:
        with pytest.raises(WorkFailed, match="no answer to a question about .*red.png in 6 attempts") as failure:
            Kept(served, tmp_path, max_concurrency=4).generate(questions(picture, 12), GREEDY)
        assert "HTTP 500" in str(failure.value) and served.url in str(failure.value)
        first = Counter(asked(served))
        answered = {prompt for prompt in first if prompt not in broken}
        assert len(answered) >= 7 and first["question 7"] == 6 and failure.value.exit_status == 1
        broken.clear()
        texts = Kept(served, tmp_path).generate(questions(picture, 12), GREEDY)
        assert len(set(texts)) == 12
        second = Counter(asked(served)) - first
    assert set(second) == {request.prompt for request in questions(picture, 12)} - answered
    assert max(second.values()) == 1


def test_an_answer_is_asked_for_anew_where_anything_about_the_question_differs(picture, tmp_path):
    other = str(draw(tmp_path / "blue.png", "blue"))
    same = str(draw(tmp_path / "again" / "red.png"))  # the same bytes elsewhere
    cases = [
        (Request(picture, "question"), GREEDY, 1),
        (Request(same, "question"), GREEDY, 0),
        (Request(other, "question"), GREEDY, 1),
        (Request(picture, "question two"), GREEDY, 1),
        (Request(picture, "question"), Decoding(9), 1),
        (Request(picture, "question", 1), Decoding(8, 0.5), 1),
        (Request(picture, "question", 2), Decoding(8, 0.5), 1),
        (Request(picture, "question", 2), Decoding(8, 0.5), 0),
    ]
    with serving(well) as served:
        for request, decoding, more in cases:
            before = len(asked(served))
            Kept(served, tmp_path).generate([request], decoding)
            assert len(asked(served)) == before + more, (request, decoding)


def test_an_interrupt_keeps_what_was_answered(picture, tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it

    async def script(body, before):
        if prompt_of(body) == "question 6":
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        return await well(body, before)

    with serving(script) as served, pytest.raises(KeyboardInterrupt):
        Kept(served, tmp_path, max_concurrency=2).generate(questions(picture, 9), GREEDY)
    after = Kept(served, tmp_path)
    assert len(after.known(questions(picture, 9), GREEDY)) >= 5
    # The other worker's last question may have been in flight, sent but not arrived.
    assert len(served.asked) <= after.spent().requests <= len(served.asked) + 1


@pytest.mark.parametrize("problem", [WorkFailed("the disk is full"), OSError("the terminal is gone")])
def test_when_answers_cannot_be_handed_over_no_more_is_asked_and_none_is_lost(picture, problem):
    kept, times = {}, []

    def keep(answers, _spent):
        times.append(len(answers))
        if len(times) != 2 or not isinstance(problem, WorkFailed):
            kept.update(answers)
        if len(times) == 2:
            raise problem

    async def script(body, before):
        await asyncio.sleep(0.02)
        return await well(body, before)

    requests = {each.prompt: each for each in questions(picture, 400)}
    with serving(script) as served, pytest.raises(type(problem), match=str(problem)):
        model(served, max_concurrency=4).ask_all(requests, GREEDY, keep)
    assert set(kept) == set(asked(served)) and len(kept) < 400


def test_a_server_is_asked_and_an_interrupt_heard_where_an_event_loop_runs_as_in_a_notebook(picture, tmp_path):
    async def script(body, before):
        if prompt_of(body) == "question 6":
            os.kill(os.getpid(), signal.SIGINT)  # to the process, whose first thread waits
            await asyncio.sleep(60)
        return await well(body, before)

    async def cell(count):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a kernel has it so while a cell runs
        return Kept(served, tmp_path).generate(questions(picture, count), GREEDY)

    with serving(script) as served:
        assert len(set(asyncio.run(cell(6)))) == 6
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(cell(7))
    assert len(Kept(served, tmp_path).known(questions(picture, 7), GREEDY)) == 6


# ---- the budget ----


@pytest.mark.parametrize(("budget", "faults"), [(2, False), (9, False), (40, True)])
def test_a_budget_of_requests_is_kept_to_the_request(picture, tmp_path, budget, faults):
    async def script(body, before):
        await asyncio.sleep(0.001)
        return answer("", "500 Oh") if faults and not before else await well(body, before)

    with serving(script) as served:
        asking = Kept(served, tmp_path, budget_requests=budget, max_concurrency=7)
        with pytest.raises(WorkFailed, match=f"server.budget_requests is {budget}.*{budget} requests took") as stop:
            asking.generate(questions(picture, 50), GREEDY)
        assert (
            len(served.asked) == budget and stop.value.exit_status == 1 and "raise server.budget_req" in str(stop.value)
        )
        known = asking.known(questions(picture, 50), GREEDY)
        # A second attempt with the same budget sends nothing, one with a larger budget only what is left.
        with pytest.raises(WorkFailed, match="is used up"):
            Kept(served, tmp_path, budget_requests=budget).generate(questions(picture, 50), GREEDY)
        assert len(served.asked) == budget
        first = Counter(asked(served))
        Kept(served, tmp_path).generate(questions(picture, 50), GREEDY)
        more = Counter(asked(served)) - first
    assert len(known) < 50 and set(more) == {each.prompt for each in questions(picture, 50)} - set(known)
    assert faults or set(more.values()) == {1}


def test_a_budget_is_that_of_the_whole_run_whichever_model_or_stage_spends_it(picture, tmp_path):
    with serving(well) as served, serving(well) as other:
        Kept(other, tmp_path, stage="before").generate(questions(picture, 5), GREEDY)
        with pytest.raises(WorkFailed, match="server.budget_requests is 12.*12 requests took"):
            Kept(served, tmp_path, budget_requests=12).generate(questions(picture, 50), GREEDY)
    assert len(other.asked) + len(served.asked) == 12


@pytest.mark.parametrize(
    ("limits", "spent"),
    [
        ({"budget_tokens": 1000}, lambda requests: requests * 12),
        (
            {"budget_money": 0.01, "prompt_price": 5.0, "completion_price": 25.0},
            lambda requests: requests * (10 * 5 + 2 * 25) / 1e6,
        ),
    ],
)
def test_a_budget_of_tokens_or_money_is_never_exceeded_and_well_used(picture, limits, spent):
    with serving(well) as served:
        with pytest.raises(WorkFailed, match="is used up"):
            model(served, max_concurrency=8, **limits).generate(questions(picture, 500), GREEDY)
        limit = next(iter(limits.values()))
        # One more request of full length (10 + 8 tokens) would not have fitted.
        assert spent(len(served.asked)) <= limit
        assert spent(len(served.asked) + 2.5) > limit


def test_a_budget_of_tokens_needs_a_server_that_counts(picture):
    async def uncounted(body, before):
        return reply(f"{image_of(body)}"[-12:], usage=None)

    with (
        serving(uncounted) as served,
        pytest.raises(WorkFailed, match="(?s)does not report how many tokens.*budget_requests"),
    ):
        model(served, budget_tokens=1000).generate(questions(picture, 1), GREEDY)


# ---- what is no reply ----


async def sees(body: dict, before: int) -> bytes:
    return reply(image_of(body)[-40:])


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (answer("<html><h1>Welcome</h1>", kind="text/html"), "a web page, not JSON: '<html><h1>Welcome</h1>'.*/v1"),
        (answer('{"choices": []}'), "JSON of another form .choices.0.message: field required.*choices"),
        (answer('{"choices": [{"mess'), "broken JSON: .*mess"),
        (answer('{"error": "no"}'), "an error in place of a reply: 'no'"),
        (answer("no such model", "404 Not Found"), "HTTP 404 Not Found: 'no such model'\nCheck the address"),
        (answer("no credits", "400 Bad Request"), "a question about .*red.png gave HTTP 400 Bad Request: 'no credits'"),
        (answer("no credits " + "x" * 5000, "400 Bad Request"), "x{289}[.]{3}'"),
        (answer("", "401 Unauthorized"), "wants a key: set the environment variable PARITYALIGN_API_KEY"),
        (answer("", "429 No", "Retry-After: 86400"), "asks to wait for 86,400 s"),
    ],
)
def test_what_is_no_reply_is_named_with_the_address(picture, sent, said):
    async def script(body, before):
        return sent if prompt_of(body).startswith("question") else await sees(body, before)

    with serving(script) as served, pytest.raises(WorkFailed) as failure:
        model(served).generate(questions(picture, 1), GREEDY)
    assert served.url in str(failure.value) and re.search(said, str(failure.value), re.DOTALL), str(failure.value)


def test_a_server_that_is_down_is_named(picture):
    with serving(well) as served:
        pass
    with pytest.raises(WorkFailed, match="gave no answer.*in 2 attempts. The last one gave ConnectError"):
        model(served, max_attempts=2).generate(questions(picture, 1), GREEDY)


def test_a_stall_ends_at_the_deadline_even_if_a_byte_comes_now_and_then(picture):
    async def script(body, before):
        await asyncio.sleep(30)

    with serving(script) as served, pytest.raises(WorkFailed, match="no whole answer within 0.5 s"):
        model(served, timeout=0.5, max_attempts=2).generate(questions(picture, 1), GREEDY)
    assert len(served.asked) == 2


def test_a_reply_without_text_is_an_empty_reply(picture):
    async def script(body, before):
        return reply(None if prompt_of(body) == "question 0" else image_of(body)[-40:], finish="content_filter")

    with serving(script) as served:
        assert model(served).generate(questions(picture, 1), GREEDY) == [""]


# ---- servers that drop pictures, refuse fields, have other models ----


@pytest.mark.parametrize("counted", [(10, 2), None])
def test_a_server_that_drops_pictures_is_found_out_before_any_question(picture, counted):
    async def blind(body, before):
        return reply("purple", usage=counted)

    with serving(blind) as served:
        with pytest.raises(WorkFailed, match="does not see pictures.*'purple' both times") as failure:
            model(served).generate(questions(picture, 3), GREEDY)
        assert served.url in str(failure.value) and not asked(served)


def test_a_server_whose_model_says_the_same_of_all_pictures_is_not_blind(picture):
    async def dull(body, before):
        return reply("number", usage=(26 if image_of(body) else 10, 1))

    with serving(dull) as served:
        assert model(served).generate(questions(picture, 2), GREEDY) == ["number"] * 2


@pytest.mark.parametrize("field", ["seed", "logprobs", "max_tokens", "temperature"])
def test_a_field_that_a_server_refuses_is_left_out_from_then_on(picture, tmp_path, field):
    async def script(body, before):
        if field in body:
            return answer(f"Unsupported parameter: '{field}'", "400 Bad Request")
        return await well(body, before)

    with serving(script) as served:
        asking = Kept(served, tmp_path, logprobs=True)
        asking.generate(questions(picture, 20), Decoding(8, 0.5))
    last = served.asked[-1]
    assert field not in last and last.get("max_completion_tokens") == (8 if field == "max_tokens" else None)
    assert len([body for body in served.asked if field in body]) <= asking.settings.requests
    note = asking.told()
    assert ("the server does not accept seeds" in note) == (field == "seed")
    assert ("of 22 answers: the server refuses them" in note) == (field == "logprobs")
    assert ("the server takes no temperature" in note) == (field == "temperature")


def test_what_a_server_refused_is_told_by_the_process_that_goes_on_too_and_of_that_stage_alone(picture, tmp_path):
    async def script(body, before):
        return answer("no 'seed' here", "400 Bad Request") if "seed" in body else await well(body, before)

    notes = []
    with serving(script) as served:
        for count in (5, 5):
            asking = Kept(served, tmp_path)
            asking.generate(questions(picture, count), Decoding(8, 0.5))
            notes.append(asking.told())
        asking = Kept(served, tmp_path, stage="greedy")
        asking.generate(questions(picture, 5), GREEDY)
    assert all(note.endswith("; the server does not accept seeds") for note in notes)
    assert "seeds" not in asking.told("greedy")


def test_a_stage_tells_of_what_its_parts_asked_too(picture, tmp_path):
    with serving(well) as served:
        asking = Kept(served, tmp_path)
        for stage, count in (("evaluate, speed", 3), ("evaluate", 5), ("evaluate, forgotten", 7), ("evaluate more", 9)):
            asking.store.begin_stage(stage)
            asking.generate(questions(picture, count), GREEDY)
    counts = [asking.spent(stage).answers for stage in ("evaluate, speed", "evaluate")]
    assert counts == [3 + PROBES, 7 + PROBES]  # what was answered before is not asked again


def test_log_probabilities_are_kept_where_they_come(picture, tmp_path):
    async def script(body, before):
        tokens = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}
        return reply(image_of(body)[-9:], logprobs=tokens if body.get("logprobs") else None)

    with serving(script) as served:
        (answer,) = Kept(served, tmp_path).answer(questions(picture, 1), GREEDY)
        (unknown,) = Kept(served, tmp_path, logprobs=False).answer(questions(picture, 2)[1:], GREEDY)
        (longer,) = Kept(served, tmp_path).answer(questions(picture, 1), Decoding(10_000))
    assert (answer.logprob, unknown.logprob, longer.logprob) == (-0.75, None, None)
    (said,) = Kept(served, tmp_path).known(questions(picture, 1), GREEDY).values()
    assert said.logprob == -0.75


def test_without_a_name_the_only_served_model_is_taken_and_stays_the_one_of_the_run(picture, tmp_path):
    store = AnswerStore(tmp_path / "answers.sqlite", run="r")
    with serving(well, ("one/model",)) as served:
        first = at(served.url, store)
        assert first.name == f"{served.url}#one/model" == at(served.url + "/", AnswerStore()).name
        CachedModel(first.name, lambda: first, store).loaded()
        served.models = ("other",)
        assert at(served.url, store).name == first.name == at(served.url + "/", store).name
        assert at(served.url, AnswerStore()).name == f"{served.url}#other"


def test_without_a_name_the_server_is_asked_where_two_of_its_models_are_known(tmp_path):
    store = AnswerStore(tmp_path / "answers.sqlite", run="r")
    with serving(well, ("c",)) as served:
        for name in "ab":
            store.remember_model(name, KnownModel(f"{served.url}#{name}", frozenset()))
        assert at(served.url, store).name == f"{served.url}#c"


# ---- pictures that a server declines, and models that answer for another ----

FILTERED = '{"error": {"code": "content_filter", "message": "The image was flagged."}}'
WORDS_OF_THE_FILTER = "declined: HTTP 400 Bad Request: 'The image was flagged.'"


def filtering(declined: Container[str]):
    """A server whose filter declines these prompts."""

    async def script(body: dict, before: int) -> bytes:
        return answer(FILTERED, "400 Bad Request") if prompt_of(body) in declined else await well(body, before)

    return script


def test_a_question_that_a_server_declines_is_set_aside_with_its_words_and_the_others_are_answered(picture, tmp_path):
    requests = questions(picture, 12)
    with serving(filtering({"question 3"})) as served:
        asking = Kept(served, tmp_path)
        answers = asking.answer(requests, GREEDY)
        told = [each.not_asked for each in answers]
        assert told == [WORDS_OF_THE_FILTER if number == 3 else None for number in range(12)]
        assert [bool(each.text) for each in answers] == [number != 3 for number in range(12)]
        assert "it declined 1 questions" in asking.told()
        assert (asking.spent().answers, asking.spent().requests) == (11 + PROBES, len(served.asked))
        assert Kept(served, tmp_path).answer(requests, GREEDY) == answers
    assert served.times["question 3"] == 1


def test_without_a_store_a_declined_question_has_an_empty_reply(picture):
    with serving(filtering({"question 1"})) as served:
        assert [bool(text) for text in model(served).generate(questions(picture, 3), GREEDY)] == [True, False, True]


@pytest.mark.parametrize("of", [10, 11, 200])
def test_a_server_may_decline_ten_questions_or_a_tenth_of_them(picture, tmp_path, of):
    count = max(10, of // 11)  # a tenth of those that it answers
    declined = {f"question {number}" for number in range(of - count, of)}
    with serving(filtering(declined)) as served:
        answers = Kept(served, tmp_path, max_concurrency=1).answer(questions(picture, of), GREEDY)
    assert len([each for each in answers if each.not_asked == WORDS_OF_THE_FILTER]) == count


def test_a_server_that_declines_more_is_asked_no_more_and_what_it_said_is_kept(picture, tmp_path):
    declined = {f"question {number}" for number in range(20, 60)}
    with serving(filtering(declined)) as served:
        asking = Kept(served, tmp_path, max_concurrency=1)
        with pytest.raises(WorkFailed, match="#m declined 11 questions and answered 22[.] The last time: ") as failure:
            asking.generate(questions(picture, 60), GREEDY)
        assert "a question about" in str(failure.value) and "'The image was flagged.'" in str(failure.value)
        assert len(asked(served)) == 31 and failure.value.exit_status == 1
        known = asking.known(questions(picture, 60), GREEDY)
        assert len(known) == 31 and len([said for said in known.values() if said.refused]) == 11


def test_the_name_by_which_a_server_calls_another_model_that_answered_is_told(picture, tmp_path):
    async def script(body, before):
        number = int(prompt_of(body).split()[-1]) if prompt_of(body).startswith("question") else 0
        return reply(f"{prompt_of(body)}{image_of(body)[-40:]}", model=("m", "", "m-mini", "m-2025")[number % 4])

    with serving(script) as served:
        asking = Kept(served, tmp_path, max_concurrency=1)
        asking.generate(questions(picture, 2), GREEDY)
        assert asking.spent().answered_by == () and "answered by" not in asking.told()
        asking.generate(questions(picture, 8), GREEDY)
    again = Kept(served, tmp_path)
    assert set(again.spent().answered_by) == {"m-mini", "m-2025"} and len(again.spent().answered_by) == 2
    assert "; answered by m-mini, m-2025, as the server says" in again.told()


@pytest.mark.parametrize(
    ("models", "said"), [((), "It lists none"), (("a", "b"), "It has 2: a, b. Write http.*v1#NAME")]
)
def test_without_a_name_and_without_a_single_model_the_known_ones_are_listed(models, said):
    with serving(well, models) as served, pytest.raises(UserError, match=said):
        at(served.url, AnswerStore())


# ---- names and keys ----


def test_an_address_is_a_model_spec_and_its_name_is_part_of_the_fingerprint():
    assert split_model("https://host/v1#a/b") == ("openai", "https://host/v1#a/b")
    assert at("http://host/v1#a", AnswerStore()).name == "http://host/v1#a"  # nothing is asked yet
    with pytest.raises(UserError, match="is remote and cannot be loaded"):
        load_model("http://host/v1#a")
    assert fingerprint("http://host/v1#a") != fingerprint("http://host/v1#b")


@pytest.mark.parametrize(
    "spec",
    [
        f"http://user:{KEY}@host/v1#m",
        f"https://host/v1?key={KEY}#m",
        "http:///v1",
        "http:host",
        "http://[::1",
        "http://h:x/v1",
    ],
)
def test_an_address_with_a_secret_or_without_a_host_is_refused_and_no_secret_shown(spec):
    with pytest.raises(UserError) as refusal:
        split_model(spec)
    assert KEY not in str(refusal.value)


def test_the_key_is_sent_and_stands_nowhere_else(picture, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")

    async def script(body, before):
        if prompt_of(body) == "question 1":
            return answer(f"{KEY} is no good {'x' * 270} {KEY}", "401 Unauthorized")
        return await sees(body, before)

    with serving(script) as served:
        asking = Kept(served, tmp_path, key_variable="MY_KEY")
        with pytest.raises(WorkFailed) as failure:
            asking.generate(questions(picture, 2), GREEDY)
    assert all(f"Bearer {KEY}" in head for head in served.headers)
    assert "refuses the key in the environment variable MY_KEY" in str(failure.value)
    assert "[key] is no good" in str(failure.value)
    seen = [
        str(failure.value),
        repr(failure.value),
        *(f"{each!r} {vars(each)}" for each in (asking, asking.model, asking.model.loaded())),
        str(vars(asking.model.loaded()._remote)),
    ]
    seen += [repr(failure.value.__cause__), repr(failure.value.__context__)] if failure.value.__cause__ else []
    assert not any(KEY[:6] in text for text in seen)
    assert not any(KEY[:6].encode() in content for content in content_of(tmp_path).values())


def test_without_a_key_none_is_sent_and_one_that_cannot_be_sent_is_not_shown(picture, monkeypatch):
    monkeypatch.setenv("MY_KEY", f"{KEY}\nX")
    with serving(well) as served:
        model(served).generate(questions(picture, 1), GREEDY)
        assert not any("authorization" in head.lower() for head in served.headers)
        with pytest.raises(UserError, match="MY_KEY holds characters") as refusal:
            model(served, key_variable="MY_KEY").generate(questions(picture, 1), GREEDY)
    assert KEY not in str(refusal.value)


# ---- in a run ----


class Teacher:
    """A server that reads the project's pictures, told apart by their bytes."""

    def __init__(self, project) -> None:
        files = [*project.glob("pool/*"), *project.glob("test/train_images/*")]
        self.words = {data_url(path): path.stem for path in files}
        self.down = False
        self.obeys = False

    async def __call__(self, body: dict, before: int) -> bytes:
        if self.down:
            return answer("down", "503 Service Unavailable")
        word = self.words.get(image_of(body), image_of(body)[-12:])
        writes = prompt_of(body).startswith("Write one question")
        if self.obeys and "response_format" in body:
            return reply(json.dumps({"question": "What is written?", "answer": word}), usage=(100, 10))
        return reply(f"Question: What is written?\nAnswer: {word}" if writes else word, usage=(100, 10))


@pytest.fixture
def served_run(project, trainable, monkeypatch):
    """A project whose teacher is behind a server: (the server, its script, a function that writes run.yaml)."""
    monkeypatch.setenv("PARITYALIGN_API_KEY", KEY)
    teacher = Teacher(project)
    with serving(teacher) as served:

        def configured(**server):
            return configure(project, teacher=f"{served.url}#m", server=QUICK | server)

        yield served, teacher, configured


@pytest.mark.slow
def test_a_run_with_a_served_teacher_says_what_it_took_and_keeps_the_key_to_itself(project, served_run):
    served, _, configured = served_run
    said = done("run", configured(prompt_price=2.0, completion_price=10.0))
    # 8 pairs, 4 answers of which the student is wrong, 8 test questions; the probe before the first.
    assert len(served.asked) == 8 + 4 + 8 + PROBES
    note = f"{served.url}#m: 10 answers, 10 requests (0 repeated), 1,000 prompt and 100 completion tokens"
    assert note in said and "0.0030 at the given prices" in said
    manifest = json.loads((project / "runs/a/pairs/manifest.json").read_text())
    assert manifest["servers"][f"{served.url}#m"]["requests"] == 10 and manifest["note"].startswith(note)
    assert note in (project / "runs/a/report.html").read_text()
    assert not any(KEY.encode() in content for content in content_of(project).values()) and KEY not in said
    pairs = (project / "runs/a/pairs/pairs.jsonl").read_text()
    assert f'"teacher": "{served.url}#m"' in pairs


@pytest.mark.slow
def test_what_is_asked_about_a_picture_follows_one_another_so_that_a_server_still_has_it(project):
    """In annotate and in identify; servers keep what they made of the last pictures and prompts."""
    words = {data_url(path): path.stem for path in project.glob("pool/*")}
    wrote = Counter()

    async def writes(body, before):
        word = words.get(image_of(body), image_of(body)[-12:])
        if not prompt_of(body).startswith("Write one question"):
            return reply(word)
        wrote[word] += 1
        return reply(f"Question: What is sign {wrote[word]} saying?\nAnswer: {word}")

    with serving(writes) as served:
        server, asks = QUICK | {"max_concurrency": 1}, {"ask_teacher": "all"}
        annotate = {"pairs_per_image": 3}
        path = configure(project, teacher=f"{served.url}#m", server=server, annotate=annotate, identify=asks)
        done("run", path, "--until", "identify")
    about = [words[image_of(body)] for body in served.asked if image_of(body) in words]
    assert len(about) == 2 * 3 * len(words) and [len([*each]) for _, each in groupby(about)] == [3] * 2 * len(words)


@pytest.mark.slow
def test_a_finished_run_asks_no_server(project, served_run):
    served, teacher, configured = served_run
    path = configured()
    done("run", path)
    before, teacher.down = len(served.asked), True
    assert done("run", path).count("up to date") == 7 and len(served.asked) == before


@pytest.mark.slow
def test_other_settings_of_the_server_redo_nothing(project, served_run):
    served, _, configured = served_run
    done("run", configured())
    assert done("run", configured(max_concurrency=3, logprobs=True, budget_requests=1)).count("up to date") == 7


@pytest.mark.slow
def test_what_changes_a_servers_answers_asks_its_model_anew_and_no_other(project, served_run):
    served, _, configured = served_run
    done("run", configured())
    every = len(served.asked)
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    said = done("run", configured(extra_body=extra))
    assert len(served.asked) == 2 * every and "its input teacher model changed" in said
    assert all(extra.items() <= body.items() for body in served.asked[every:])
    done("run", configured())
    assert len(served.asked) == 2 * every  # both are kept


@pytest.mark.slow
def test_a_server_that_holds_pairs_to_a_schema_gives_the_same_run(project, served_run):
    served, teacher, configured = served_run
    done("run", configured())
    whole = {
        name: (project / f"runs/a/{name}").read_bytes() for name in ("pairs/pairs.jsonl", "verdicts/verdicts.jsonl")
    }
    teacher.obeys = True
    done("run", configured(response_format="json_schema"))
    asked_for = [prompt_of(body).startswith("Write one question") for body in served.asked if "response_format" in body]
    assert asked_for == [True] * 8
    raw = [json.loads(line)["raw"] for line in (project / "runs/a/pairs/replies.jsonl").read_text().splitlines()]
    assert all(each.startswith("{") for each in raw)
    assert {name: (project / f"runs/a/{name}").read_bytes() for name in whole} == whole


@pytest.mark.long
@pytest.mark.parametrize("budget", range(1, 22, 4))
def test_a_run_stopped_by_its_budget_goes_on_where_it_was(project, served_run, budget):
    served, _, configured = served_run
    said = refusal("run", configured(budget_requests=budget), status=1)
    assert len(served.asked) == budget and "server.budget_requests" in said
    done("run", configured())
    assert (
        max(Counter(json.dumps(body) for body in served.asked if image_of(body) in served.script.words).values()) == 1
    )


@pytest.mark.slow
def test_a_run_whose_server_went_down_goes_on_where_it_was_with_the_same_result(project, served_run):
    served, teacher, configured = served_run
    done("run", configured())
    whole = (project / "runs/a/verdicts/verdicts.jsonl").read_bytes()
    (project / "runs/a").rename(project / "whole")
    refusal("run", configured(budget_requests=7), status=1)
    teacher.down = True
    assert "HTTP 503" in refusal("run", configured(max_attempts=2), status=1)
    teacher.down = False
    done("run", configured())
    assert (project / "runs/a/verdicts/verdicts.jsonl").read_bytes() == whole


def test_a_served_student_is_judged_but_cannot_be_trained(project, served_run, monkeypatch):
    served, student, _ = served_run
    monkeypatch.undo()
    student.words = {url: word for url, word in student.words.items() if word not in WORDS[:4]}
    path = configure(project, teacher="fake:teacher.json", student=f"{served.url}#m", server=QUICK)
    said = refusal("run", path)
    assert f"the student {served.url}#m cannot be trained" in said
    assert (project / "runs/a/verdicts/manifest.json").exists()


def test_an_address_survives_the_configuration_unchanged(project, served_run):
    served, _, configured = served_run
    config = load_config(configured())
    assert config.teacher == f"{served.url}#m"
    again = project / "elsewhere.yaml"
    again.write_text(as_yaml(config, project))
    assert read_config(again) == config


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"key_variable": KEY}, "is not an environment variable's name"),
        ({"budget_money": 3}, "no price is given"),
        ({"budget_request": 3}, "Did you mean budget_requests"),
        ({"timeout": 0}, "server.timeout"),
        ({"in_flight": 3}, "'server.in_flight' is called 'server.max_concurrency' now"),
    ],
)
def test_a_wrong_server_setting_is_refused_and_no_key_shown(project, server, said):
    message = refusal("run", configure(project, server=server))
    assert said in message and KEY not in message


def test_the_demo_takes_another_teacher(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(run_commands, "align", lambda config, **_: taken.append(config.teacher))
    monkeypatch.setattr(run_commands, "load_config", run_commands.read_config)
    monkeypatch.setattr(demo, "write_demo_data", lambda *_, pictures: None)
    done("demo", "--run", tmp_path / "run", "--teacher", "http://host/v1#m")
    assert taken == ["http://host/v1#m"]
    assert "no kind of model 'hff'" in refusal("demo", "--run", tmp_path / "run", "--teacher", "hff:x")
