"""Each task reads its benchmark as released, and says what is wrong with a folder that is no release."""

import json
import re
import shutil
from pathlib import Path

import pytest

from makers import draw, mute
from parityalign.config.schema import TaskData
from parityalign.core.errors import UserError
from parityalign.data.test_splits import read_split
from parityalign.stages.parsing import ParsedPair, read_pair
from parityalign.tasks import load_task

TASKS = ("textvqa", "stvqa", "chartqa", "okvqa", "docvqa", "infographicvqa", "ocrbench")
"""Those that are released as files; of ChartQAPro there is Parquet alone (`test_splits.py`)."""
FORM = "Reply in this form only. Question: <your question> Answer: <your answer>"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def textvqa(folder):
    draw(folder / "train_images/0a1b.jpg")
    rows = [
        {
            "question_id": 34602,
            "image_id": "0a1b",
            "question": "what is sold?",
            "answers": ["tea"] * 9 + [" te a "],
            "set_name": "val",
        },
        {
            "question_id": "34603",
            "image_id": "0a1b",
            "question": "how much?",
            "answers": ["5"] * 10,
            "image_width": 16,
        },
    ]
    write(folder / "TextVQA_0.5.1_val.json", {"dataset_name": "textvqa", "data": rows})


def stvqa(folder):
    draw(folder / "coco-text/COCO_train2014_1.jpg")
    draw(folder / "icdar/7.png")
    rows = [
        {
            "question_id": 1,
            "file_path": "coco-text/COCO_train2014_1.jpg",
            "question": "Which shop?",
            "answers": ["Corner Bakery"],
            "dictionary": ["a"],
        },
        {"question_id": 2, "file_path": "icdar/7.png", "question": "Which bus?", "answers": ["12", "Twelve"]},
    ]
    write(folder / "train_task_1.json", {"data": rows})


def chartqa(folder):
    draw(folder / "test/png/a.png")
    draw(folder / "test/png/b.png")
    write(
        folder / "test/test_human.json",
        [
            {"imgname": "a.png", "query": "How many?", "label": "14"},
            {"imgname": "a.png", "query": "Is it?", "label": "Yes"},
        ],
    )
    write(folder / "test/test_augmented.json", [{"imgname": "b.png", "query": "What share?", "label": "62"}])


def okvqa(folder):
    draw(folder / "val2014/COCO_val2014_000000297147.jpg")
    draw(folder / "val2014/COCO_val2014_000000000042.jpg")
    asked = [
        {"question_id": 2971475, "image_id": 297147, "question": "What sport?"},
        {"question_id": 425, "image_id": "42", "question": "Who made it?"},
    ]
    answered = [
        {
            "question_id": number,
            "image_id": 0,
            "answers": [{"answer_id": n, "answer": text, "raw_answer": f"{text}ing"} for n in range(1, 11)],
        }
        for number, text in (("425", "ford"), (2971475, "race"))
    ]
    write(folder / "OpenEnded_mscoco_val2014_questions.json", {"info": {}, "questions": asked})
    write(folder / "mscoco_val2014_annotations.json", {"license": {}, "annotations": answered})


def docvqa(folder):
    draw(folder / "spdocvqa_images/xnbl0037_1.png")
    draw(folder / "spdocvqa_images/pybv0228_81.png")
    rows = [
        {
            "questionId": 49153,
            "question": "What is the total?",
            "question_types": ["table/list", "handwritten"],
            "image": "documents/pybv0228_81.png",
            "docId": 14465,
            "answers": ["0.28", "$0.28"],
            "data_split": "val",
        },
        {"questionId": "24580", "question": "Who signs?", "image": "documents/xnbl0037_1.png", "answers": ["J. Smith"]},
    ]
    named = {"dataset_name": "docvqa", "dataset_version": "1.0", "dataset_split": "val"}
    write(folder / "spdocvqa_qas/val_v1.0_withQT.json", {**named, "data": rows})


