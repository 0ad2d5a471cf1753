"""Tasks of the user's own: a name, pictures and prompts in RUN.yaml, joined with a skill and perhaps a benchmark."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from makers import artifact, kept, mute, speckle, task
from parityalign.config import AnnotateSettings, RunConfig, TaskData, as_yaml, load_config
from parityalign.core import ImageRef, Pair, Reply, Request, UserError, content_id
from parityalign.data import open_questions
from parityalign.models.backends.fake import FakeModel
from parityalign.stages import annotate_images
from parityalign.stages.parsing import ParsedPair, RationaleReply, read_pair, read_rationale
from parityalign.tasks import load_task, task_of
from projects import WORDS, configure, done

FORM = "Reply in this form only. Question: <your question> Answer: <your answer>"
KINDS = ("counting", "what is written", "a comparison")


@pytest.fixture
def folder(tmp_path):
    """A folder with a pool, a test split as released and questions of one's own."""
    speckle(tmp_path / "xrays" / "a.png", seed=1)
    (tmp_path / "release").mkdir()
    (tmp_path / "mine.jsonl").write_text("{}")
    return tmp_path


def load(folder: Path, **tasks) -> RunConfig:
    said = {"run": "runs/a", "teacher": "hf:some/teacher", "student": "hf:some/student", "tasks": tasks}
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    return load_config(folder / "run.yaml")


def problem(folder: Path, **tasks) -> str:
    with pytest.raises(UserError) as refused:
        load(folder, **tasks)
    assert "1 problem\n" in str(refused.value)
    return str(refused.value)


def joined(name: str, **said):
    return task_of(name, TaskData(images="pool", **said))


# What a name stands for


def test_a_name_of_ones_own_needs_only_pictures_and_is_asked_about_as_any_picture(folder):
    config = load(folder, xrays={"images": "xrays"})
    made, vqa = task_of("xrays", config.tasks["xrays"]), load_task("vqa")
    assert made == replace(vqa, name="xrays")
    assert made.benchmark is None and made.metric.name == "anls"
    assert made.annotate_prompt.endswith(f"\n{FORM}")


def test_the_skill_is_the_one_that_is_named_else_of_the_name_else_of_the_benchmark():
    assert joined("okvqa").annotate_prompt == load_task("okvqa").annotate_prompt
    assert joined("okvqa", skill="chartqa").annotate_prompt == load_task("chartqa").annotate_prompt
    assert joined("street", benchmark="textvqa").annotate_prompt == load_task("textvqa").annotate_prompt
    assert joined("vqa", benchmark="textvqa").annotate_prompt == load_task("vqa").annotate_prompt


def test_a_benchmark_is_scored_by_its_own_metric_whatever_is_asked_of_the_pictures():
    assert joined("okvqa", skill="vqa").metric.name == "vqa_accuracy_official"
    assert joined("street", skill="vqa", benchmark="chartqa").metric.name == "chartqa_relaxed_accuracy"
    assert joined("street", skill="textvqa").metric.name == "textvqa_accuracy"
    assert joined("okvqa", metric="anls").metric.name == "anls"


def test_the_benchmark_is_the_one_that_is_named_else_of_the_name():
    assert joined("okvqa").benchmark.name == "okvqa"
    assert joined("okvqa", benchmark="stvqa").benchmark.name == "stvqa"
    assert joined("vqa").benchmark is None


def test_a_slip_of_the_pen_is_no_task_of_ones_own_unless_the_skill_is_named(folder):
    text = problem(folder, chart_qa={"images": "xrays"})
    assert "there is no task 'chart_qa'. Did you mean chartqa" in text and "'tasks.chart_qa.skill'" in text
    assert task_of("chart_qa", load(folder, chart_qa={"images": "xrays", "skill": "vqa"}).tasks["chart_qa"])
    for name in ("xrays", "documents", "signs-2"):
        assert load(folder, **{name: {"images": "xrays"}})


