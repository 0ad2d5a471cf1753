"""What servers say, whatever it is: read with limits, without the key, and told apart by whom it concerns."""

import asyncio
import gzip
import json
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parityalign.config.serving import ServerSettings
from parityalign.core import NoReply, Said, UserError, WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.engines.attempts import Attempts, OneRefused, Sent
from parityalign.engines.probe import AFTER_THOUGHTS, DECODING, require_sight
from parityalign.engines.spending import Budget, Spent, in_words
from parityalign.models.backends._failures import excerpt, refuse_failure, refused_fields, retry_after
from parityalign.models.backends._received import MOST_BYTES, Received, short_line, without_key
from parityalign.models.backends._wire import read_models, read_reply
from parityalign.models.backends.openai import OpenAIModel
from parityalign.stages.parsing import read_pair
from serving import answer, prompt_of, reply, serving

GREEDY, DRAWN = Decoding(max_new_tokens=8), Decoding(8, 0.5)
KEY = "sk-not-to-be-seen-1234567890"
SENT = ("model", "messages", "temperature", "seed", "max_tokens", "logprobs", "top_p", "top_k", "response_format")


def asked(
    sent: bytes | Callable[[dict], bytes],
    times: int = 1,
    decoding: Decoding = DRAWN,  # noqa: B008 - frozen
    **server: object,
) -> list[Said | NoReply]:
    """What one model makes of a server's responses, one after another."""

    async def script(body, before):
        return sent(body) if callable(sent) else sent

    async def ask(url):
        model, found = OpenAIModel(url, "m", ServerSettings(**server)), []
        async with model.connection():
            for number in range(times):
                try:
                    found.append(await model.ask(Request("", f"question {number}", 3), decoding))
                except NoReply as problem:
                    found.append(problem)
        return found

    with serving(script) as served:
        return asyncio.run(ask(served.url))


def said(text: str) -> Said:
    return read_reply(Received(200, text=text), left_out=(), proven=True)


def completion(content: object, **choice: object) -> str:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop", **choice}]})


def failure(status: int, text: str, *, proven: bool = True, keyed: bool = False) -> NoReply:
    with pytest.raises(NoReply) as problem:
        refuse_failure(Received(status, "Reason", text, keyed=keyed), "MY_KEY", proven=proven)
    return problem.value


# ---- limits of one response ----


@pytest.mark.parametrize("packed", ["gzip", "identity"])
def test_a_response_that_is_too_long_is_cut_off_however_small_it_arrives(packed):
    content = b" " * (MOST_BYTES + 1)
    sent = gzip.compress(content) if packed == "gzip" else content
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {packed}\r\nContent-Length: {len(sent)}\r\n\r\n"
    (found,) = asked(head.encode() + sent)
    assert "a response of more than 4 MiB" in str(found) and found.again


def test_an_endless_response_is_cut_off():
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    (found,) = asked(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 12)
    assert "a response of more than 4 MiB" in str(found)


def test_a_response_that_is_packed_twice_is_not_unpacked():
    sent = gzip.compress(gzip.compress(b" " * 2**24))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: {len(sent)}\r\n\r\n"
    (found,) = asked(head.encode() + sent)
    assert str(found) == "a response that is packed 2 times over" and found.again


@pytest.mark.parametrize("charset", ["idna", "hex", "zlib", "rot13", "undefined", "utf-32", "no such thing", '"'])
def test_a_charset_is_not_looked_at(charset):
    (fine, failed) = (
        asked(answer(text, status, kind=f"text/plain; charset={charset}"))[0]
        for text, status in ((completion("Straße"), "200 OK"), ("Straße", "500 Oh"))
    )
    assert fine.text == "Straße" and str(failed) == "HTTP 500 Oh: 'Straße'"


def test_words_of_a_server_are_one_short_printable_line():
    (found,) = asked(answer("a\x1b]52;c;ZXZpbA==\x07\nb\u202ec", "400 \x1b[31mno" + "o" * 500))
    assert str(found) == f"HTTP 400 ?[31mno{'o' * 53}...: 'a?]52;c;ZXZpbA==? b?c'"