def infographicvqa(folder):
    draw(folder / "infographicsvqa_images/37313.jpeg")
    draw(folder / "infographicsvqa_images/30011.jpeg")
    rows = [
        {
            "questionId": 98313,
            "question": "Which platforms?",
            "image_local_name": "37313.jpeg",
            "image_url": "https://example.org/a.jpg",
            "ocr_output_file": "37313.json",
            "answers": ["pinterest, facebook", "facebook, pinterest"],
            "answer_type": ["multi span"],
            "evidence": ["text"],
            "operation/reasoning": [],
            "data_split": "val",
        },
        {"questionId": 98314, "question": "How many?", "image_local_name": "30011.jpeg", "answers": ["4"]},
    ]
    named = {"dataset_name": "infographicVQA", "dataset_split": "val"}
    write(folder / "infographicsvqa_qas/infographicsVQA_val_v1.0_withQT.json", {**named, "data": rows})


def ocrbench(folder):
    draw(folder / "OCRBench_Images/IIIT5K/test/918_1.png")
    draw(folder / "OCRBench_Images/HME100k/a.jpg")
    rows = [
        {
            "dataset_name": "IIIT5K",
            "id": 7,
            "image_path": "IIIT5K/test/918_1.png",
            "question": "what is written in the image?",
            "answers": "CENTRE",
            "type": "Regular Text Recognition",
        },
        {
            "dataset_name": "HME100k",
            "id": 7,
            "image_path": "HME100k/a.jpg",
            "question": "Which formula?",
            "answers": ["x ^ { 2 }"],
            "type": "Handwritten Mathematical Expression Recognition",
        },
    ]
    write(folder / "OCRBench/OCRBench.json", rows)


def read(task, test, images="written", **choices):
    """The split as a run reads it; of ST-VQA the whole file, unless the test chooses."""
    if task.name == "stvqa":
        choices.setdefault("subset", "whole")
    return read_split(task, TaskData(images="pool", test=str(test), **choices), Path(images), mute)


WRITERS = {
    "textvqa": textvqa,
    "stvqa": stvqa,
    "chartqa": chartqa,
    "okvqa": okvqa,
    "docvqa": docvqa,
    "infographicvqa": infographicvqa,
    "ocrbench": ocrbench,
}
MAIN_FILE = {
    "textvqa": ("TextVQA_0.5.1_val.json", "data"),
    "stvqa": ("train_task_1.json", "data"),
    "chartqa": ("test/test_augmented.json", None),
    "okvqa": ("mscoco_val2014_annotations.json", "annotations"),
    "docvqa": ("spdocvqa_qas/val_v1.0_withQT.json", "data"),
    "infographicvqa": ("infographicsvqa_qas/infographicsVQA_val_v1.0_withQT.json", "data"),
    "ocrbench": ("OCRBench/OCRBench.json", None),
}


@pytest.fixture(params=TASKS)
def release(request, tmp_path):
    """A task, and a folder that holds its benchmark as released."""
    folder = tmp_path / "benchmark"
    WRITERS[request.param](folder)
    return load_task(request.param), folder


def test_every_prompt_is_the_one_that_the_embedded_models_know():
    sentences = {
        "textvqa": "Write one question about the words or numbers that can be read in this image, "
        "and its answer in a single word or phrase.",
        "stvqa": "Write one question that can only be answered by reading the text in this scene, such as "
        "a sign, a shop or a vehicle, and its answer in a single word or phrase.",
        "chartqa": "Write one question about the data in this chart, and its answer as a number, a word or yes or no.",
        "okvqa": "Write one question about this image that needs knowledge from outside the picture, "
        "and its answer in a single word or phrase.",
    }
    for name, sentence in sentences.items():
        task = load_task(name, kinds=False)
        assert task.annotate_prompt == f"{sentence}\n{FORM}"
        assert task.answer_prompt == "{question}\nAnswer the question using a single word or phrase."


def test_each_task_has_the_metric_that_papers_report():
    names = {name: load_task(name).metric.name for name in (*TASKS, "chartqapro", "realworldqa")}
    assert names == {
        "textvqa": "textvqa_accuracy",
        "stvqa": "anls",
        "chartqa": "chartqa_relaxed_accuracy",
        "okvqa": "vqa_accuracy_official",
        "docvqa": "docvqa_anls",
        "infographicvqa": "docvqa_anls",
        "ocrbench": "ocrbench_accuracy",
        "chartqapro": "chartqapro_relaxed_accuracy",
        "realworldqa": "realworldqa_accuracy",
    }


