"""Rows of others: numbers as they are spelled, lists that are written as texts, and nesting within limits."""

import json
import math
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityalign.core.errors import UserError
from parityalign.core.json_rows import MAX_DEPTH, Row, as_rows, parse_json, read_lines
from parityalign.stages import score_file

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
def test_a_number_is_the_text_that_the_file_spells(number):
    row = Row("a row", parse_json(f'{{"answers": [{number}], "answer": {number}}}', "a file"))
    expected = str(int(number)) if number.lstrip("-").isdigit() else number
    assert row.texts("answers") == (expected,)
    assert row.texts("answer") == (expected,) and row.text("answer") == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(34602.0, "34602"), (-12.0, "-12"), (3.1, "3.1"), (float("inf"), "inf")],
)
def test_a_float_of_a_table_is_written_as_it_is_read(value, text):
    assert Row("a row", {"id": value}).text("id") == text


def test_decimals_of_a_table_keep_their_spelling_and_nan_is_null():
    row = Row("a row", {"price": Decimal("3.10"), "none": math.nan, "some": ["a", math.nan]})
    assert row.text("price") == "3.10" and row.texts("price") == ("3.10",)
    assert row.text_or_none("none") is None and row.texts("none") == () and row.texts("some") == ()


@given(st.lists(_TEXT, max_size=5), st.sampled_from([str, repr, json.dumps]))
def test_a_list_that_is_written_as_one_text_is_that_list(texts, write):
    row = Row("a row", {"answers": write(texts), "in a list": [write(texts)]})
    assert row.texts("answers") == tuple(texts)
    assert row.texts("in a list") == tuple(texts)


@given(st.lists(st.text("ab'\" é", min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_list_that_numpy_wrote_is_that_list(texts):
    assert Row("a row", {"answers": str(np.array(texts))}).texts("answers") == tuple(texts)


@pytest.mark.parametrize("text", ["[2010, 2014]", "[Yes, No]", "['a", "a, 'b'", "['a'] or b", "['a', b]", "]['a']["])
def test_an_answer_in_brackets_is_an_answer(text):
    assert Row("a row", {"answers": text}).texts("answers") == (text,)


@pytest.mark.parametrize("text", ["[" + "'a' " * 20_000, "['a'" + " " * 90_000 + "x", "['" + "\\" * 90_000])
def test_what_only_begins_like_a_list_is_told_at_once(text):
    assert Row("a row", {"answers": text}).texts("answers") == (text,)


def test_several_texts_are_never_taken_apart():
    assert Row("a row", {"answers": ["['a']", "b"]}).texts("answers") == ("['a']", "b")


@pytest.mark.parametrize("depth", [MAX_DEPTH, 900, 5_000])
@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_what_is_nested_too_deeply_is_refused_with_its_line(tmp_path, depth, opening):
    closing = "}" if opening.startswith("{") else "]"
    line = f'{{"answers": {opening * depth}1{closing * depth}, "prediction": "a"}}\n'
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"line 1 is (nested more than|not JSON)"):
        read_lines(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=r"line 1 of .* cannot be read as JSON"):
        list(score_file("anls", tmp_path / "a.jsonl"))


def test_rows_may_be_nested_as_releases_are():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "a file")
    with pytest.raises(UserError, match="a file is nested"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "a file")


def test_backslashes_in_a_written_list_warn_of_nothing():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert as_rows([{"answers": r"['12\% of \d', 'b']"}], "file.csv")[0].texts("answers") == (r"12\% of \d", "b")
    assert not warned