@pytest.mark.parametrize("name", ["x/y", "..", "", "two words", "a:b", ".hidden", "x" * 65])
def test_a_name_that_could_not_be_a_folder_is_refused(folder, name):
    assert "cannot be the name of a task" in problem(folder, **{name: {"images": "xrays", "skill": "vqa"}})


def test_skills_and_benchmarks_that_are_not_there_are_answered_with_the_near_ones(folder):
    assert "no skill 'vqaa'. Did you mean vqa" in problem(folder, xrays={"images": "xrays", "skill": "vqaa"})
    text = problem(folder, xrays={"images": "xrays", "benchmark": "textvq"})
    assert "no benchmark 'textvq'. Did you mean textvqa" in text
    assert "no benchmark 'vqa'" in problem(folder, xrays={"images": "xrays", "benchmark": "vqa"})


def test_only_a_skill_or_a_benchmark_can_be_loaded_by_name_alone():
    with pytest.raises(
        UserError,
        match=r"there is no task 'xrays'\. Known: chartqa, chartqapro, docvqa, .*, okvqa, .*, stvqa, textvqa, vqa\.",
    ):
        load_task("xrays")


# Its test split


def test_a_benchmarks_files_need_the_benchmark_and_ones_own_questions_do_not(folder):
    assert load(folder, xrays={"images": "xrays", "test": "mine.jsonl"})
    for test in ("release", "hf:lmms-lab/textvqa"):
        text = problem(folder, xrays={"images": "xrays", "test": test})
        assert "no benchmark says how to read its questions" in text and "'tasks.xrays.benchmark: textvqa'" in text
        assert load(folder, xrays={"images": "xrays", "test": test, "benchmark": "textvqa"})


def test_where_nobody_looked_before_reading_says_the_same(tmp_path):
    with pytest.raises(UserError, match=r"no benchmark says how to read it\. Set 'tasks\.toy\.benchmark'"):
        open_questions(task(), str(tmp_path))


def test_subsets_are_those_of_the_benchmark(folder):
    said = {"images": "xrays", "test": "release", "benchmark": "chartqa"}
    assert load(folder, xrays={**said, "subset": "human"})
    assert "Did you mean human" in problem(folder, xrays={**said, "subset": "humans"})
    assert "xrays has no subset 'human'" in problem(folder, xrays={"images": "xrays", "subset": "human"})


# Its prompts


def test_prompts_of_ones_own_are_asked_as_they_are_with_the_form_of_the_reply():
    made = joined("xrays", annotate_prompt="Ask about the bones.\n", answer_prompt="Look.\n{question}\n{{json}}")
    assert made.annotate_prompt == f"Ask about the bones.\n{FORM}"
    assert made.answer_prompt.format(question="Which {side}?") == "Look.\nWhich {side}?\n{json}"
    assert made.rationale_prompt == load_task("vqa").rationale_prompt


def test_a_prompt_that_asks_for_question_and_answer_itself_is_left_alone():
    asked = "Ask about the bones. Write\nQUESTION: ...\nanswer: ..."
    assert joined("xrays", annotate_prompt=asked).annotate_prompt == asked
    half = "Write a Question: about the bones."
    assert joined("xrays", annotate_prompt=half).annotate_prompt == f"{half}\n{FORM}"


def test_what_is_asked_for_is_what_is_read():
    made = joined("xrays", annotate_prompt="Ask.", rationale_prompt="{question} Why?")
    filled = made.annotate_prompt.replace("<your question>", "Which side?").replace("<your answer>", "left")
    assert read_pair(filled.partition("only. ")[2]) == ParsedPair("Which side?", "left")
    filled = made.rationale_prompt.replace("<your explanation>", "The marker.").replace("<your answer>", "left")
    assert read_rationale(filled.partition("only. ")[2]) == RationaleReply("The marker.", "left")
    assert joined("x1", rationale_prompt="{question}\nAnswer: ").rationale_prompt == "{question}\nAnswer: "