def test_the_form_asked_for_is_the_form_that_is_read():
    filled = FORM.replace("<your question>", "What is sold?").replace("<your answer>", "tea")
    assert read_pair(filled.partition("only. ")[2]) == ParsedPair("What is sold?", "tea")


def test_a_question_with_braces_goes_into_the_prompt_as_it_is():
    assert load_task("okvqa").answer_prompt.format(question="{x} {0}?").startswith("{x} {0}?\n")


def test_a_release_is_read_in_its_order_with_existing_images(release):
    task, folder = release
    questions, left_out = read(task, folder)
    assert not left_out
    found = [(q.question_id, q.question, q.answers[0], q.subset) for q in questions]
    assert (
        found
        == {
            "textvqa": [("34602", "what is sold?", "tea", ""), ("34603", "how much?", "5", "")],
            "stvqa": [("1", "Which shop?", "Corner Bakery", ""), ("2", "Which bus?", "12", "")],
            "chartqa": [
                ("human-0", "How many?", "14", "human"),
                ("human-1", "Is it?", "Yes", "human"),
                ("augmented-0", "What share?", "62", "augmented"),
            ],
            "okvqa": [("2971475", "What sport?", "race", ""), ("425", "Who made it?", "ford", "")],
            "docvqa": [("49153", "What is the total?", "0.28", ""), ("24580", "Who signs?", "J. Smith", "")],
            "infographicvqa": [
                ("98313", "Which platforms?", "pinterest, facebook", ""),
                ("98314", "How many?", "4", ""),
            ],
            "ocrbench": [
                ("0", "what is written in the image?", "CENTRE", "text_recognition"),
                ("1", "Which formula?", "x ^ { 2 }", "formulas"),
            ],
        }[task.name]
    )
    assert [len(q.answers) for q in questions] == {
        "textvqa": [10, 10],
        "stvqa": [1, 2],
        "chartqa": [1] * 3,
        "okvqa": [10, 10],
        "docvqa": [2, 1],
        "infographicvqa": [2, 1],
        "ocrbench": [1, 1],
    }[task.name]
    assert [q.exact for q in questions if q.exact] == ([(True,)] if task.name == "ocrbench" else [])


def test_outer_spaces_of_references_are_left_to_the_metric(tmp_path):
    textvqa(tmp_path)
    assert read(load_task("textvqa"), tmp_path).questions[0].answers[9] == " te a "


def test_the_folder_around_the_chartqa_release_will_do(tmp_path):
    chartqa(tmp_path / "ChartQA Dataset")
    assert len(read(load_task("chartqa"), tmp_path).questions) == 3
    assert len(read(load_task("chartqa"), tmp_path / "ChartQA Dataset").questions) == 3


