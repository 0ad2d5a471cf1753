"""Files of other evaluators: samples of lmms-eval, tables of VLMEvalKit and plain ones are scored, judged, written."""

import csv
import json
import zipfile

import pytest

from parityalign.core import UserError
from parityalign.data import _tables
from parityalign.data.given_pairs import read_given_pairs
from parityalign.data.predictions import read_cases
from parityalign.stages import score_file
from projects import done, refusal

ROWS = [
    {"id": 3, "asked": "What is sold?", "answers": ["tea", "Tea bags"], "said": "Tea", "right": "tea"},
    {"id": 5, "asked": 'Which "one",\nthen?', "answers": ["12"], "said": "nothing", "right": "12"},
]
PROMPT = "\nAnswer the question using a single word or phrase."


def lmms_eval(path, key="said", wrapped=0):
    """Samples as logged; `wrapped`: 0 as of today, 1 as before it unpacked replies, 2 as some tasks have them."""
    with path.open("w") as file:
        for row in ROWS:
            reply = row[key]
            for _ in range(wrapped):
                reply = [reply]
            target = str(row["answers"]) if len(row["answers"]) > 1 else row["answers"][0]
            line = {"doc_id": row["id"], "target": target, "filtered_resps": reply, "doc_hash": "0a", "anls": 0.5}
            file.write(json.dumps({**line, "input": row["asked"] + PROMPT, "resps": [["long: " + row[key]]]}) + "\n")
    return path


def kit_rows(key="said"):
    return [
        {
            "index": row["id"],
            "question": row["asked"],
            "answer": str(row["answers"]) if len(row["answers"]) > 1 else row["answers"][0],
            "category": "x",
            "prediction": row[key],
        }
        for row in ROWS
    ]


def vlmevalkit(path, key="said"):
    rows = kit_rows(key)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=4))
    elif path.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for cells in [list(rows[0]), *(list(row.values()) for row in rows), [None, "", None]]:
            book.active.append([float(cell) if cell == "12" else cell for cell in cells])
        book.save(path)
    else:
        with path.open("w", newline="") as file:
            written = csv.DictWriter(
                file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL
            )
            written.writeheader()
            written.writerows(rows)
    return path


FILES = [
    *(
        (lambda path, wrapped=wrapped, **key: lmms_eval(path, wrapped=wrapped, **key), "s.jsonl")
        for wrapped in range(3)
    ),
    *((vlmevalkit, f"m_DocVQA_VAL{suffix}") for suffix in (".tsv", ".csv", ".json", ".xlsx")),
]
NAMES = ["lmms-eval", "lmms-eval before", "lmms-eval nested", "tsv", "csv", "json", "xlsx"]


@pytest.mark.parametrize(("write", "name"), FILES, ids=NAMES)
def test_what_an_evaluator_wrote_is_scored_again(tmp_path, write, name):
    first, second = score_file("anls", write(tmp_path / name))
    assert (first["score"], second["score"]) == (1, 0)
    assert str(first.get("doc_id", first.get("index"))) == "3", "the row's own fields are kept"


@pytest.mark.parametrize(("write", "name"), FILES, ids=NAMES)
def test_what_an_evaluator_wrote_is_read_as_pairs_and_as_answers_to_them(tmp_path, write, name):
    student = write(tmp_path / f"a_{name}", key="said")
    teacher = write(tmp_path / f"b_{name}", key="right")
    pairs = [
        (pair.pair_id, pair.question, pair.answer)
        for pair in read_given_pairs(student, task="okvqa", form=None, columns={})
    ]
    assert pairs == [("3", "What is sold?", "tea"), ("5", 'Which "one",\nthen?', "12")]
    files = ("--pairs", student, "--student-answers", student, "--teacher-answers", teacher)
    done("identify", *files, "--task", "okvqa", "--out", tmp_path / "v.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert {row["pair_id"]: row["verdict"] for row in rows} == {"3": "student_right", "5": "teacher_only"}


def test_tables_may_have_other_names_for_their_columns(tmp_path):
    (tmp_path / "t.csv").write_text("no,output,labels\n1,Stop,\"['stop', 'halt']\"\n2,go,stop\n3,,stop\n")
    output = done("score", "anls", tmp_path / "t.csv", "--columns", "prediction=output,answers=labels")
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row.get("score") for row in rows] == [1, 0, 0, None] and rows[0]["no"] == "1"
    (tmp_path / "p.csv").write_text("no,q,label\n1,What?,stop\n")
    (tmp_path / "a.tsv").write_text("no\toutput\n1\tStop\n")
    (tmp_path / "b.jsonl").write_text('{"pair_id": 1, "output": "go"}\n')
    files = ("--pairs", tmp_path / "p.csv", "--student-answers", tmp_path / "b.jsonl", "--task", "okvqa")
    columns = "question=q,answer=label,pair_id=no,text=output"
    done("identify", *files, "--teacher-answers", tmp_path / "a.tsv", "--columns", columns, "--out", tmp_path / "v")
    assert json.loads((tmp_path / "v").read_text())["verdict"] == "teacher_only"