@pytest.mark.parametrize("setting", ["answer_prompt", "rationale_prompt"])
@pytest.mark.parametrize(
    "prompt",
    ["", "Answer.", "{}", "{0}", "{qestion}", "{question} {kind}", "{question", "{question!r}", "{question:9}"],
)
def test_a_prompt_without_its_question_or_with_other_fields_is_refused(folder, setting, prompt):
    text = problem(folder, xrays={"images": "xrays", setting: prompt})
    assert f"'tasks.xrays.{setting}': is {prompt!r}" in text and "for a brace of the text" in text


@pytest.mark.parametrize("prompt", ["{question}", "Ask {kinds}.", 'As {"question": 1}', "{", "}", "{{kind}}"])
def test_an_annotate_prompt_has_no_field_but_the_kind(folder, prompt):
    text = problem(folder, xrays={"images": "xrays", "annotate_prompt": prompt, "kinds": ["counting"]})
    assert f"'tasks.xrays.annotate_prompt': is {prompt!r}" in text and "{kind}" in text


def test_other_prompts_that_cannot_work_are_refused(folder):
    assert "which is empty" in problem(folder, xrays={"images": "xrays", "annotate_prompt": " \n"})
    text = problem(folder, xrays={"images": "xrays", "answer_prompt": "<image>\n{question}"})
    assert "leave out <image>" in text
    text = problem(folder, xrays={"images": "xrays", "annotate_prompt": "Ask for {kind}.", "kinds": "none"})
    assert "has the field {kind}, but there are no 'tasks.xrays.kinds'" in text
    text = problem(folder, xrays={"images": "xrays", "kinds": ["counting", " counting "]})
    assert "'counting' is given twice" in text
    assert "'tasks.xrays.kinds.0'" in problem(folder, xrays={"images": "xrays", "kinds": [" "]})


def test_a_configuration_with_prompts_reads_back_the_same_from_the_run_folder(folder):
    said = {"images": "xrays", "annotate_prompt": "Ask: {kind}\nü", "answer_prompt": "{question}?", "kinds": [*KINDS]}
    config = load(folder, xrays={**said, "test": "release", "benchmark": "okvqa"})
    config.run.mkdir(parents=True)
    (config.run / "run.yaml").write_text(as_yaml(config, config.run))
    assert load_config(config.run / "run.yaml") == config


# Kinds of questions


def test_the_kind_stands_where_the_prompt_has_it_or_before_the_form_of_the_reply():
    made = joined("xrays", annotate_prompt="Ask for {kind}, yes {kind}.", kinds=KINDS)
    assert made.annotate_prompt_for("counting") == f"Ask for counting, yes counting.\n{FORM}"
    for made in (
        joined("xrays", kinds=KINDS),
        joined("textvqa", kinds=KINDS),
        joined("x1", annotate_prompt="Ask.", kinds=KINDS),
    ):
        text = made.annotate_prompt_for("counting")
        assert text.endswith(f". The question should be of this kind: counting.\n{FORM}")
    own = "Write Question: ... and Answer: ..."
    text = joined("xrays", annotate_prompt=own, kinds=KINDS).annotate_prompt_for("counting")
    assert text == f"{own} The question should be of this kind: counting."


def test_a_kind_with_braces_is_text():
    assert joined("xrays", kinds=["{kind} {0}"]).annotate_prompt_for("{0}").count("{0}") == 1


def test_without_kinds_prompts_are_as_they_were():
    made = task()
    assert {made.kind_of(seed) for seed in range(9)} == {""}
    assert replace(made, annotate_prompt="a {kind} {0}").annotate_prompt_for("") == "a {kind} {0}"