def refusal(task, test, **choices) -> str:
    with pytest.raises(UserError) as caught:
        read(task, test, **choices)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_a_missing_folder_and_a_missing_file_are_named(release):
    task, folder = release
    name, _ = MAIN_FILE[task.name]
    assert str(folder / "elsewhere") in refusal(task, folder / "elsewhere")
    (folder / name).unlink()
    assert str(folder / name) in refusal(task, folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{broken", "is not JSON"),
        ("\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('"text"', "expected"),
        ({"rows": [], "info": 1}, "found an object with the keys 'rows', 'info'"),
        ([[1]], "expected|should be an object"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_what_was_expected_and_found(release, content, said):
    task, folder = release
    name, _ = MAIN_FILE[task.name]
    write(folder / name, content)
    message = refusal(task, folder)
    assert str(folder / name) in message and re.search(said, message)


@pytest.mark.parametrize("name", ["textvqa", "stvqa", "okvqa", "docvqa", "infographicvqa"])
def test_rows_without_the_object_around_them_are_no_release(name, tmp_path):
    WRITERS[name](tmp_path)
    path, key = MAIN_FILE[name]
    write(tmp_path / path, rows_of(tmp_path, name)[1])
    assert f"expected an object with a list under '{key}', found a list of 2" in refusal(load_task(name), tmp_path)


def rows_of(folder, name):
    path, key = MAIN_FILE[name]
    content = json.loads((folder / path).read_text())
    return content, content[key] if key else content


def rewrite(folder, name, change):
    """Writes the task's main file again after `change` was made to the list of its rows."""
    content, rows = rows_of(folder, name)
    change(rows)
    write(folder / MAIN_FILE[name][0], content)


def test_an_empty_split_is_refused(release):
    task, folder = release
    rewrite(folder, task.name, lambda rows: rows.clear())
    assert "is empty: it has no rows" in refusal(task, folder)


def test_a_row_that_is_no_object_is_refused_with_its_place(release):
    task, folder = release
    rewrite(folder, task.name, lambda rows: rows.insert(0, "text"))
    assert '[0] should be an object, but is "text"' in refusal(task, folder)


KEY = {name: "label" if name == "chartqa" else "answers" for name in TASKS}
IMAGE = {"chartqa": "imgname", "stvqa": "file_path", "docvqa": "image", "infographicvqa": "image_local_name"}
IMAGE |= {"textvqa": "image_id", "okvqa": "image_id", "ocrbench": "image_path"}


@pytest.mark.parametrize("value", [{"a": 1}, True, [["x"]], "\ud800"])
def test_misshapen_answers_are_refused_with_their_place(release, value):
    task, folder = release
    rewrite(folder, task.name, lambda rows: rows[0].update({KEY[task.name]: value}))
    assert f"[0]: '{KEY[task.name]}'" in refusal(task, folder)


@pytest.mark.parametrize("value", [None, [None], []])
def test_a_question_without_answers_is_left_out_and_counted_as_far_as_that_is_allowed(release, value):
    task, folder = release
    rewrite(folder, task.name, lambda rows: rows[0].update({KEY[task.name]: value}))
    everything = len(task.benchmark.read_test(folder))
    assert f"1 of {everything} questions cannot be scored" in refusal(task, folder)
    assert "no_answers" in refusal(task, folder) and f"'tasks.{task.name}.missing'" in refusal(task, folder)
    split = read(task, folder, missing=0.6)
    assert [each.reason for each in split.left_out] == ["no_answers"]
    assert len(split.questions) == everything - 1


@pytest.mark.parametrize("name", ["textvqa", "okvqa"])
def test_ten_annotators_are_ten(name, tmp_path):
    WRITERS[name](tmp_path)
    rewrite(tmp_path, name, lambda rows: rows[1]["answers"].pop())
    assert "not_10_answers" in refusal(load_task(name), tmp_path)
    (left_out,) = read(load_task(name), tmp_path, missing=0.5).left_out
    assert (left_out.reason, left_out.detail) == ("not_10_answers", "9 answers")


def pictures_in(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))


def test_a_file_that_is_no_picture_is_told_from_one_that_is_missing(release):
    task, folder = release
    pictures = pictures_in(folder)
    pictures[0].write_text("no picture")
    split = read(task, folder, missing=0.7) if len(pictures) > 1 else None
    assert split is None or {each.reason for each in split.left_out} == {"not_an_image"}
    assert "not_an_image" in refusal(task, folder)


def test_a_row_whose_image_or_question_is_null_is_left_out_and_the_file_is_read(release, monkeypatch):
    task, folder = release
    monkeypatch.setitem(MAIN_FILE, "okvqa", ("OpenEnded_mscoco_val2014_questions.json", "questions"))
    asked = "query" if task.name == "chartqa" else "question"
    for key, reason in ((IMAGE[task.name], "missing_image"), (asked, "no_question")):
        before = rows_of(folder, task.name)[1][0][key]
        rewrite(folder, task.name, lambda rows, key=key: rows[0].update({key: None}))
        assert reason in refusal(task, folder)
        rewrite(folder, task.name, lambda rows, key=key, before=before: rows[0].update({key: before}))
    assert not read(task, folder).left_out


def test_where_nothing_can_be_scored_no_share_helps(tmp_path):
    textvqa(tmp_path)
    (tmp_path / "train_images/0a1b.jpg").unlink()
    message = refusal(load_task("textvqa"), tmp_path, missing=0.99)
    assert "2 of 2 questions" in message and "Use a labelled split" in message


def test_a_row_without_answers_is_refused_with_the_keys_it_has(release):
    task, folder = release
    rewrite(folder, task.name, lambda rows: rows[0].pop(KEY[task.name]))
    message = refusal(task, folder)
    assert f"[0] has no '{KEY[task.name]}'" in message and "its keys are" in message


@pytest.mark.parametrize("name", ["textvqa", "stvqa", "okvqa", "docvqa", "infographicvqa"])
def test_an_id_that_is_given_twice_is_named(name, tmp_path):
    WRITERS[name](tmp_path)
    key = "questionId" if name in ("docvqa", "infographicvqa") else "question_id"
    repeated = str(rows_of(tmp_path, name)[1][0][key])
    rewrite(tmp_path, name, lambda rows: rows.append({**rows[0], key: repeated}))
    assert repeated in refusal(load_task(name), tmp_path)


def test_images_that_are_missing_are_named_and_counted(release):
    task, folder = release
    question = read(task, folder).questions[-1]
    for picture in pictures_in(folder):
        picture.unlink()
    message = refusal(task, folder)
    assert "missing" in message and question.image in message


def test_many_missing_images_are_counted_and_not_all_listed(tmp_path):
    chartqa(tmp_path)
    rows = [{"imgname": f"{n}.png", "query": "x?", "label": "1"} for n in range(9)]
    write(tmp_path / "test/test_human.json", rows)
    message = refusal(load_task("chartqa"), tmp_path)
    assert "0.png" in message and "and 6 more" in message and "8.png" not in message


def test_okvqa_files_of_two_releases_are_refused(tmp_path):
    okvqa(tmp_path)
    rewrite(tmp_path, "okvqa", lambda rows: rows.pop())
    message = refusal(load_task("okvqa"), tmp_path)
    assert "2971475" in message and "only one of" in message


def test_an_okvqa_image_id_must_be_a_coco_number(tmp_path):
    okvqa(tmp_path)
    questions = tmp_path / "OpenEnded_mscoco_val2014_questions.json"
    write(questions, questions.read_text().replace('"42"', '"a1"'))
    assert "'a1'" in refusal(load_task("okvqa"), tmp_path)


def test_older_folders_of_docvqa_and_infographicvqa_are_read_too(tmp_path):
    docvqa(tmp_path / "new")
    for place in ("documents", "val/documents"):
        old = tmp_path / place.partition("/")[0] / "old"
        shutil.copytree(tmp_path / "new/spdocvqa_images", old / place)
        shutil.copy(tmp_path / "new/spdocvqa_qas/val_v1.0_withQT.json", old / "val_v1.0.json")
        assert [Path(q.image).parent for q in read(load_task("docvqa"), old).questions] == [old / place] * 2
    infographicvqa(tmp_path / "other")
    (tmp_path / "other/infographicsvqa_images").rename(tmp_path / "other/images")
    (tmp_path / "other/infographicsvqa_qas/infographicsVQA_val_v1.0_withQT.json").rename(
        tmp_path / "other/infographicsVQA_val_v1.0.json"
    )
    assert len(read(load_task("infographicvqa"), tmp_path / "other").questions) == 2


def test_a_type_of_question_that_ocrbench_does_not_have_is_refused_with_those_it_has(tmp_path):
    ocrbench(tmp_path)
    rewrite(tmp_path, "ocrbench", lambda rows: rows[1].update({"type": "Chess"}))
    message = refusal(load_task("ocrbench"), tmp_path)
    assert "'type' is 'Chess'" in message and "'Key Information Extraction'" in message


def test_a_file_that_begins_with_a_byte_order_mark_is_read(release):
    task, folder = release
    path = folder / MAIN_FILE[task.name][0]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(task, folder).questions


def test_a_folder_moved_elsewhere_gives_the_same_questions(release, tmp_path):
    task, folder = release
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    before, after = read(task, folder).questions, read(task, moved).questions
    assert [q.model_copy(update={"image": ""}) for q in before] == [q.model_copy(update={"image": ""}) for q in after]


@pytest.mark.parametrize("name", ["../../private", "/etc/passwd", "icdar/../../private.png"])
def test_an_image_name_that_leads_out_of_a_release_is_refused(tmp_path, name):
    row = {"question_id": 1, "file_path": name, "question": "Which?", "answers": ["a"]}
    write(tmp_path / "train_task_1.json", {"data": [row]})
    with pytest.raises(UserError, match="leads out of the folder"):
        read_split(load_task("stvqa"), TaskData(images="pool", test=str(tmp_path)), tmp_path, mute)
