"""Pairs from elsewhere: every form says the same, what is missing drops a pair, what is unclear is refused."""

import json
from hashlib import sha256

import pyarrow
import pyarrow.parquet
import pytest

from parityalign.core.errors import UserError
from parityalign.core.records import content_id
from parityalign.data.given_pairs import read_given_pairs
from projects import done, refusal

PAIRS = [("7", "a.png", "What is sold?", "tea"), ("8", "b.png", "Which one?", "two"), ("9", "c.png", None, None)]


def plain(pairs=PAIRS, **more):
    return [dict(zip(("pair_id", "image", "question", "answer"), pair, strict=True)) | more for pair in pairs]


def sharegpt(pairs=PAIRS, mark="<image>\n{}"):
    return [
        {
            "id": int(number),
            "image": f"/somewhere/{image}",
            "conversations": [
                {"from": "human", "value": question and mark.format(question)},
                {"from": "gpt", "value": answer},
            ],
        }
        for number, image, question, answer in pairs
    ]


def pa_output(pairs=PAIRS):
    return [
        {
            "question_id": int(number),
            "image_path": f"/container/data/{image}",
            "ground_truth_question": "never read",
            "ground_truth_answer": "never read",
            "predicted_question": question,
            "predicted_answer": answer,
        }
        for number, image, question, answer in pairs
    ]


def a_list(path, rows):
    path.write_text(json.dumps(rows, indent=1))
    return path


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read(path, form=None, **columns):
    return [
        (pair.pair_id, pair.question, pair.answer)
        for pair in read_given_pairs(path, task="okvqa", form=form, columns=columns)
    ]


def told(path, **options):
    with pytest.raises(UserError) as refused:
        read(path, **options)
    return str(refused.value)


EXPECTED = [(number, question, answer) for number, _, question, answer in PAIRS]


@pytest.mark.parametrize("write", [lines, a_list])
@pytest.mark.parametrize(
    "rows",
    [plain(), sharegpt(), sharegpt(mark="<image>{}"), sharegpt(mark="{}\n<image>"), pa_output()],
    ids=["pairs", "sharegpt", "mark on the line", "mark at the end", "first release"],
)
def test_every_form_of_json_says_the_same(tmp_path, write, rows):
    assert read(write(tmp_path / "given", rows)) == EXPECTED


def test_parquet_is_read_by_the_names_of_its_columns(tmp_path):
    assert read(parquet(tmp_path / "p.parquet", plain(more=1))) == EXPECTED
    renamed = [{"q": q, "a": a, "img": i, "no": int(n)} for n, i, q, a in PAIRS]
    path = parquet(tmp_path / "r.parquet", renamed)
    assert read(path, question="q", answer="a", image="img", pair_id="no") == EXPECTED


def test_a_file_of_many_row_groups_is_read_to_its_end(tmp_path):
    rows = plain([(str(number), "a.png", "What?", "tea") for number in range(2500)])
    assert [pair[0] for pair in read(parquet(tmp_path / "p.parquet", rows))] == [str(number) for number in range(2500)]


def test_a_form_that_is_named_is_taken_at_its_word(tmp_path):
    path = parquet(tmp_path / "table", plain())
    assert read(path, form="parquet") == EXPECTED
    assert "has no 'conversations'" in told(lines(tmp_path / "given", plain()), form="sharegpt")
    assert "Did you mean sharegpt" in told(path, form="shargpt")


def test_without_ids_a_pair_gets_the_one_that_the_records_give_it(tmp_path):
    expected = [content_id(image, "okvqa", question or "", answer or "", "") for _, image, question, answer in PAIRS]
    without = [{key: value for key, value in row.items() if key != "pair_id"} for row in plain()]
    for path in (lines(tmp_path / "given", without), parquet(tmp_path / "p.parquet", without)):
        assert [pair[0] for pair in read(path)] == expected
    anonymous = [{**row, "id": None, "image": row["image"].rpartition("/")[2]} for row in sharegpt()]
    assert [pair[0] for pair in read(lines(tmp_path / "given", anonymous))] == expected


def test_an_image_inside_the_file_gives_the_id_by_its_bytes(tmp_path):
    rows = [{"image": {"bytes": b"picture", "path": None}, "question": "What?", "answer": "tea"}]
    expected = content_id(sha256(b"picture").hexdigest()[:32], "okvqa", "What?", "tea", "")
    assert read(parquet(tmp_path / "p.parquet", rows)) == [(expected, "What?", "tea")]


def test_a_text_in_a_parquet_file_that_is_not_utf_8_is_one_line(tmp_path):
    broken = pyarrow.array([b"\xff\xfe"]).view(pyarrow.utf8())
    columns = {"question": broken, "answer": pyarrow.array(["tea"])}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    assert "cannot read the Parquet file" in told(tmp_path / "p.parquet")