def annotated(folder: Path, kinds, count=60, seed=0):
    made, asked = artifact(folder, "pairs"), []

    def reply(request: Request, _):
        asked.append(request)
        return "nothing" if "counting" in request.prompt else f"Question: Which is {request.seed}? Answer: tea"

    toy = replace(task(), annotate_prompt="write {kind}", kinds=kinds)
    images = [ImageRef(image_id=content_id(str(n)), path=f"{n}.png", task="toy") for n in range(count)]
    model, settings = FakeModel(reply, name="fake:teacher"), AnnotateSettings(pairs_per_image=2)
    annotate_images(made, images, {"toy": toy}, kept(folder, model), settings=settings, seed=seed, progress=mute)
    return made, asked, list(made.stream("replies.jsonl", Reply))


def test_each_draw_is_asked_for_a_kind_that_hangs_on_its_seed_and_is_told_with_the_reply(tmp_path):
    made, asked, replies = annotated(tmp_path / "a", KINDS)
    assert [request.prompt for request in asked] == [f"write {reply.kind}" for reply in replies]
    assert [reply.kind for reply in replies] == [KINDS[request.seed % 3] for request in asked]
    counts = Counter(reply.kind for reply in replies)
    assert counts.keys() == {*KINDS} and min(counts.values()) > 20  # of 120; 40 are expected
    assert made.manifest["by_kind"] == {
        "toy": {kind: dict(Counter(reply.outcome for reply in replies if reply.kind == kind)) for kind in counts}
    }
    assert made.manifest["by_kind"]["toy"]["counting"] == {"no_question": counts["counting"]}
    assert len(list(made.stream("pairs.jsonl", Pair))) == 120 - counts["counting"]
    again = annotated(tmp_path / "b", KINDS)[2]
    assert again == replies
    other = annotated(tmp_path / "c", KINDS, seed=1)[2]
    assert [reply.kind for reply in other] != [reply.kind for reply in replies]


def test_one_image_more_changes_no_other_draws_kind(tmp_path):
    fewer, more = (annotated(tmp_path / str(count), KINDS, count=count)[2] for count in (20, 21))
    assert {(each.reply_id, each.kind) for each in fewer} < {(each.reply_id, each.kind) for each in more}


def test_without_kinds_the_manifest_counts_none(tmp_path):
    made, _, replies = annotated(tmp_path, ())
    assert {reply.kind for reply in replies} == {""} and "by_kind" not in made.manifest


# A whole run


@pytest.mark.slow
def test_a_task_of_ones_own_goes_from_pictures_to_scores(project, trainable):
    rows = [
        {"image": f"test/train_images/{word}.jpg", "question": "What is shown?", "answers": [word]} for word in WORDS
    ]
    (project / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    signs = {"images": "pool", "test": "mine.jsonl", "annotate_prompt": "Write one question about {kind}."}
    told = {**signs, "answer_prompt": "Shortly: {question}", "kinds": ["words", "colours"]}
    done("run", configure(project, tasks={"signs": told}))
    run = project / "runs/a"
    scores = json.loads((run / "scores.json").read_text())["tasks"]["signs"]
    assert (scores["metric"], scores["before"]["score"], scores["teacher"]["score"]) == ("anls", 50.0, 100.0)
    kinds = {json.loads(line)["kind"] for line in (run / "pairs/replies.jsonl").read_text().splitlines()}
    assert kinds == {"words", "colours"}
    assert "done again" not in done("run", configure(project, tasks={"signs": told}))
    said = done("run", configure(project, tasks={"signs": {**told, "kinds": ["words"]}}))
    assert "annotate: done again: its input annotate prompt of signs changed" in said
    said = done("run", configure(project, tasks={"signs": {**told, "kinds": ["words"], "answer_prompt": "{question}"}}))
    assert "annotate: up to date" in said and "identify: done again: its input answer prompt of signs changed" in said
    done("export", run, "--format", "hf-dataset")
    (card,) = run.rglob("exports/hf-dataset/README.md")
    assert "Write one question about {kind}." in card.read_text() and "({kind}: one of words)" in card.read_text()