def test_answers_that_have_to_be_met_exactly_may_be_told_in_lines_and_in_tables(tmp_path):
    lines = [{"prediction": "2014", "answers": ["2015"], "exact": exact} for exact in ([True], [False], [])]
    (tmp_path / "l.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "l.csv").write_text("prediction,answers,exact\n2014,2015,\"['YES']\"\n2014,2015,no\n2014,2015,\n")
    for name in ("l.jsonl", "l.csv"):
        assert [row["score"] for row in score_file("chartqapro_relaxed_accuracy", tmp_path / name)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "prediction,label\nx,y\n", r'has no answers among its fields \["label", "prediction"\].*--columns'),
        ("a.csv", "prediction,answers\nx\n", "line 2 has 1 fields, and the header has 2"),
        ("a.csv", "prediction,answers\nx,\n", "answers is null; it must be one text or more"),
        ("a.csv", "prediction,answers,exact\nx,y,maybe\n", 'exact contains "maybe"; write a list of YES and NO'),
        ("a.csv", "prediction,answers\n", "is empty"),
        ("a.csv", "", "is empty"),
        ("a.tsv", "index\tquestion\tprediction\n1\tq\tp\n", "has no answers, which a score needs"),
        (
            "a.jsonl",
            '{"prediction": "x", "answers": ["y"], "exact": "yes"}',
            'exact is "yes"; it must be a list of true',
        ),
        ("a.jsonl", '{"doc_id": 1, "target": null, "filtered_resps": "x"}', "has no answers"),
        ("a.jsonl", '{"doc_id": 1, "target": "a", "filtered_resps": [1, 2]}', "'filtered_resps' should be one text"),
        ("a.xlsx", "no workbook", "it is no workbook, or is damaged"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_with_its_place_and_what_was_found(tmp_path, name, content, said):
    if name.endswith(".xlsx"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        list(score_file("anls", tmp_path / name))
    assert name in str(refused.value)


def test_lines_may_be_called_json_too(tmp_path):
    (tmp_path / "a.json").write_text('{"prediction": "x", "answers": ["x"]}\n{"prediction": "", "answers": ["x"]}\n')
    assert [row["score"] for row in score_file("anls", tmp_path / "a.json")] == [1, 0]


def test_a_column_that_is_none_and_one_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("prediction,label\nx,y\n")
    assert "Did you mean answers" in refusal("score", "anls", tmp_path / "a.csv", "--columns", "answer=label")
    assert "has no lable" in refusal("score", "anls", tmp_path / "a.csv", "--columns", "answers=lable")
    assert "write it like" in refusal("score", "anls", tmp_path / "a.csv", "--columns", "answers")


@pytest.mark.parametrize("name", ["s.jsonl", "m_ChartQAPro.tsv"])
def test_a_metric_of_exact_answers_refuses_rows_that_do_not_tell_them(tmp_path, name):
    path = (lmms_eval if name == "s.jsonl" else vlmevalkit)(tmp_path / name)
    with pytest.raises(UserError, match="does not tell; give lines with prediction, answers and exact"):
        list(score_file("chartqapro_relaxed_accuracy", path))


def test_without_its_package_a_workbook_is_refused_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_tables, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'parityalign\\[xlsx\\]'"):
        list(read_cases(tmp_path / "a.xlsx", {}))


def test_a_workbook_that_is_small_and_would_be_huge_is_not_unpacked(tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    vlmevalkit(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        size = sum(part.file_size for part in book.infolist())
    monkeypatch.setattr(_tables, "_LARGEST_WORKBOOK", size - 1)
    with pytest.raises(UserError, match=f"a.xlsx has {size:,} bytes unpacked.*Save it as CSV"):
        list(read_cases(tmp_path / "a.xlsx", {}))


# Out


def as_lmms_eval_reads(path):
    """{doc_id: score}, as lmms-eval reads samples of a baseline: the first number under a key with `score` in it."""
    found = {}
    for line in path.read_text().splitlines():
        sample = json.loads(line)
        found[sample["doc_id"]] = next(value for key, value in sample.items() if "score" in key.lower())
    return found


@pytest.mark.slow
def test_samples_in_the_form_of_lmms_eval_say_what_the_scores_say(project, trainable):
    done("run", project / "run.yaml")
    run = project / "runs" / "a"
    output = done("export", run, "--format", "lmms-eval")
    assert "after_samples_textvqa 8, before_samples_textvqa 8, teacher_samples_textvqa 8" in output
    scores = json.loads((run / "scores.json").read_text())["tasks"]["textvqa"]
    for model in ("before", "after", "teacher"):
        path = run / "exports" / "lmms-eval" / f"{model}_samples_textvqa.jsonl"
        found = as_lmms_eval_reads(path)
        assert list(found) == list(range(8))
        assert 100 * sum(found.values()) / 8 == pytest.approx(scores[model]["score"], abs=1e-4)
        again = json.loads(done("score", scores["metric"], path).splitlines()[-1])
        assert 100 * again["mean"] == pytest.approx(scores[model]["score"], abs=1e-4)
