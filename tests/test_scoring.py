"""Scoring a file of predictions: one row per case, and an error that says where the file is wrong."""

import json

import pytest

from parityalign.core.errors import UserError
from parityalign.stages import score_file


def written(tmp_path, *lines):
    path = tmp_path / "predictions.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return path


CASE = {"prediction": "coca cola", "answers": ["Coca-Cola", "coke"]}


def test_each_case_keeps_its_fields_and_gets_a_score_with_its_reason(tmp_path):
    path = written(tmp_path, {"question_id": 7, **CASE}, "", {"prediction": "tea", "answers": ["coke"]})
    first, second = score_file("anls", path)
    assert first["question_id"] == 7
    assert first["score"] == pytest.approx(8 / 9)
    assert first["compared"] == "coca cola"
    assert "Coca-Cola" in first["why"]
    assert second["score"] == 0


def test_a_null_prediction_is_an_empty_text(tmp_path):
    path = written(tmp_path, {"prediction": None, "answers": ["bus"]}, {"prediction": None, "answers": ["?"]})
    assert [row["score"] for row in score_file("mpa_substring", path)] == [0, 1]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(CASE).encode() + b"\r\n\r\n" + json.dumps(CASE).encode())
    assert len(list(score_file("anls", path))) == 2


def test_an_unknown_metric_is_refused_before_the_file_is_looked_for(tmp_path):
    with pytest.raises(UserError, match="Did you mean anls"):
        score_file("anl", tmp_path / "absent.jsonl")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl: No such file"):
        score_file("anls", tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="directory"):
        score_file("anls", tmp_path)


def test_a_file_without_cases_is_refused(tmp_path):
    with pytest.raises(UserError, match="is empty"):
        score_file("anls", written(tmp_path, "", "  "))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prediction": "a", "answers": ["a"', "is not JSON: .* at column 36;"),
        ('{"prediction": ' + "1" * 5000 + "}", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([CASE], "is .*, not an object"),
        (
            {"predictions": "a", "answers": ["a"]},
            r'has no prediction among its fields \["answers", "predictions"\]',
        ),
        ({"question": "a"}, "has no prediction and no answers"),
        ({"prediction": 5, "answers": ["5"]}, "prediction is 5; it must be a text or null"),
        ({"prediction": "a", "answers": None}, "answers is null; it must be a list"),
        ({"prediction": "a", "answers": "a"}, 'answers is "a"; it must be a list'),
        ({"prediction": "a", "answers": []}, r"answers is \[\]; it must be a list"),
        ({"prediction": "a", "answers": ["a", None]}, "answers contains null; every answer must be a text"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path, line, complaint):
    rows = score_file("textvqa_accuracy", written(tmp_path, CASE, "", line))
    assert next(rows)["prediction"] == CASE["prediction"]
    with pytest.raises(UserError, match=f"line 3 of .*predictions.jsonl:? {complaint}"):
        next(rows)


def test_a_line_that_is_not_utf8_is_refused_with_its_number(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"prediction": "caf\xe9", "answers": ["a"]}')
    with pytest.raises(UserError, match="line 1 of .* cannot be read as JSON"):
        score_file("anls", path)
