"""The fake model answers from a function or a table, and says what it lacks."""

import json

import pytest

from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.models.backends.fake import FakeModel, load
from parityalign.models.open import load_model

GREEDY = Decoding(max_new_tokens=8)


def write(path, **table):
    path.write_text(json.dumps(table), encoding="utf-8")
    return str(path)


def test_a_function_gives_the_replies_and_requests_are_remembered():
    model = FakeModel(lambda request, decoding: f"{request.prompt} {decoding.max_new_tokens}")
    requests = [Request("a.png", "one"), Request("b.png", "two")]
    assert model.generate(requests, GREEDY) == ["one 8", "two 8"]
    assert model.asked == requests


def test_the_first_row_that_fits_gives_the_reply(tmp_path):
    rows = [
        {"image": "a.png", "contains": "colour", "text": "red"},
        {"image": "*", "contains": "colour", "text": "blue"},
        {"text": "nothing"},
    ]
    model = load_model(f"fake:{write(tmp_path / 'table.json', replies=rows, special_tokens=['<image>'])}")
    requests = [Request("x/a.png", "which colour?"), Request("b.png", "which colour?"), Request("a.png", "why?")]
    assert model.generate(requests, GREEDY) == ["red", "blue", "nothing"]
    assert model.special_tokens == {"<image>"}
    assert model.name == f"fake:{tmp_path / 'table.json'}"


def test_a_request_without_a_row_is_named(tmp_path):
    model = load(write(tmp_path / "table.json", replies=[{"image": "a.png", "text": "red"}]))
    with pytest.raises(WorkFailed, match="no reply for the image 'b.png' and the prompt 'why'"):
        model.generate([Request("b.png", "why")], GREEDY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "the file: "),
        ("{}", "replies: Field required"),
        ('{"replies": [{"image": "a.png"}]}', "replies.0.text: Field required"),
    ],
)
def test_a_file_that_holds_no_table_is_refused(tmp_path, text, said):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load(str(tmp_path / "table.json"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read the fake model .*none.json: No such file"):
        load(str(tmp_path / "none.json"))
