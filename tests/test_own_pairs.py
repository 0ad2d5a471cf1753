"""Pairs of one's own in a run: from a file of any form to verdicts; what cannot be used is counted, with its reason."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

import parityalign as pa
from asking import Asked, word
from makers import content, draw, mute, speckle
from parityalign.core import UserError, VerdictKind
from parityalign.pipeline import run as run_module
from parityalign.pipeline import run_models

NUMBERS = range(1, 7)
VERDICTS = {1: "teacher_only", 2: "student_right", 3: "teacher_only", 4: "student_right", 5: "teacher_only"}
VERDICTS |= {6: "student_right"}


@pytest.fixture
def asked(monkeypatch):
    asked = Asked()
    monkeypatch.setattr(run_models, "load_model", asked.load)
    monkeypatch.setattr(run_module, "leveller", asked.leveller)
    return asked


@pytest.fixture
def project(tmp_path):
    for number in NUMBERS:
        speckle(tmp_path / "photos" / f"{number}.png", seed=number)
    for name in ("teacher", "student"):
        (tmp_path / f"{name}.json").write_text(name)
    return tmp_path


def rows(numbers=NUMBERS, **more):
    return [
        {"pair_id": f"n{n}", "image": f"photos/{n}.png", "question": f"What is {n}?", "answer": word(n), **more}
        for n in numbers
    ]


def lines(path, said):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in said))
    return path.name


def opened(folder, pairs, task=None, **changes):
    said = {
        "run": "runs/a",
        "teacher": "fake:teacher.json",
        "student": "fake:student.json",
        "tasks": {"signs": {"skill": "vqa", **({"pairs": pairs} if pairs else {}), **(task or {})}},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    return pa.open_run(folder / "run.yaml", progress=mute)


def judged(folder, pairs, **changes):
    """The verdicts on the questions about numbers."""
    run = opened(folder, pairs, **changes).upto("identify")
    return {int(pair.question[8:-1]): verdict.verdict.value for pair, verdict in run.judged}


def counts(run, stage="annotate"):
    return next(outcome.counts for outcome in run.outcomes if outcome.stage == stage)


# The forms


def as_json(folder):
    (folder / "mine.json").write_text(json.dumps(rows()))
    return "mine.json"


def as_lines(folder):
    return lines(folder / "mine.jsonl", rows())


def as_csv(folder, suffix="csv", delimiter=","):
    with (folder / f"mine.{suffix}").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.DictWriter(file, ["pair_id", "image", "question", "answer"], delimiter=delimiter)
        table.writeheader()
        table.writerows(rows())
    return f"mine.{suffix}"


def as_tsv(folder):
    return as_csv(folder, "tsv", "\t")


def as_sharegpt(folder):
    said = [
        {
            "id": row["pair_id"],
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": f"<image>\n{row['question']}"},
                {"from": "gpt", "value": row["answer"]},
            ],
        }
        for row in rows()
    ]
    (folder / "data.json").write_text(json.dumps(said))
    return "data.json"


def as_messages(folder):
    def talk(row):
        parts = [{"type": "image"}, {"type": "text", "text": row["question"]}]
        return [{"role": "user", "content": parts}, {"role": "assistant", "content": row["answer"]}]

    said = [{"images": [row["image"]], "messages": [{"role": "system", "content": "x"}, *talk(row)]} for row in rows()]
    return lines(folder / "talk.jsonl", said)


def as_trl(folder):
    said = [
        {
            "images": [str(folder / row["image"])],
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in rows()
    ]
    return lines(folder / "trl.jsonl", said)


def as_first_release(folder):
    said = [
        {
            "question_id": row["pair_id"],
            "image_path": f"/container/{row['image']}",
            "predicted_question": row["question"],
            "predicted_answer": row["answer"],
        }
        for row in rows()
    ]
    return {"file": lines(folder / "pa.jsonl", said), "image_folder": "photos"}


def as_named_columns(folder):
    said = [{"img": f"{n}.png", "q": f"What is {n}?", "a": word(n)} for n in NUMBERS]
    columns = {"image": "img", "question": "q", "answer": "a"}
    return {"file": lines(folder / "own.jsonl", said), "columns": columns, "image_folder": "photos"}


def as_parquet(folder):
    table, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    said = [{"q": row["question"], "answer": row["answer"], "image": row["image"]} for row in rows()]
    parquet.write_table(table.Table.from_pylist(said), folder / "mine.parquet")
    return {"file": "mine.parquet", "columns": {"question": "q"}}


def as_parquet_with_pictures(folder):
    table, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    said = [{**row, "image": {"bytes": (folder / row["image"]).read_bytes(), "path": None}} for row in rows()]
    parquet.write_table(table.Table.from_pylist(said), folder / "whole.parquet")
    return "whole.parquet"


FORMS = [
    *(as_json, as_lines, as_csv, as_tsv, as_sharegpt, as_messages, as_trl, as_first_release, as_named_columns),
    *(as_parquet, as_parquet_with_pictures),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_pairs_of_every_form_are_judged_and_the_teacher_writes_none(form, project, asked):
    assert judged(project, form(project)) == VERDICTS
    assert asked.taken() == {"student": 6, "teacher": 3}
    assert judged(project, form(project)) == VERDICTS
    assert asked.taken() == {}


@pytest.mark.parametrize("form", ["llava", "messages", "trl", "hf-dataset"])
def test_an_export_of_ours_comes_in_again_with_or_without_prompts(form, project, asked):
    from projects import done

    opened(project, as_lines(project)).upto("identify")
    options = ["--what", "all", *(["--prompted"] if form == "llava" else [])]
    done("export", project / "runs" / "a", "--format", form, "--out", project / "out", *options)
    asked.taken()
    changes = {"run": "runs/b", "answers": "runs/a/answers.sqlite"}
    assert judged(project, "out", **changes) == VERDICTS
    assert asked.taken() == {}  # the same questions, so the answers of the first run are theirs


def test_what_the_student_is_trained_on_are_the_gaps_among_them_and_replay(project, asked):
    run = opened(project, as_lines(project), evaluate={"speed_questions": 0}).upto("level")
    assert {("What is 1?", word(1)), ("What is 3?", word(3)), ("What is 5?", word(5))} < {*asked.trained}
    card = (run.path / "student" / "README.md").read_text()
    assert "6 of the pairs were not written by the teacher but came in with files." in " ".join(card.split())
    assert "images from mine.jsonl" in card


# Questions without answers


def of_form(form, project):
    """The rows as a form of ours without answers, or as a conversation, whose answers are wrong here."""
    if form == "csv":
        table = [f"photos/{n}.png,What is {n}?\n" for n in NUMBERS]
        (project / "q.csv").write_text("".join(["image,question\n", *table]))
        return "q.csv"
    if form == "lines":
        return lines(project / "q.jsonl", [{k: row[k] for k in ("image", "question")} for row in rows()])
    talks = [[{"from": "human", "value": row["question"]}, {"from": "gpt", "value": "x"}] for row in rows()]
    images = [row["image"] for row in rows()]
    said = [{"image": image, "conversations": talk} for image, talk in zip(images, talks, strict=True)]
    return lines(project / "q.jsonl", said)


@pytest.mark.parametrize("form", ["csv", "lines", "sharegpt"])
def test_the_teacher_answers_questions_of_ones_own_once_and_they_are_its_pairs(form, project, asked):
    questions = {"file": of_form(form, project), "answers": "teacher"}
    run = opened(project, questions, evaluate={"speed_questions": 0}).upto("level")
    assert asked.prompts["teacher"] and all("What is" in prompt for prompt in asked.prompts["teacher"])
    taken = asked.taken()
    assert taken["teacher"] == 6  # and none of them again in identify, nor by the filters that need no more answers
    assert {pair.question: pair.answer for pair in run.pairs} == {f"What is {n}?": word(n) for n in NUMBERS}
    assert {pair.teacher for pair in run.pairs} == {f"asked:{questions['file']}"}
    assert {pair.question for pair, verdict in run.judged if verdict.verdict == "teacher_only"} == {
        f"What is {n}?" for n in (1, 3, 5)
    }
    assert ("What is 1?", word(1)) in asked.trained
    card = " ".join((run.path / "student" / "README.md").read_text().split())
    assert "The questions of 6 pairs came in with files, and the teacher answered them." in card


def test_answers_in_a_file_of_questions_are_never_read(project, asked):
    said = lines(project / "q.jsonl", [{**row, "answer": "a label", "teacher_text": "a label"} for row in rows()])
    run = opened(project, {"file": said, "answers": "teacher"}).upto("identify")
    written = b"".join(path.read_bytes() for path in run.path.rglob("*.jsonl"))
    assert b"a label" not in written and len(run.pairs) == 6


def test_questions_without_a_usable_answer_are_counted_and_faulty_ones_not_asked(project, asked):
    faulty = [
        *rows([7, 1]),
        {**rows([1])[0], "question": "x" * 400},
        {**rows([1])[0], "image": "photos/none.png"},
        {**rows([1])[0], "question": None},
        *rows([1]),
    ]
    speckle(project / "photos" / "7.png", seed=7)
    questions = {"file": lines(project / "q.jsonl", faulty), "answers": "teacher"}
    run = opened(project, questions).upto("annotate")
    assert asked.taken() == {"teacher": 2}
    assert counts(run) == {
        "replies": 0,
        "pairs": 2,
        "given": 0,
        "asked": 2,
        "given: duplicate": 1,
        "given: no_question": 1,
        "given: not_a_file": 1,
        "given: too_long": 1,
    }


def test_another_answer_prompt_or_length_asks_questions_of_ones_own_again(project, asked):
    questions = {"file": as_lines(project), "answers": "teacher"}
    opened(project, questions).upto("annotate")
    assert asked.taken() == {"teacher": 6}
    assert opened(project, questions).upto("annotate") and asked.taken() == {}
    opened(project, questions, {"answer_prompt": "Now: {question}"}).upto("annotate")
    assert asked.taken() == {"teacher": 6}
    opened(project, questions, {"answer_prompt": "Now: {question}"}, identify={"max_new_tokens": 9}).upto("annotate")
    assert asked.taken() == {"teacher": 6}


def test_a_dry_run_counts_questions_of_ones_own_and_draws_together(project, asked):
    shutil.copytree(project / "photos", project / "pool")
    run = opened(project, {"file": as_lines(project), "answers": "teacher"}, {"images": "pool"})
    run.upto("intake")
    steps = {step.stage: step for step in pa.pipeline.dry_steps(run.config, mute)}
    assert steps["annotate"].questions == 6 + 6 * run.config.annotate.pairs_per_image


# Beside images, and with faults


def test_the_teacher_writes_about_the_pool_alone_and_asks_nothing_that_is_asked_already(project, asked):
    shutil.copytree(project / "photos", project / "pool")
    for number in (1, 2):
        (project / "pool" / f"{number}.png").unlink()
    run = opened(project, as_lines(project), {"images": "pool"}).upto("annotate")
    assert asked.taken() == {"teacher": 4}
    own = [pair for pair in run.pairs if pair.teacher == "given:mine.jsonl"]
    assert len(own) == 6 and len(run.pairs) == 10
    again = [{**row, "question": pair.question} for row, pair in zip(rows([3]), run.pairs, strict=False)]
    repeated = lines(project / "again.jsonl", [{**again[0], "image": run.pairs[0].image}])
    more = opened(project, ["mine.jsonl", repeated], {"images": "pool"}).upto("annotate")
    assert counts(more)["repeat_question"] == 1 and counts(more)["given"] == 7
    assert asked.taken() == {}


def test_rows_that_cannot_be_used_are_counted_with_their_reasons(project, asked):
    draw(project / "test" / "seen.png", "blue", size=(64, 64))
    lines(project / "test.jsonl", [{"image": "test/seen.png", "question": "Q?", "answers": ["a"]}])
    draw(project / "photos" / "seen.png", "blue", size=(64, 64))
    (project / "photos" / "broken.png").write_bytes(b"no picture")
    shutil.copy(project / "photos" / "1.png", project / "photos" / "copy.png")
    first = rows([1, 2])
    faulty = [
        {**first[0], "image": "photos/seen.png"},
        {**first[0], "image": "photos/broken.png"},
        {**first[0], "image": "photos/none.png"},
        {**first[0], "image": "../\0.png"},
        {**first[0], "image": None},
        {**first[0], "answer": ""},
        {**first[0], "answer": None},
        {**first[0], "question": None},
        {**first[0], "answer": "a " * 60},
        {**first[0], "answer": "tea <|im_end|>"},
        {**first[0], "pair_id": "again"},
        {**first[0], "answer": "another"},
        {**first[0], "image": "photos/copy.png", "question": "What is 9?", "answer": word(9)},
    ]
    run = opened(project, lines(project / "mine.jsonl", [*first, *faulty]), {"test": "test.jsonl"}).upto("identify")
    assert counts(run) == {
        "replies": 0,
        "pairs": 3,
        "given": 3,
        "given: duplicate": 1,
        "given: in_test_split": 1,
        "given: no_answer": 2,
        "given: no_image": 1,
        "given: no_question": 1,
        "given: not_a_file": 1,
        "given: not_an_image": 1,
        "given: repeat_question": 1,
        "given: special_token": 1,
        "given: too_long": 1,
        "given: unreadable": 1,
    }
    by_id = {pair.question: pair.image_id for pair in run.pairs}
    assert by_id["What is 9?"] == by_id["What is 1?"]  # the copy's pair is about the one that was kept
    told = [json.loads(line) for line in (run.path / "pairs" / "given.jsonl").read_text().splitlines()]
    assert told[2]["where"] == "mine.jsonl, line 3" and told[2]["outcome"] == "in_test_split"
    assert str(project) not in (run.path / "pairs" / "given.jsonl").read_text()


def test_an_image_that_is_put_back_brings_its_pair(project, asked):
    (project / "photos" / "5.png").rename(project / "5.png")
    assert 5 not in judged(project, as_lines(project))
    (project / "5.png").rename(project / "photos" / "5.png")
    asked.taken()
    assert judged(project, as_lines(project)) == VERDICTS
    assert asked.taken() == {"student": 1, "teacher": 1}


def test_a_picture_that_stands_for_a_copy_is_taken_up_though_no_image_is_new(project, asked):
    (project / "photos" / "copy.png").write_bytes(b"no picture")
    said = [*rows(), {**rows([1])[0], "image": "photos/copy.png", "question": "What is 9?", "answer": word(9)}]
    assert 9 not in judged(project, lines(project / "mine.jsonl", said))
    shutil.copy(project / "photos" / "1.png", project / "photos" / "copy.png")
    assert judged(project, "mine.jsonl")[9] == "teacher_only"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"image": "1.png", "question": "Q?", "answer": "a"}\n{"image"', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"image": "1.png", "question": "Q?"}\n', "a.jsonl, line 1 has no 'answer'"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.jsonl", '{"image": "1.png", "question": ["Q?"], "answer": "a"}', "line 1: 'question' should be a text"),
        ("a.csv", "image,question,answer\n1.png,What, then?,a\n", "a.csv, line 2 has 4 fields, and the header has 3"),
        ("a.csv", "image,question,answer\n1.png,What?\n", "a.csv, line 2 has 2 fields"),
        ("a.csv", "image,frage,answer\n1.png,What?,a\n", "a.csv has no column 'question'; it has 'image', 'frage'"),
        ("a.csv", 'image,question,answer\n1.png,"What?,a\n', "a.csv is not CSV after line"),
        ("a.csv", b"image,question,answer\n1.png,\xff?,a\n", "a.csv is not UTF-8 text"),
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "image,question,answer\n" + "x" * 200_000 + ",Q?,a\n", "a.csv is not CSV after line"),
    ],
)
def test_a_broken_row_is_one_message_with_its_place_before_anything_is_asked(project, asked, name, text, told):
    (project / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        opened(project, name).upto("identify")
    assert told in str(refused.value)
    assert asked.loaded == []


def test_a_file_without_any_usable_pair_is_refused_with_the_first_ones(project, asked):
    with pytest.raises(
        UserError, match=r"(?s)none of the 2 pairs in .*a.jsonl can be used \(2 no_answer\).*line 1: no"
    ):
        opened(project, lines(project / "a.jsonl", [{**row, "answer": ""} for row in rows([1, 2])])).upto("identify")


def test_an_image_of_several_pairs_is_taken_in_once_and_is_no_duplicate(project, asked):
    said = [{**row, "pair_id": f"{row['pair_id']}{turn}"} for turn in "ab" for row in rows()]
    run = opened(project, lines(project / "own.jsonl", said)).upto("intake")
    assert counts(run, "intake") == {"accepted": len(NUMBERS)}


def test_a_table_whose_images_stand_under_another_name_is_told_to_name_the_column(project, asked):
    table = project / as_csv(project)
    table.write_text(table.read_text().replace("image", "photo", 1))
    with pytest.raises(UserError, match=r"which image it is about.*columns: \{image: NAME\}"):
        opened(project, table.name).upto("intake")


def test_a_pair_on_several_images_is_counted(project, asked):
    talk = [{"role": "user", "content": "What is 1?"}, {"role": "assistant", "content": word(1)}]
    said = [{"images": ["photos/1.png"], "messages": talk}, {"images": ["photos/1.png", "x"], "messages": talk}]
    assert counts(opened(project, lines(project / "a.jsonl", said)).upto("annotate"))["given: several_images"] == 1


def test_a_special_token_of_the_student_drops_a_pair_whose_answers_were_given(project, monkeypatch):
    asked = Asked(frozenset({"<img>"}))
    monkeypatch.setattr(run_models, "load_model", asked.load)
    said = [*rows([1]), {**rows([3])[0], "answer": "tea <img> x", "student_text": "milk", "teacher_text": "tea"}]
    run = opened(project, {"file": lines(project / "a.jsonl", said), "answers": "given"}).upto("identify")
    assert [verdict.reason for verdict in run.verdicts if verdict.verdict == VerdictKind.DROPPED] == ["special_token"]


# Answers of the models


def answered(folder):
    said = [{**row, "student_text": "nothing", "teacher_text": row["answer"]} for row in rows([1, 2])]
    return lines(folder / "mine.jsonl", [*said, {**rows([3])[0], "student_text": None}])


def test_answers_in_the_file_count_only_where_the_settings_say_so(project, asked):
    assert judged(project, answered(project)) == {1: "teacher_only", 2: "student_right", 3: "teacher_only"}
    assert asked.taken() == {"student": 3, "teacher": 2}
    spec = {"file": "mine.jsonl", "answers": "given"}
    assert judged(project, spec, run="runs/b") == {1: "teacher_only", 2: "teacher_only", 3: "teacher_only"}
    assert asked.taken() == {"student": 1, "teacher": 1}
    manifest = json.loads((project / "runs/b/verdicts/manifest.json").read_text())
    assert manifest["given_answers"] == {"student": 2, "teacher": 2}
    assert "whatever prompt they are answers to: 2 of the student and 2 of the teacher" in manifest["note"]


def test_answers_in_the_file_are_no_answers_of_the_model_to_anybody_else(project, asked):
    judged(project, {"file": answered(project), "answers": "given"})
    asked.taken()
    assert judged(project, "mine.jsonl")[2] == "student_right"
    assert asked.taken()["student"] == 2


# Around a run


def test_a_moved_project_asks_nothing_and_gives_the_same_pairs(project, asked, tmp_path):
    judged(project, as_lines(project))
    pairs = (project / "runs/a/pairs/pairs.jsonl").read_bytes()
    asked.taken()
    place = tmp_path.parent / f"{tmp_path.name}-moved"
    project.rename(place)
    run = opened(place, "mine.jsonl").upto("identify")
    assert asked.taken() == {} and {outcome.why for outcome in run.outcomes} == {"up to date: nothing changed"}
    assert (place / "runs/a/pairs/pairs.jsonl").read_bytes() == pairs


def test_one_more_row_asks_about_that_row(project, asked):
    judged(project, as_lines(project))
    asked.taken()
    judged(project, lines(project / "mine.jsonl", [*rows(), {**rows([1])[0], "question": "What is 9?"}]))
    assert asked.taken() == {"student": 1, "teacher": 1}


def test_a_dry_run_counts_what_would_be_asked_and_leaves_the_folder_alone(project, asked):
    judged(project, as_lines(project))
    lines(project / "mine.jsonl", [*rows(), {**rows([1])[0], "question": "What is 9?"}])
    before = content(project / "runs")
    steps = {step.stage: step for step in pa.pipeline.dry_steps(opened(project, "mine.jsonl").config, mute)}
    assert steps["annotate"].questions == 0 and steps["identify"].questions == 1
    assert content(project / "runs") == before


def test_a_preview_of_pairs_alone_says_that_there_is_nothing_to_write(project, asked):
    from parityalign.pipeline import make_preview

    run = opened(project, as_lines(project))
    with pytest.raises(UserError, match=r"pairs of your own only.*parityalign identify"):
        run.work(lambda working: make_preview(working, 2))


def test_a_plan_counts_ones_own_pairs_in_what_is_asked_and_not_in_what_is_written(project):
    from parityalign.config.automatic import decide_level
    from parityalign.planning.sampling import SamplingOptions, sample
    from parityalign.planning.works import Counts, Shares, workloads
    from parityalign.tasks import task_of
    from test_plan import READINGS

    config = opened(project, as_lines(project)).config
    config = config.model_copy(update={"level": decide_level(config.level, None)})
    found = sample(task_of("signs", config.tasks["signs"]), config.tasks["signs"], SamplingOptions(), limit=None)
    assert (found.images, found.own, len(found.pictures)) == (0, 6, 6)
    readings = {role: {"signs": sizes["textvqa"]} for role, sizes in READINGS.items()}
    work = workloads(config, {"signs": Counts(0, 0, 6)}, readings, {"signs": Shares.assumed(0.5)})
    asked = {(each.stage, each.role): each.requests for each in work}
    assert asked["annotate", "teacher"] == 0 and asked["identify", "student"] == 6
    assert ("annotate own questions", "teacher") not in asked and asked["identify", "teacher"] == 3
    work = workloads(config, {"signs": Counts(0, 0, 6, to_answer=4)}, readings, {"signs": Shares.assumed(0.5)})
    asked = {(each.stage, each.role): each.requests for each in work}
    assert asked["annotate own questions", "teacher"] == 4 and asked["identify", "teacher"] == 1


def test_a_file_in_the_run_folder_or_a_missing_one_is_refused(project, asked):
    with pytest.raises(UserError, match=r"'tasks.signs.pairs' is .*none.csv, which does not exist"):
        opened(project, "none.csv")
    with pytest.raises(UserError, match=r"'tasks.signs.pairs.image_folder' is .*, which is not a folder"):
        opened(project, {"file": as_lines(project), "image_folder": "nowhere"})
    (project / "runs" / "a").mkdir(parents=True)
    lines(project / "runs" / "a" / "mine.jsonl", rows())
    with pytest.raises(UserError, match=r"it contains 'tasks.signs.pairs'"):
        opened(project, "runs/a/mine.jsonl").upto("identify")
    shutil.rmtree(project / "runs")
    with pytest.raises(UserError, match=r"'tasks.signs.images' is missing; a task has images, or 'pairs'"):
        opened(project, None)
    with pytest.raises(UserError, match=r"holds no pairs: expected data.json or data.jsonl"):
        opened(project, "photos").upto("identify")


def test_the_settings_are_written_and_read_back(project):
    spec = {"file": as_lines(project), "columns": {"answer": "answer"}, "image_folder": ".", "answers": "given"}
    config = opened(project, ["mine.jsonl", spec]).config
    assert config.tasks["signs"].pairs[0].file == str(project / "mine.jsonl")
    folder = Path(config.run)
    folder.mkdir(parents=True)
    from parityalign.config import as_yaml, load_config

    (folder / "run.yaml").write_text(as_yaml(config, folder))
    assert str(project) not in (folder / "run.yaml").read_text()
    assert load_config(folder / "run.yaml") == config