def test_each_turn_of_a_longer_conversation_is_a_pair(tmp_path):
    asked = [("human", "<image>\nWhat is sold?"), ("gpt", "tea"), ("human", "Where?"), ("gpt", "")]
    said = [("system", "Be brief."), *asked]
    row = {"id": "7", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in said]}
    assert read(lines(tmp_path / "given", [row])) == [("7:0", "What is sold?", "tea"), ("7:1", "Where?", "")]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "is empty; expected rows with pair_id, image, question, answer"),
        ([{"text": "x"}], "line 1 is not a pair: expected .*conversations.*found the keys 'text'"),
        ([{"id": 1, "image": "a", "conversations": [{"from": "human", "value": "x"}]}], "human and gpt in turn"),
        ([{"id": 1, "image": "a", "conversations": []}], "human and gpt in turn"),
        ([*plain(), {"pair_id": "10", "image": "a"}], "line 4 has no 'question'"),
        ([{"pair_id": ["x"], "image": "a", "question": "q", "answer": "a"}], "'pair_id' should be a text"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused_with_what_was_expected_and_found(tmp_path, rows, what):
    with pytest.raises(UserError, match=what):
        read(lines(tmp_path / "given", rows))


def test_a_parquet_file_that_is_none_or_lacks_a_column_is_refused(tmp_path):
    path = parquet(tmp_path / "p.parquet", [{"q": "What?", "answer": "tea"}])
    assert "has no column 'question'; it has 'q', 'answer'" in told(path)
    assert "has no column 'Q'" in told(path, question="Q")
    assert "Did you mean question" in told(path, questoin="q")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain()).slice(0, 0), tmp_path / "e.parquet")
    assert "is empty" in told(tmp_path / "e.parquet")
    assert "is not a Parquet file" in told(lines(tmp_path / "l.parquet", plain()))
    assert "No such file" in told(tmp_path / "none.parquet")
    assert "line 1 has no 'q'" in told(lines(tmp_path / "given", plain()), question="q")
    assert "columns can be named for tables and plain rows" in told(path, form="sharegpt", question="q")


def test_a_damaged_page_of_a_parquet_file_is_told_by_its_file(tmp_path):
    path = parquet(tmp_path / "p.parquet", plain([(str(n), "a.png", f"What is {n}?", f"tea {n}") for n in range(2500)]))
    data = bytearray(path.read_bytes())
    pages_end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # what follows is the footer
    data[4:pages_end] = bytes(pages_end - 4)
    path.write_bytes(data)
    assert str(path) in told(path)


# On the command line


def identified(folder, pairs, student, teacher, *options):
    """The verdicts on pairs that were made elsewhere, by pair."""
    arguments = ["--student-answers", student, "--teacher-answers", teacher, "--task", "okvqa"]
    done("identify", "--pairs", pairs, *arguments, "--out", folder / "v.jsonl", *options)
    verdicts = [json.loads(line) for line in (folder / "v.jsonl").read_text().splitlines()]
    return {verdict["pair_id"]: (verdict["verdict"], verdict["reason"]) for verdict in verdicts}


def texts(path, **said):
    return lines(path, [{"pair_id": number, "text": text} for number, text in said.items()])


@pytest.mark.parametrize("rows", [plain(), sharegpt(), pa_output()], ids=["pairs", "sharegpt", "first release"])
def test_pairs_of_every_form_get_the_same_verdicts_and_null_ones_are_dropped(tmp_path, rows):
    student, teacher = {"7": "milk", "8": "two", "9": "x"}, {"7": "tea", "9": "x"}
    verdicts = identified(
        tmp_path,
        a_list(tmp_path / "given.json", rows),
        texts(tmp_path / "s.jsonl", **student),
        texts(tmp_path / "t.jsonl", **teacher),
    )
    assert {number: verdict for number, (verdict, _) in verdicts.items()} == {
        "7": "teacher_only",
        "8": "student_right",
        "9": "dropped",
    }
    assert verdicts["9"][1] == "empty_question"


def test_a_null_answer_drops_its_pair_too(tmp_path):
    given = a_list(tmp_path / "given.json", pa_output([("1", "a.png", "What?", None)]))
    answers = texts(tmp_path / "a.jsonl", **{"1": "tea"})
    assert identified(tmp_path, given, answers, answers) == {"1": ("dropped", "empty_answer")}


def test_answers_may_be_the_predictions_of_the_first_release(tmp_path):
    def predictions(name, *said):
        rows = [
            {"question_id": int(n), "image_path": i, "PA_question": q, "PA_answer": a, "predictions": text}
            for (n, i, q, a), text in zip(PAIRS, said, strict=True)
        ]
        return a_list(tmp_path / name, rows)

    pairs = a_list(tmp_path / "given.json", pa_output())
    student, teacher = predictions("s.json", "milk", "two", ""), predictions("t.json", "tea", "two", "")
    assert identified(tmp_path, pairs, student, teacher)["7"][0] == "teacher_only"


def test_columns_are_named_on_the_command_line(tmp_path):
    pairs = parquet(tmp_path / "p.parquet", [{"q": "What?", "a": "tea", "no": 1}])
    answers = texts(tmp_path / "a.jsonl", **{"1": "tea"})
    columns = ("--columns", "question=q,answer=a,pair_id=no")
    assert identified(tmp_path, pairs, answers, answers, *columns)["1"][0] == "student_right"
    rest = ["--student-answers", answers, "--teacher-answers", answers, "--task", "okvqa", "--out", tmp_path / "v"]
    message = refusal("identify", "--pairs", pairs, *rest, "--columns", "question=q,answer")
    assert "write it like question=q,answer=a" in message
    assert "--columns are not for the run folder" in refusal("identify", tmp_path, "--columns", "question=q")
