"""The files of the method's first release, in the shapes that it wrote them."""

import json

import pytest

from parityalign.core.errors import UserError
from parityalign.core.json_rows import read_rows
from parityalign.data.mpa_release import ReleaseRow, kind_of_item, read_combined, read_item

IMAGE = "/somewhere/data/okvqa/images/COCO_val2014_000000297147.jpg"
NAME = "COCO_val2014_000000297147.jpg"
PA = {
    "question_id": 2971475,
    "image_path": IMAGE,
    "ground_truth_question": "What sport?",
    "ground_truth_answer": "race",
    "predicted_question": "What is ridden",
    "predicted_answer": "A bike.",
}
PI = {"question_id": "7", "image_path": IMAGE, "PA_question": "What", "PA_answer": "a bike", "predictions": "bike"}
EVALUATION = {"question_id": 7, "image_path": IMAGE, "GT_question": "What?", "GT_answer": "race", "predictions": "bike"}
CONVERSATION = {
    "id": 7,
    "image": IMAGE,
    "conversations": [{"from": "human", "value": "<image>\nWhat is ridden"}, {"from": "gpt", "value": "A bike."}],
}


def written(folder, content):
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read_items(path):
    return [read_item(row) for row in read_rows(path)]


@pytest.mark.parametrize(
    ("row", "kind", "item"),
    [
        (PA, "pa", ReleaseRow(item_id="2971475", image=NAME, question="What is ridden", answer="A bike.")),
        (PI, "pi", ReleaseRow(item_id="7", image=NAME, question="What", answer="a bike", prediction="bike")),
        (
            EVALUATION,
            "evaluation",
            ReleaseRow(item_id="7", image=NAME, question="What?", answer="race", prediction="bike"),
        ),
        (
            CONVERSATION,
            "conversations",
            ReleaseRow(item_id="7", image=NAME, question="What is ridden", answer="A bike."),
        ),
    ],
)
def test_each_stage_s_file_is_known_by_its_keys(tmp_path, row, kind, item):
    assert read_items(written(tmp_path, [row])) == [item]
    assert kind_of_item(row) == kind


def test_what_the_release_could_not_read_is_none_and_the_text_null_stays_a_text(tmp_path):
    rows = [{**PA, "predicted_question": None}, {**PA, "predicted_answer": None}, {**PA, "predicted_answer": "null"}]
    items = read_items(written(tmp_path, rows))
    assert [(item.question, item.answer) for item in items] == [
        (None, "A bike."),
        ("What is ridden", None),
        ("What is ridden", "null"),
    ]


@pytest.mark.parametrize("image", ["a/b/x.png", "x.png", "/x.png", "C:\\data\\x.png"])
def test_an_image_is_its_base_name_wherever_its_author_had_it(tmp_path, image):
    (item,) = read_items(written(tmp_path, [{**CONVERSATION, "id": "s7", "image": image}]))
    assert (item.item_id, item.image) == ("s7", "x.png")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{broken", "is not JSON"),
        ({"data": [PA]}, "expected a list of rows, found an object with the keys 'data'"),
        ([], "is empty"),
        (
            [PA, {"question": "What?"}],
            r"\[1\] is not a row of the first release: expected .*'PA_question'.*found 'question'",
        ),
        ([{**CONVERSATION, "conversations": []}], "one turn of human and one of gpt, but has none"),
        (
            [{**CONVERSATION, "conversations": CONVERSATION["conversations"] * 2}],
            "one turn of human and one of gpt, but has 'human', 'gpt', 'human', 'gpt'",
        ),
        ([{**PA, "image_path": None}], "'image_path' is null"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_what_was_expected_and_found(tmp_path, content, said):
    with pytest.raises(UserError, match=said):
        read_items(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            [{"image_id": 297147, "question": "What?", "question_id": 2971475, "answers": ["race"] * 10}],
            [("2971475", NAME, 10)],
        ),
        (
            [
                {
                    "image_id": 42,
                    "qas": [{"question_id": n, "question": "What?", "answers": ["a"] * 10} for n in (425, 426)],
                }
            ],
            [("425", "COCO_train2014_000000000042.jpg", 10), ("426", "COCO_train2014_000000000042.jpg", 10)],
        ),
        ([{"imgname": "a.png", "query": "How many?", "label": "14"}] * 2, [("0", "a.png", 1), ("1", "a.png", 1)]),
        ([{"imgname": "a.png", "query": "How many?", "label": "14", "question_id": 9}], [("9", "a.png", 1)]),
        (
            {"data": [{"image_id": "003a8ae2ef43b901", "question": "W?", "question_id": 1, "answers": ["a"] * 10}]},
            [("1", "003a8ae2ef43b901.jpg", 10)],
        ),
        (
            [{"image_id": None, "question": None, "question_id": 1, "answers": ["race"]}],
            [("1", "", 1)],
        ),
        ([{"imgname": None, "query": None, "label": "14"}], [("0", "", 1)]),
        (
            {"data": [{"file_path": "icdar/7.png", "question": "W?", "question_id": 1, "answers": ["a"]}]},
            [("1", "7.png", 1)],
        ),
    ],
)
def test_combined_files_are_read_in_each_of_their_shapes(tmp_path, content, found):
    questions = read_combined(written(tmp_path, content))
    assert [(q.question_id, q.image, len(q.answers)) for q in questions] == found


def test_a_row_that_belongs_to_no_combined_file_is_refused_with_its_keys(tmp_path):
    with pytest.raises(UserError, match="not a row of a combined file.*found 'question'"):
        read_combined(written(tmp_path, [{"question": "What?"}]))
