"""Test splits: Hugging Face copies, files of one's own, the parts that are chosen, and what a run keeps of them."""

import io
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from makers import artifact, draw, mute
from parityalign.config.schema import TaskData
from parityalign.core.errors import UserError
from parityalign.core.records import Question
from parityalign.data import hf_datasets
from parityalign.data.questions import split_state
from parityalign.data.test_splits import keep_split, kept_left_out, kept_questions, read_split
from parityalign.metrics import textvqa_accuracy, vqa_accuracy_official
from parityalign.tasks import load_task
from parityalign.tasks.benchmarks.stvqa import is_held_out
from projects import WORDS, configure, done, refusal

datasets = pytest.importorskip("datasets")

TEN = ["tea"] * 10
COPIES = {
    "textvqa": {
        "image_id": ["0a1b", "0a1c"],
        "question_id": [34602, 34603],
        "question": ["what is sold?", "how much?"],
        "question_tokens": [["what"], ["how"]],
        "image_width": [16, 16],
        "image_height": [16, 16],
        "flickr_original_url": ["", ""],
        "flickr_300k_url": ["", ""],
        "answers": [TEN, ["5"] * 10],
        "image_classes": [["Sign"], []],
        "set_name": ["val", "val"],
        "ocr_tokens": [["tea"], []],
    },
    "stvqa": {
        "path": ["coco-text/a.jpg", "icdar/b.jpg"],
        "question": ["Which shop?", "Which bus?"],
        "dictionary": [["a"], ["b"]],
        "answer": [["Corner Bakery"], ["12", "Twelve"]],
    },
    "chartqa": {
        "query": ["How many?", "What share?"],
        "label": [["14"], ["62"]],
        "human_or_machine": [0, 1],
    },
    "chartqa of lmms-lab": {
        "type": ["human_test", "augmented_test"],
        "question": ["How many?", "What share?"],
        "answer": ["14", "62"],
    },
    "okvqa": {
        "question_id": ["2971475", "425"],
        "question": ["What sport?", "Who made it?"],
        "answers": [["race"] * 10, ["ford"] * 10],
        "question_type": ["one", "other"],
        "answer_type": ["other", "other"],
    },
    "okvqa of HuggingFaceM4": {
        "question_id": [2971475, 425],
        "image_id": [297147, 42],
        "question": ["What sport?", "Who made it?"],
        "answers": [
            [{"answer": text, "raw_answer": f"{text}ing", "answer_id": n} for n in range(10)]
            for text in ("race", "ford")
        ],
    },
    "docvqa": {
        "questionId": ["49153", "24580"],
        "question": ["What is the total?", "Who signs?"],
        "question_types": [["table/list"], ["handwritten"]],
        "docId": [14465, 2],
        "ucsf_document_id": ["pybv0228", "xnbl0037"],
        "ucsf_document_page_no": ["81", "1"],
        "answers": [["0.28", "$0.28"], ["J. Smith"]],
        "data_split": ["val", "val"],
    },
    "infographicvqa": {
        "questionId": ["98313", "98314"],
        "question": ["Which platforms?", "How many?"],
        "answers": [["pinterest, facebook"], ["4"]],
        "answer_type": [["multi span"], ["non-extractive"]],
        "image_url": ["https://example.org/a.jpg", ""],
        "operation/reasoning": [[], ["counting"]],
        "ocr": ["{}", "{}"],
        "data_split": ["val", "val"],
    },
    "chartqapro": {
        "Question": [["Which two years?"], ["What is shown?", " And the largest? "]],
        "Answer": [["['2014', '2016']"], ["Sales", "tea"]],
        "Question Type": ["Factoid", "Conversational"],
        "Year": [["YES", "YES"], ["YES", "NO"]],
        "Paragraph": ["Sales of tea grew.", None],
    },
    "realworldqa": {
        "question": ["Which way does the arrow point?\nA. Left\nB. Right", "How many cars are there?"],
        "answer": ["B", "2"],
    },
    "ocrbench": {
        "dataset": ["IIIT5K", "HME100k"],
        "question": ["what is written in the image?", "Which formula?"],
        "question_type": ["Regular Text Recognition", "Handwritten Mathematical Expression Recognition"],
        "answer": [["CENTRE"], ["x ^ { 2 }"]],
    },
}
EXPECTED = {
    "textvqa": [("34602", "what is sold?", "tea", ""), ("34603", "how much?", "5", "")],
    "stvqa": [("0", "Which shop?", "Corner Bakery", ""), ("1", "Which bus?", "12", "")],
    "chartqa": [("human-0", "How many?", "14", "human"), ("augmented-1", "What share?", "62", "augmented")],
    "okvqa": [("2971475", "What sport?", "race", ""), ("425", "Who made it?", "ford", "")],
    "docvqa": [("49153", "What is the total?", "0.28", ""), ("24580", "Who signs?", "J. Smith", "")],
    "infographicvqa": [("98313", "Which platforms?", "pinterest, facebook", ""), ("98314", "How many?", "4", "")],
    "chartqapro": [
        ("0", "Sales of tea grew.\n\nWhich two years?", "['2014', '2016']", "factoid"),
        ("1", "Question: What is shown?\nAnswer: Sales\nQuestion: And the largest?", "tea", "conversational"),
    ],
    "realworldqa": [
        ("0", "Which way does the arrow point?\nA. Left\nB. Right", "B", "choices"),
        ("1", "How many cars are there?", "2", "words"),
    ],
    "ocrbench": [
        ("0", "what is written in the image?", "CENTRE", "text_recognition"),
        ("1", "Which formula?", "x ^ { 2 }", "formulas"),
    ],
}