def test_a_redirect_is_not_followed():
    with serving(lambda *_: None) as other:
        (found,) = asked(answer("", "307 There", f"Location: {other.url}/chat/completions"))
    assert "HTTP 307 There" in str(found) and "/v1" in found.advice and not found.again and not other.asked


@pytest.mark.parametrize(
    "said",
    ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "1e999", "nan", "-inf"]
    + ["9" * 400, "Mon, 01 Jan 0000 00:00:00 GMT", "Mon, 99 Jan 2026 99:99:99 GMT", "1e30", "Mon, 1 Jan 1 1:1:1 +9999"],
)
def test_a_retry_after_beyond_any_clock_is_passed_over(said):
    assert not retry_after(said)


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_a_retry_after_is_a_wait_or_nothing(said):
    found = retry_after(said)
    assert found is None or 0 <= found < 400 * 86400


# ---- the key ----


spellings = st.lists(st.sampled_from(["{0}", "\\u{1:04x}", "\\u{1:04X}"]), min_size=len(KEY), max_size=len(KEY))


@given(st.text(max_size=5), spellings, st.text(max_size=5))
def test_the_key_is_struck_out_in_every_spelling_of_json(before, spelt, after):
    written = "".join(form.format(sign, ord(sign)) for form, sign in zip(spelt, KEY, strict=True))
    assert "[key]" in without_key(before + written + after, KEY)
    assert json.loads(without_key(f'"{written}"', KEY)) == "[key]"


@given(st.text(string.printable, min_size=8), st.text())
def test_a_text_without_the_key_is_left_alone_and_none_holds_it_after(key, text):
    assert key not in without_key(text + key + text, key) or key in "[key]"
    if "\\" not in text and key not in text:
        assert without_key(text, key) == text


def test_what_servers_without_keys_are_given_is_a_word_like_any_other():
    assert without_key("EMPTY", "EMPTY") == "EMPTY" and without_key("tea", "") == "tea"


@pytest.mark.parametrize(
    "sent",
    [
        reply(f"What is {KEY}?"),
        reply([{"type": "text", "text": KEY[:9]}, {"type": "text", "text": KEY[9:]}]),
        reply("tea", finish=KEY),
        answer(completion("x").replace("x", "".join(f"\\u{ord(sign):04x}" for sign in KEY))),
        answer(completion("tea")[:-1] + f', "model": "{KEY}"}}'),
        answer(f"no {KEY}", f"400 {KEY}"),
        answer(json.dumps({"error": {"message": f"key {KEY}"}}), "401 No"),
        b"HTTP/1.1 " + KEY.encode() + b" OK\r\n\r\n",
        answer("", "429 No", f"Retry-After: {KEY}"),
    ],
)
def test_no_word_of_a_server_holds_the_key(sent, monkeypatch):
    monkeypatch.setenv("PARITYALIGN_API_KEY", KEY)
    (found,) = asked(sent)
    told = f"{found} {found!r} {getattr(found, 'advice', '')}"
    assert KEY not in told and KEY[:9] not in told


def test_no_name_in_a_list_of_models_holds_the_key_or_signs_that_a_terminal_obeys(monkeypatch):
    names = read_models(Received(200, text=json.dumps({"data": [{"id": "a\x1b[31m"}, {"id": "b" * 5000}]})))
    assert names[0] == "a?[31m" and len(names[1]) < 210
    monkeypatch.setenv("PARITYALIGN_API_KEY", KEY)
    with serving(lambda *_: None, models=(KEY, "b")) as served, pytest.raises(UserError) as problem:
        asyncio.run(OpenAIModel(served.url, "", ServerSettings()).only_name())
    assert "It has 2: [key], b." in str(problem.value)


# ---- replies ----


def test_half_a_character_is_a_question_mark_and_a_whole_one_stays():
    for escaped, text in ((r"a\ud83d", "a?"), (r"\uDE00b", "?b"), (r"\ud83d\ude00", "😀"), (r"\\ud83d", r"\ud83d")):
        assert said(completion("X").replace("X", escaped)).text == text


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_that_can_be_written_comes_back_as_it_is(text):
    for ascii_only in (True, False):
        sent = json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=ascii_only)
        assert said(sent).text == text