def picture(colour="red", form="PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, form)
    return file.getvalue()


def copy_of(columns, pictures=None):
    """A data set with the columns of a published copy; the pictures lie in it as bytes."""
    pictures = pictures or [picture("red"), picture("blue", "JPEG")]
    cells = [None if each is None else {"bytes": each, "path": None} for each in pictures]
    return datasets.Dataset.from_dict({**columns, "image": cells}).cast_column("image", datasets.Image())


def parquet(folder, columns, split="test", pictures=None):
    folder.mkdir(parents=True, exist_ok=True)
    copy_of(columns, pictures).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def read(task, test, folder, **choices):
    data = TaskData(images="pool", test=str(test), **choices)
    return read_split(load_task(task), data, folder / "images", mute)


def whole(name) -> dict[str, str]:
    return {"subset": "whole"} if name == "stvqa" else {}


# Hugging Face copies


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_with_its_published_columns_gives_the_questions_of_the_release(name, tmp_path):
    task = name.partition(" ")[0]
    folder = parquet(tmp_path / "copy", COPIES[name])
    questions, left_out = read(task, folder, tmp_path, **whole(task))
    assert [(q.question_id, q.question, q.answers[0], q.subset) for q in questions] == EXPECTED[task]
    assert {len(q.answers) for q in questions} <= ({10} if load_task(task).benchmark.annotators else {1, 2})
    assert not left_out


def test_years_and_formulas_are_kept_as_answers_that_have_to_be_met_exactly(tmp_path):
    pro = read("chartqapro", parquet(tmp_path / "pro", COPIES["chartqapro"]), tmp_path).questions
    bench = read("ocrbench", parquet(tmp_path / "bench", COPIES["ocrbench"]), tmp_path).questions
    assert [q.exact for q in (*pro, *bench)] == [(True, True), (), (), (True,)]
    metric = load_task("chartqapro").metric
    assert metric.on_question("[2014, 2017]", pro[0].answers, pro[0].exact).value == 0.5
    assert metric.on_question("[2014, 2017]", pro[0].answers).value == 1


def test_questions_without_exact_answers_are_kept_in_the_bytes_that_they_had_before_there_were_any():
    plain = Question(question_id="1", image="a.png", question="Sold?", answers=("tea",))
    assert plain.model_dump_json() == (
        '{"question_id":"1","image":"a.png","question":"Sold?","answers":["tea"],"subset":""}'
    )
    year = plain.model_copy(update={"exact": (True,)})
    assert Question.model_validate_json(year.model_dump_json()) == year


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Question Type": ["Factoid", "Riddle"]}, "'Question Type' is 'Riddle'; known are 'Factoid'"),
        ({"Year": None}, "has no 'Year'; its keys are 'Question', 'Answer'"),
    ],
)
def test_chartqapro_of_another_form_is_refused_with_what_was_found(tmp_path, change, said):
    columns = {key: values for key, values in {**COPIES["chartqapro"], **change}.items() if values}
    with pytest.raises(UserError, match=said):
        read("chartqapro", parquet(tmp_path / "copy", columns), tmp_path)