def test_of_a_content_in_parts_the_texts_are_joined():
    thoughts = {"type": "thinking", "thinking": [{"type": "text", "text": "let me look"}]}
    parts = [thoughts, {"type": "text", "text": "a "}, {"type": "image_url"}, {"type": "text", "text": "cup"}, 3]
    assert said(completion(parts)).text == "a cup" and said(completion([])).text == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(json_values, json_values, json_values, json_values)
def test_what_else_a_reply_says_does_not_cost_the_reply(finish, usage, logprobs, model):
    told = json.loads(completion("tea", finish_reason=finish, logprobs=logprobs))
    found = said(json.dumps({**told, "usage": usage, "model": model}))
    assert found.text == "tea" and len(found.finish) <= 43 and len(found.model) <= 203


@pytest.mark.parametrize("count", [10**400, -1, 1e300, float("nan"), "many", [], 10**12])
def test_a_count_that_cannot_be_is_none(count):
    told = {**json.loads(completion("tea")), "usage": {"prompt_tokens": count, "completion_tokens": 2}}
    found = said(json.dumps(told))
    assert (found.prompt_tokens, found.completion_tokens) == (None, 2)


@pytest.mark.parametrize("logprob", [float("-inf"), float("nan"), None, 1e300, "x"])
def test_log_probabilities_of_which_one_cannot_be_are_none(logprob):
    tokens = {"content": [{"logprob": -0.5}, {"logprob": logprob}]}
    assert said(completion("tea", logprobs=tokens)).logprob is None


def test_a_reply_says_which_model_it_is_by():
    assert said(completion("tea")[:-1] + ', "model": "org/other"}').model == "org/other"
    assert said(completion("tea")).model == ""