def test_realworldqa_of_another_form_is_refused_with_what_was_found(tmp_path):
    columns = {"question": ["Left?"], "ground_truth": ["B"]}
    with pytest.raises(UserError, match="has no 'answer'; its keys are .*'ground_truth'"):
        read("realworldqa", parquet(tmp_path / "copy", columns, pictures=[picture()]), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no Parquet files.*hf:xai-org/RealworldQA"):
        read("realworldqa", tmp_path / "empty", tmp_path)


def test_chartqapro_is_released_as_parquet_alone(tmp_path):
    with pytest.raises(UserError, match="no Parquet files.*hf:ahmed-masry/ChartQAPro"):
        read("chartqapro", tmp_path, tmp_path)


def test_of_several_data_sets_in_one_the_benchmarks_own_is_read_and_another_on_request(tmp_path):
    folder = tmp_path / "both"
    for config, task in (("DocVQA", "docvqa"), ("InfographicVQA", "infographicvqa")):
        parquet(folder / config, COPIES[task], "validation")
    parquet(folder / "DocVQA", {key: values[:1] for key, values in COPIES["docvqa"].items()}, "test", [picture()])
    files = {"DocVQA": ("validation", "test"), "InfographicVQA": ("validation",)}
    paths = {
        name: [{"split": split, "path": f"{name}/{split}-*"} for split in splits] for name, splits in files.items()
    }
    said = {"configs": [{"config_name": name, "data_files": paths[name]} for name in files]}
    (folder / "README.md").write_text(f"---\n{json.dumps(said)}\n---\n")
    assert [q.question_id for q in read("docvqa", folder, tmp_path).questions] == ["49153", "24580"]
    assert [q.question_id for q in read("infographicvqa", folder, tmp_path).questions] == ["98313", "98314"]
    assert len(read("docvqa", f"hf:{folder}:test", tmp_path).questions) == 1
    assert len(read("docvqa", f"hf:{folder}:InfographicVQA/validation", tmp_path).questions) == 2
    with pytest.raises(UserError, match=r"no configuration 'DocVQ'. Did you mean DocVQA"):
        read("docvqa", f"hf:{folder}:DocVQ/test", tmp_path)


def test_pictures_are_written_once_as_the_bytes_they_were_under_the_hash_of_their_content(tmp_path):
    red = picture()
    folder = parquet(tmp_path / "copy", COPIES["chartqa"], pictures=[red, red])
    first, second = read("chartqa", folder, tmp_path).questions
    assert first.image == second.image and first.image.endswith(".png")
    written = [path for path in (tmp_path / "images").iterdir()]
    assert [path.read_bytes() for path in written] == [red]


def test_a_folder_that_save_to_disk_wrote_is_read_too(tmp_path):
    parts = datasets.DatasetDict({"train": copy_of(COPIES["textvqa"]), "validation": copy_of(COPIES["textvqa"])})
    parts.save_to_disk(tmp_path / "saved")
    assert len(read("textvqa", tmp_path / "saved", tmp_path).questions) == 2
    assert len(read("textvqa", f"hf:{tmp_path / 'saved'}:train", tmp_path).questions) == 2
    copy_of(COPIES["okvqa"]).save_to_disk(tmp_path / "one")
    assert len(read("okvqa", tmp_path / "one", tmp_path).questions) == 2


def test_the_labelled_split_of_the_benchmark_is_taken_and_another_on_request(tmp_path):
    folder = parquet(tmp_path / "copy", COPIES["textvqa"], "validation")
    parquet(folder, {key: values[:1] for key, values in COPIES["textvqa"].items()}, "train", [picture()])
    assert len(read("textvqa", folder, tmp_path).questions) == 2
    assert len(read("textvqa", f"hf:{folder}:train", tmp_path).questions) == 1
    with pytest.raises(UserError, match=r"no split 'vallidation'. Did you mean validation"):
        read("textvqa", f"hf:{folder}:vallidation", tmp_path)
    with pytest.raises(UserError, match="has the splits train, validation; say which"):
        read("chartqa", folder, tmp_path)


def test_a_copy_without_answers_is_refused_with_the_columns_it_has(tmp_path):
    columns = {key: values for key, values in COPIES["stvqa"].items() if key != "answer"}
    folder = parquet(tmp_path / "copy", columns)
    with pytest.raises(UserError, match="row 0 has no 'answer'; its keys are 'path', 'question', 'dictionary'"):
        read("stvqa", folder, tmp_path, subset="whole")


def test_rows_without_a_picture_and_with_a_broken_one_are_counted(tmp_path):
    folder = parquet(tmp_path / "copy", COPIES["okvqa"], pictures=[None, b"no picture"])
    with pytest.raises(UserError, match=r"2 of 2(.|\n)*1: 2971475(.|\n)*not_an_image: 1: 425"):
        read("okvqa", folder, tmp_path, missing=0.9)


def test_without_network_the_way_out_is_named(tmp_path, monkeypatch):
    def unreachable(name, config):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(UserError, match=r"(?s)lmms-lab/OK-VQA.*network.*name the folder: hf:./folder"):
        read("okvqa", "hf:lmms-lab/OK-VQA", tmp_path)


def test_without_the_package_the_line_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_datasets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'parityalign\[datasets\]'"):
        read("okvqa", "hf:lmms-lab/OK-VQA", tmp_path)


def test_reading_a_release_needs_no_data_set_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    own(tmp_path)
    assert read("okvqa", tmp_path / "mine.jsonl", tmp_path, metric="anls").questions


# Files of one's own


def own(folder, *rows):
    draw(folder / "pictures/a.png")
    rows = rows or ({"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "Tea"]},)
    (folder / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n\n" for row in rows))
    return folder / "mine.jsonl"


def test_lines_of_ones_own_need_an_image_a_question_and_answers(tmp_path):
    path = own(
        tmp_path,
        {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "Tea"]},
        {"image": str(tmp_path / "pictures/a.png"), "question": "Who?", "answers": ["x", "y"], "question_id": 7},
    )
    image = str(tmp_path / "pictures/a.png")
    assert read("stvqa", path, tmp_path).questions == [
        Question(question_id="0", image=image, question="Sold?", answers=("tea", "Tea")),
        Question(question_id="7", image=image, question="Who?", answers=("x", "y")),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "line 1 is not JSON"),
        ("[1]", "line 1 should be an object"),
        ('{"image": "pictures/a.png"}', "line 1 has no 'question'; its keys are 'image'"),
        ('{"image": "pictures/a.png", "question": null, "answers": []}', "no_question: 1: 0"),
        ("", "is empty: it has no rows"),
    ],
)
def test_a_line_that_is_no_question_is_refused_by_its_number(tmp_path, line, said):
    own(tmp_path).write_text(line)
    with pytest.raises(UserError, match=said):
        read("textvqa", tmp_path / "mine.jsonl", tmp_path)


def test_a_lone_answer_cannot_be_scored_by_a_metric_that_compares_annotators(tmp_path):
    path = own(tmp_path, {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea"]})
    with pytest.raises(UserError, match=r"(?s)lone_answer: 1.*set 'metric', such as anls"):
        read_split(load_task("textvqa"), TaskData(images="pool", test=str(path)), tmp_path, mute)
    assert read("stvqa", path, tmp_path).questions


def test_ids_that_are_given_twice_are_refused_whether_number_or_text(tmp_path):
    row = {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "tea"]}
    path = own(tmp_path, {**row, "question_id": 7}, {**row, "question_id": "7"})
    with pytest.raises(UserError, match="more than one question: 7"):
        read("textvqa", path, tmp_path)


def test_a_combined_file_of_the_first_release_finds_its_images_by_base_name(tmp_path):
    draw(tmp_path / "val2014/COCO_val2014_000000297147.jpg")
    row = {"image_id": 297147, "question": "What sport?", "question_id": 2971475, "answers": ["race"] * 10}
    (tmp_path / "okvqa_val_combine.json").write_text(json.dumps([row]))
    (question,) = read("okvqa", tmp_path / "okvqa_val_combine.json", tmp_path).questions
    assert question.image == str(tmp_path / "val2014/COCO_val2014_000000297147.jpg")
    draw(tmp_path / "again/COCO_val2014_000000297147.jpg")
    with pytest.raises(UserError, match="is meant"):
        read("okvqa", tmp_path / "okvqa_val_combine.json", tmp_path)


def test_one_row_without_an_image_or_a_question_leaves_the_others_alone(tmp_path):
    row = {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "tea"]}
    path = own(tmp_path, row, {**row, "image": None}, {**row, "question": None})
    split = read("okvqa", path, tmp_path, missing=0.7)
    assert [question.question_id for question in split.questions] == ["0"]
    assert [(each.question_id, each.reason) for each in split.left_out] == [
        ("1", "missing_image"),
        ("2", "no_question"),
    ]
    assert split_state(load_task("okvqa"), str(path))


def test_an_image_that_begins_well_but_is_cut_off_is_left_out_with_what_the_decoder_said(tmp_path):
    row = {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "tea"]}
    path = own(tmp_path, row, {**row, "image": "pictures/b.jpg"})
    torn = tmp_path / "pictures/b.jpg"
    torn.write_bytes(draw(torn, size=(200, 200)).read_bytes()[:700])
    (left_out,) = read("okvqa", path, tmp_path, missing=0.5).left_out
    assert left_out.reason == "not_an_image" and f"{torn}: truncated (" in left_out.detail
    folder = parquet(tmp_path / "copy", COPIES["okvqa"], pictures=[picture(), torn.read_bytes()])
    (left_out,) = read("okvqa", folder, tmp_path, missing=0.5).left_out
    assert left_out.reason == "not_an_image" and left_out.detail.startswith("truncated (")


@pytest.mark.parametrize("image", ["x" * 5000, "a\0b.png"])
def test_a_path_that_no_file_can_have_is_a_missing_image(tmp_path, image):
    row = {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", "tea"]}
    path = own(tmp_path, row, {**row, "image": image})
    assert [each.reason for each in read("okvqa", path, tmp_path, missing=0.5).left_out] == ["missing_image"]
    assert split_state(load_task("okvqa"), str(path))


def test_a_copy_that_names_its_pictures_means_files_in_its_own_folder(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "copy"
    for place, colour in ((folder, "red"), (elsewhere, "blue")):
        draw(place / "pictures/a.png", colour)
    monkeypatch.chdir(elsewhere)
    columns = {key: values[:1] for key, values in COPIES["okvqa"].items()}
    table = pyarrow.table({**columns, "image": [{"bytes": None, "path": "pictures/a.png"}]})
    pyarrow.parquet.write_table(table, folder / "test-00000-of-00001.parquet")
    (question,) = read("okvqa", folder, tmp_path).questions
    assert question.image == str(folder / "pictures/a.png")


@pytest.mark.parametrize("path", ["../private.png", "/etc/passwd", "pictures/link.png", "zip://a.png::/etc/a.zip"])
def test_a_copy_reaches_only_pictures_that_belong_to_it(tmp_path, path):
    folder = tmp_path / "copy"
    draw(folder / "pictures/a.png")
    draw(tmp_path / "private.png", "blue")
    (folder / "pictures/link.png").symlink_to(tmp_path / "private.png")
    cells = [{"bytes": None, "path": "pictures/a.png"}, {"bytes": None, "path": path}]
    pyarrow.parquet.write_table(pyarrow.table({**COPIES["okvqa"], "image": cells}), folder / "test.parquet")
    split = read("okvqa", folder, tmp_path, missing=0.5)
    assert [question.question_id for question in split.questions] == ["2971475"]
    assert [(each.question_id, each.reason) for each in split.left_out] == [("425", "outside_folder")]


def test_a_picture_may_be_plain_bytes_or_the_name_of_a_file(tmp_path):
    folder = tmp_path / "copy"
    draw(folder / "a.png")
    for cells in ([picture(), picture("blue")], ["a.png", "a.png"]):
        pyarrow.parquet.write_table(pyarrow.table({**COPIES["okvqa"], "image": cells}), folder / "test.parquet")
        assert len(read("okvqa", folder, tmp_path).questions) == 2


@pytest.mark.parametrize("blank", [[""] * 10, [" ", "\n"] * 5, [], "['']", "[]"])
def test_blank_answers_are_no_answers(tmp_path, blank):
    row = {"image": "pictures/a.png", "question": "Sold?", "answers": ["tea", ""]}
    path = own(tmp_path, row, {**row, "answers": blank}, {**row, "question": " \t"})
    split = read("okvqa", path, tmp_path, missing=0.7)
    assert [question.answers for question in split.questions] == [("tea", "")]
    assert [each.reason for each in split.left_out] == ["no_answers", "no_question"]


def test_ids_and_prices_in_a_column_of_floats_are_what_they_were(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    columns = {**COPIES["textvqa"], "question_id": [34602.0, 34603.0], "answers": [["12"] * 10, ["5"] * 10]}
    pyarrow.parquet.write_table(
        pyarrow.table({**columns, "image": [picture(), picture()]}), folder / "validation.parquet"
    )
    assert [question.question_id for question in read("textvqa", folder, tmp_path).questions] == ["34602", "34603"]


def test_a_test_split_may_lie_among_folders_a_thousand_deep(tmp_path):
    folder = parquet(tmp_path / "copy", COPIES["okvqa"])
    before = split_state(load_task("okvqa"), str(folder))
    here = folder / "a"
    for _ in range(100):  # deeper ones are in test_given_files.py
        here.mkdir()
        here = here / "a"
    assert split_state(load_task("okvqa"), str(folder)) == before


# Parts


def scenes(folder, count):
    for number in range(count):
        draw(folder / f"icdar/{number}.png")
    rows = [
        {"question_id": 2 * n + k, "file_path": f"icdar/{n}.png", "question": "Which?", "answers": ["a"]}
        for n in range(count)
        for k in range(2)
    ]
    (folder / "train_task_1.json").write_text(json.dumps({"data": rows}))
    return folder


def test_stvqa_holds_out_a_tenth_of_the_images_with_all_their_questions(tmp_path):
    split = read("stvqa", scenes(tmp_path, 200), tmp_path)
    images = {question.image for question in split.questions}
    assert 8 <= len(images) <= 36 and len(split.questions) == 2 * len(images)
    assert {each.reason for each in split.left_out} == {"outside_subset"}
    assert len(split.questions) + len(split.left_out) == 400
    assert len(read("stvqa", tmp_path, tmp_path, subset="whole").questions) == 400


def test_the_held_out_images_of_stvqa_are_the_documented_ones():
    def asked(number):
        return Question(question_id="1", image=f"anywhere/{number}.jpg", question="?", answers=("a",))

    assert [number for number in range(100) if is_held_out(asked(number))] == [20, 26, 35, 39, 41, 49, 94]
    share = sum(is_held_out(asked(number)) for number in range(20_000)) / 20_000
    assert share == pytest.approx(0.1, abs=0.008)


def test_the_parts_of_chartqa_can_be_read_alone(tmp_path):
    folder = parquet(tmp_path / "copy", COPIES["chartqa"])
    human = read("chartqa", folder, tmp_path, subset="human")
    assert [q.subset for q in human.questions] == ["human"]
    assert [each.reason for each in human.left_out] == ["outside_subset"]
    assert [q.subset for q in read("chartqa", folder, tmp_path, subset="augmented").questions] == ["augmented"]


def test_a_part_that_the_file_does_not_have_is_refused(tmp_path):
    path = own(tmp_path)
    with pytest.raises(UserError, match="no question in the subset 'human'"):
        read("chartqa", path, tmp_path, subset="human")


# In a run folder


def test_a_split_is_read_into_the_run_once(tmp_path):
    folder = parquet(tmp_path / "copy", COPIES["okvqa"], pictures=[picture(), None])
    data = TaskData(images="pool", test=str(folder), missing=0.5)
    task = load_task("okvqa")
    keep_split(artifact(tmp_path / "run", "tests"), task, data, mute)
    again = artifact(tmp_path / "run", "tests")
    for file in folder.iterdir():
        file.unlink()
    keep_split(again, task, data, mute)
    assert [question.question_id for question in kept_questions(again)] == ["2971475"]
    assert kept_left_out(again) == {"missing_image": 1}
    assert again.manifest["counts"] == {"questions": 1, "missing_image": 1}


def test_a_reading_that_was_killed_starts_over(tmp_path):
    made = artifact(tmp_path / "run", "tests")
    (made.path / "questions.jsonl").write_text('{"question_id": "half')
    keep_split(made, load_task("stvqa"), TaskData(images="pool", test=str(own(tmp_path))), mute)
    assert len(kept_questions(made)) == 1


def test_the_state_of_a_split_changes_with_its_questions_and_its_images(tmp_path):
    path, task = own(tmp_path), load_task("stvqa")
    first = split_state(task, str(path))
    assert split_state(task, str(path)) == first
    draw(tmp_path / "pictures/a.png", "blue", (40, 40))
    second = split_state(task, str(path))
    (tmp_path / "pictures/a.png").unlink()
    third = split_state(task, str(path))
    path.write_text(path.read_text().replace("Sold", "Bought"))
    assert len({first, second, third, split_state(task, str(path))}) == 4


def test_the_state_of_a_copy_changes_with_its_files(tmp_path):
    folder, task = parquet(tmp_path / "copy", COPIES["okvqa"]), load_task("okvqa")
    first = split_state(task, f"hf:{folder}:test")
    parquet(folder, {key: values[:1] for key, values in COPIES["okvqa"].items()}, pictures=[picture()])
    assert split_state(task, f"hf:{folder}:test") != first
    assert split_state(task, "hf:lmms-lab/OK-VQA") == split_state(task, "hf:lmms-lab/OK-VQA")


def scores_of(project):
    return json.loads((project / "runs/a/scores.json").read_text())["tasks"]["textvqa"]


@pytest.mark.slow
def test_a_run_scores_ones_own_questions_with_a_metric_of_choice(project, trainable):
    rows = [
        {"image": f"test/train_images/{word}.jpg", "question": "What is shown?", "answers": [word]} for word in WORDS
    ]
    (project / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tasks = {"textvqa": {"images": "pool", "test": "mine.jsonl", "metric": "anls"}}
    output = done("run", configure(project, tasks=tasks), "--details")
    assert scores_of(project)["metric"] == "anls" and scores_of(project)["teacher"]["score"] == 100
    assert scores_of(project)["coverage"] == {"questions": 8, "scored": 8, "not_scored": {}}
    assert "questions in the file" in output
    before = (project / "runs/a/tests/textvqa/manifest.json").stat().st_mtime_ns
    assert "done again" not in done("run", configure(project, tasks=tasks))
    assert (project / "runs/a/tests/textvqa/manifest.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_refuses_missing_images_unless_it_is_told_and_then_shows_how_many(project, trainable):
    (project / f"test/train_images/{WORDS[0]}.jpg").unlink()
    assert "1 of 8 questions cannot be scored" in refusal("run", project / "run.yaml")
    tasks = {"textvqa": {"images": "pool", "test": "test", "missing": 0.2}}
    output = done("run", configure(project, tasks=tasks), "--details")
    assert "1 image missing" in output and "1 image missing" in (project / "runs/a/report.html").read_text()
    assert scores_of(project)["coverage"] == {"questions": 8, "scored": 7, "not_scored": {"missing_image": 1}}
    (left_out,) = map(json.loads, (project / "runs/a/tests/textvqa/left_out.jsonl").read_text().splitlines())
    assert left_out["question_id"] == "0" and WORDS[0] in left_out["detail"]


@pytest.mark.slow
def test_a_metric_that_is_changed_is_also_that_of_identify(project, trainable):
    done("run", project / "run.yaml")
    tasks = {"textvqa": {"images": "pool", "test": "test", "metric": "mpa_substring"}}
    assert "identify: done again: its input metric of textvqa changed" in done("run", configure(project, tasks=tasks))
    assert scores_of(project)["metric"] == "mpa_substring"


@pytest.mark.slow
def test_a_run_keeps_the_images_of_a_copy_as_files(project):
    replies = json.loads((project / "teacher.json").read_text())["replies"]
    for model in ("teacher.json", "student.json"):  # who know the same, so that nothing is to be trained
        (project / model).write_text(json.dumps({"replies": [*replies, {"image": "*", "text": "tea"}]}))
    pictures = [(project / f"test/train_images/{word}.jpg").read_bytes() for word in WORDS[:2]]
    folder = parquet(project / "copy", COPIES["textvqa"], pictures=pictures)
    tasks = {"textvqa": {"images": "pool", "test": f"hf:./{folder.name}"}}
    done("run", configure(project, tasks=tasks))
    assert scores_of(project)["n"] == 2
    written = {path.read_bytes() for path in (project / "runs/a/tests/textvqa/images").iterdir()}
    assert written == set(pictures)


# What docs/benchmarks.md says


def test_the_table_of_disagreements_says_what_the_metrics_do():
    table = (Path(__file__).parent.parent / "docs/benchmarks.md").read_text().partition("disagree on one answer")[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if " x" in line]
    assert len(cells) == 6
    for prediction, references, official, evalai, *_ in cells:
        parts = re.findall(r'"?([^",][^"]*?)"? x(\d+)(?:, )?', references)
        answers = [answer for answer, count in parts for _ in range(int(count))]
        answers += [f"filler{number}" for number in range(10 - len(answers))]
        assert vqa_accuracy_official(prediction, answers).value == pytest.approx(float(official)), prediction
        assert textvqa_accuracy(prediction, answers).value == pytest.approx(float(evalai)), prediction