@pytest.mark.parametrize("finish", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_reply_that_is_cut_off_before_any_text_is_one_of_no_text(finish):
    found = said(completion(None, finish_reason=finish))
    assert (found.text, found.finish) == ("", "length")


def test_a_refusal_for_want_of_tokens_is_such_a_reply():
    told = "Could not finish the message because max_tokens or model output limit was reached. Please try again"
    (found,) = asked(answer(json.dumps({"error": {"message": told, "param": "max_tokens"}}), "400 Bad Request"))
    assert (found.text, found.finish, found.prompt_tokens) == ("", "length", None)


@pytest.mark.parametrize(
    "broken",
    [
        {"finish_reason": "error"},
        {"finish_reason": "abort"},
        {"error": {"code": 502, "message": "the upstream broke off"}},
        {"error": "overloaded"},
    ],
)
def test_an_error_in_place_of_a_choice_is_a_failure_that_passes(broken):
    with pytest.raises(NoReply) as problem:
        said(completion("", **broken))
    assert problem.value.again and not problem.value.about_this
    assert said(completion("tea", error=None)).text == "tea"


def test_an_error_in_place_of_a_choice_counts_as_the_status_that_it_names():
    with pytest.raises(NoReply) as problem:
        said(completion("", error={"code": "403", "message": "Your input was flagged"}))
    assert not problem.value.again and problem.value.about_this and "'Your input was flagged'" in str(problem.value)


@given(st.text() | json_values.map(json.dumps) | json_values.map(lambda value: completion(value, error=value)))
def test_whatever_comes_with_status_200_is_a_reply_or_none(text):
    for proven in (True, False):
        try:
            read_reply(Received(200, text=text), left_out=(), proven=proven)
        except NoReply as problem:
            assert len(str(problem)) < 1500 and "\x1b" not in str(problem)


@pytest.mark.parametrize(
    "odd",
    [
        "<html>one moment</html>",
        '{"error": "Unexpected endpoint or method. (POST /chat/completions)"}',
        '{"status": "ok"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_reply_passes_only_where_the_server_has_answered_before(odd):
    def after(first):
        answers = iter([*first, answer(odd)])
        return asked(lambda _: next(answers), times=len(first) + 1)[-1]

    assert after([reply("tea")]).again
    assert odd[0] == "[" or (not after([]).again and "/v1" in f"{after([])} {after([]).advice}")


# ---- fields that a server refuses ----


REFUSALS = {
    "seed": [
        "{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}",
        '{"error": {"message": "Invalid JSON payload received. Unknown name \\"seed\\": Cannot find field."}}',
        "property 'seed' is unsupported",
        "Additional properties are not allowed ('seed' was unexpected)",
        "Failed to deserialize: unknown field `seed`, expected one of `model`, `messages`, `temperature`, `logprobs`",
    ],
    "logprobs": [
        "deepseek-reasoner does not support the parameter logprobs",
        "Unrecognized request argument supplied: logprobs",
        "You are not allowed to request logprobs from this model",
        json.dumps({"error": {"message": "x " * 300 + ". The parameter 'logprobs' is not supported."}}),
    ],
    "max_tokens": [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    ],
    "temperature": [
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        "`temperature` is deprecated for this model",
        "Input validation error: `temperature` must be strictly positive",
        "invalid temperature: only 1 is allowed for this model",
    ],
    "top_p": ["Unsupported parameter: 'top_p' is not supported with this model."],
    "top_k": [
        "Unrecognized request argument supplied: top_k",
        "{'type': 'extra_forbidden', 'loc': ('body', 'top_k'), 'msg': 'Extra inputs are not permitted'}",
    ],
    "response_format": [
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`. See supported models at https://far.example",
    ],
}


@pytest.mark.parametrize(("field", "told"), [(field, told) for field, each in REFUSALS.items() for told in each])
def test_a_field_is_refused_where_a_server_says_so(field, told):
    for status in (400, 403, 422):
        assert refused_fields(Received(status, text=told), SENT, "m") == {field}
    assert refused_fields(Received(400, text=told), {*SENT} - {field}, "m") == set()
    assert refused_fields(Received(500, text=told), SENT, "m") == set()


def test_of_two_fields_that_do_not_go_together_the_temperature_stays():
    told = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    assert refused_fields(Received(400, text=told), SENT, "m") == {"top_p"}


@pytest.mark.parametrize(
    "told",
    [
        "The model doubao-seed-1-6-vision does not support this picture",
        "unknown model my-temperature",
        "model temperature is not supported here",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4984 in the messages, "
        "16 in the completion). Please reduce the length of the messages or max_tokens: they are not allowed to exceed",
        "'max_tokens' or 'max_completion_tokens' is too large: 32. That is not supported",
        "Image format not supported. We were asked for something else altogether, by the way: seed 3, logprobs true",
        "max_tokens must be at least 1",
        "top_p must be between 0 and 1, 1.5 is not allowed",
    ],
)
def test_a_refusal_that_only_mentions_a_field_leaves_it(told):
    assert refused_fields(Received(400, text=told), SENT, "model temperature") == set()


def test_a_temperature_that_a_server_refuses_is_left_out_and_told_of():
    def script(body):
        return answer(REFUSALS["temperature"][0], "400 No") if "temperature" in body else reply("tea")

    first, second = asked(script, times=2)
    assert first.amended and second.left_out == ("temperature",)


# ---- fields that are sent where they are wanted ----


def sent_with(decoding: Decoding, **server: object) -> dict:
    bodies = []
    asked(lambda body: bodies.append(body) or reply("tea"), decoding=decoding, **server)
    return bodies[0]


def test_draws_are_narrowed_by_the_server_where_that_changes_something():
    narrowed = sent_with(Decoding(8, 0.5, top_p=0.9, top_k=40))
    assert (narrowed["top_p"], narrowed["top_k"]) == (0.9, 40)
    for neutral in (DRAWN, Decoding(8, 0.0, top_p=0.9, top_k=40)):
        assert not {"top_p", "top_k"} & sent_with(neutral).keys()


def test_further_fields_go_with_every_request():
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "provider": {"order": ["a", "b"]}, "min_p": 0.1}
    for decoding in (GREEDY, DRAWN):
        body = sent_with(decoding, extra_body=extra)
        assert extra.items() <= body.items() and {"model", "messages", "max_tokens"} <= body.keys()
    assert not extra.keys() & sent_with(DRAWN).keys()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), {"deep": [1, float("-inf")]}, {1, 2}, {3: 4}, object()])
def test_a_further_field_that_is_no_json_is_refused(value):
    with pytest.raises(ValidationError):
        ServerSettings(extra_body={"provider": value})


def test_only_pairs_are_held_to_a_schema_and_only_where_that_is_wanted():
    pair = Decoding(8, 0.5, pair=True)
    form = sent_with(pair, response_format="json_schema")["response_format"]
    schema = form["json_schema"]["schema"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] and not schema["additionalProperties"]
    assert schema["required"] == [*schema["properties"]] == ["question", "answer"]
    assert "response_format" not in sent_with(DRAWN, response_format="json_schema")
    assert "response_format" not in sent_with(pair)
    reply = json.dumps(dict(zip(schema["required"], ("What is sold?", "tea"), strict=True)))
    assert read_pair(reply) == ("What is sold?", "tea")


def test_fields_that_a_server_refuses_are_left_out_one_after_another_and_told_of():
    def script(body):
        for field in ("response_format", "top_k", "top_p"):
            if field in body:
                return answer(REFUSALS[field][0], "400 No")
        return reply("tea")

    decoding = Decoding(8, 0.5, top_p=0.9, top_k=40, pair=True)
    found = asked(script, 4, decoding, response_format="json_schema")
    assert [each.amended for each in found[:3]] == [True] * 3
    assert found[3].left_out == ("response_format", "top_k", "top_p")
    told = in_words("m", Spent.on(found[3], requests=1, seconds=0.0), ServerSettings())
    assert "does not take top_p or top_k" in told and "was not held to a schema" in told
    assert "does not take" not in in_words("m", Spent.on(Said("tea"), requests=1, seconds=0.0), ServerSettings())


# ---- whom an error concerns ----


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, json.dumps({"error": {"message": "The response was filtered.", "code": "content_filter"}})),
        (403, json.dumps({"error": {"message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}})),
        (400, "<400> DataInspectionFailed: Input data may contain inappropriate content."),
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
        (413, "Request Entity Too Large"),
        (400, "cannot identify the image"),
        (400, "image exceeds 5 MB maximum"),
        (500, "failed to process image"),
    ],
)
def test_a_refusal_of_one_request_for_what_it_holds_is_told_apart(status, told):
    for proven in (True, False):
        problem = failure(status, told, proven=proven)
        assert problem.about_this and "key" not in problem.advice


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "Your content was flagged"),
        (402, "Insufficient balance"),
        (403, "You have no permission to use this model"),
        (404, "no such model"),
        (429, "context"),
        (400, "You exceeded your current quota, please check your plan and billing details"),
        (400, "Model unloaded."),
        (400, "Incorrect API key provided"),
        (500, "out of memory while processing an image"),
        (503, "down"),
    ],
)
def test_an_error_that_concerns_all_requests_is_not_of_one(status, told):
    assert not failure(status, told).about_this


def test_a_refusal_without_words_is_of_one_request_if_others_were_answered():
    assert failure(400, "", proven=True).about_this and not failure(400, "", proven=False).about_this
    first, second = asked(
        lambda body: answer("", "400 Bad") if prompt_of(body) == "question 1" else reply("tea"), times=2
    )
    assert first.text == "tea" and second.about_this and not second.again


def test_a_key_is_advised_where_nothing_was_answered_before():
    for keyed, advice in ((False, "wants a key: set"), (True, "refuses the key in")):
        assert advice in failure(403, "", proven=False, keyed=keyed).advice
        assert advice in failure(401, "", proven=True, keyed=keyed).advice
    assert not failure(403, "").advice and not failure(403, "Your input was flagged", proven=False).advice


def test_the_message_of_an_error_is_shown_not_the_json_around_it():
    for told in ({"error": {"message": "no"}}, {"error": "no"}, {"message": "no"}, {"detail": "no"}):
        assert excerpt(json.dumps(told)) == "'no'"
    assert excerpt('{"detail": [1]}') == "'{\"detail\": [1]}'" and excerpt("no") == "'no'"


@given(st.text(), st.integers(1, 400))
def test_a_short_line_is_short_and_a_line(text, most):
    line = short_line(text, most)
    assert len(line) <= most + 3 and (line.isprintable() or not line)


# ---- attempts ----


class Refusing:
    """A remote model that always gives the same problem."""

    name = "far"

    def __init__(self, **problem) -> None:
        self.problem = problem
        self.asked = 0

    async def ask(self, request, decoding):
        self.asked += 1
        raise NoReply("no", **self.problem)


def answered(remote, **settings) -> tuple[Said, UserError | None]:
    server = ServerSettings(**{"backoff": 1e-9, "max_attempts": 3} | settings)

    async def ask():
        attempts = Attempts(remote, server, Budget(server, Spent()))
        return await attempts.ask(Request("red.png", "question"), GREEDY, Sent()), attempts.problem

    return asyncio.run(ask())


def attempt(remote, **settings) -> UserError:
    with pytest.raises(WorkFailed) as problem:
        answered(remote, **settings)
    return problem.value


class Saying(Refusing):
    """A remote model that always says the same."""

    async def ask(self, request, decoding):
        return Said(**self.problem)


def test_a_reply_that_was_cut_off_before_any_text_need_not_be_counted():
    assert answered(Saying(text="", finish="length"), budget_tokens=99)[1] is None
    assert "does not report" in str(answered(Saying(text="tea", finish="length"), budget_tokens=99)[1])


@pytest.mark.parametrize(("again", "times"), [(False, 1), (True, 3)])
def test_a_question_that_is_refused_for_what_it_holds_is_an_error_of_its_own(again, times):
    remote = Refusing(again=again, about_this=True)
    problem = attempt(remote)
    assert isinstance(problem, OneRefused) and problem.told == "no" and "red.png" in str(problem)
    assert remote.asked == times and not isinstance(attempt(Refusing(again=again)), OneRefused)


def test_any_number_of_attempts_has_a_wait(monkeypatch):
    remote, began = Refusing(again=True), time.monotonic()
    attempt(remote, max_attempts=1000, backoff=1e-30)
    assert remote.asked == 1000 and time.monotonic() - began < 60


def test_the_advice_stands_below_the_last_attempt():
    assert str(attempt(Refusing(again=True, advice="Do that."))).endswith("The last one gave no\nDo that.")


# ---- the test of sight, for a model that thinks ----


def looks(replies: dict[int, list[Said]]) -> list[Decoding]:
    """How it is asked, where it says these things within so many tokens, the last of them from then on."""
    decodings = []

    async def ask(request, decoding):
        decodings.append(decoding)
        left = replies[decoding.max_new_tokens]
        return left.pop(0) if len(left) > 1 else left[0]

    asyncio.run(require_sight("far", ask))
    return decodings


def test_a_model_that_thinks_is_given_room_to_answer_in():
    cut_off = Said("", "length")
    assert looks({16: [cut_off], 1024: [Said("blue"), Said("white")]}) == [DECODING, AFTER_THOUGHTS, AFTER_THOUGHTS]
    assert looks({16: [Said("blue"), Said("white")]}) == [DECODING, DECODING]


def test_a_model_that_never_comes_to_an_answer_is_not_called_blind():
    with pytest.raises(WorkFailed, match="was cut off at 1,024 tokens before it said anything"):
        looks({16: [Said("", "length")], 1024: [Said("", "length")]})


# ---- proxies and certificates of the environment ----


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def connect(url: str) -> None:
    async def open_and_close():
        async with OpenAIModel(url, "m", ServerSettings()).connection():
            pass

    asyncio.run(open_and_close())


@pytest.mark.parametrize("proxy", ["socks://user:hidden@127.0.0.1:1", "socks5://127.0.0.1:1", "http://[::1", "ftp://x"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(no_proxies, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UserError, match="the proxy in (the environment variable )?ALL_PROXY") as problem:
        connect("http://far.example/v1")
    assert "hidden" not in str(problem.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(no_proxies, monkeypatch, host):
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1")
    connect(f"http://{host}/v1")
    connect(f"https://{host}/v1")


def test_certificates_that_are_not_there_are_named_by_their_variable(no_proxies, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with pytest.raises(UserError, match="SSL_CERT_FILE"):
        connect("https://far.example/v1")


def test_a_host_that_can_be_none_is_refused_in_words():
    async def ask():
        model = OpenAIModel("http://\u2603.test/v1", "m", ServerSettings())
        async with model.connection():
            await model.ask(Request("", "question"), GREEDY)

    with pytest.raises(UserError, match="is no address of a server"):
        asyncio.run(ask())
