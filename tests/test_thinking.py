"""Models that think before they speak: switched off where that can be, given room where not, and told apart."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from transformers import LlavaProcessor
from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor

import families
import tiny
from makers import artifact, draw, kept, mute, task
from parityalign.config.automatic import decide_level
from parityalign.config.loading import LoadingSettings
from parityalign.config.schema import AnnotateSettings, RunConfig
from parityalign.config.serving import ServerSettings
from parityalign.core import Decoding, ImageRef, Request, Said, UserError, WorkFailed, content_id
from parityalign.engines import AnswerStore, Asked, CachedModel, Spent
from parityalign.models.backends import hf
from parityalign.models.backends.fake import FakeModel
from parityalign.models.chat_templates import opened_thought, with_defaults
from parityalign.models.checking import check_model, refuse_teacher
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.models.open import fingerprint
from parityalign.planning.sizes import PromptSize, PromptSizes
from parityalign.planning.works import Counts, Shares, workloads
from parityalign.stages.annotate import annotate_images
from parityalign.stages.parsing import NoPair, read_pair
from projects import configure, make_project, refusal

HEAD, ASKS = "{% if add_generation_prompt %}", "<|assistant|>"
SWITCHED = tiny.CHAT_TEMPLATE.replace(
    ASKS + "{% endif %}",
    ASKS + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}"
    "{% endif %}",
)
"""As Qwen3.5's: it thinks unless it is told not to."""
ALWAYS = tiny.CHAT_TEMPLATE.replace(ASKS + "{% endif %}", ASKS + "<think>{% endif %}")
"""As Qwen3-VL-Thinking's."""
CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]}]


def thinker(folder: Path, template: str) -> str:
    tiny.llava(folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def prompt_of(location: str, **given: object) -> str:
    return Prompter(open_processor(location, LoadingSettings(chat_template_kwargs=given))).chat("what")


# ---- switched off ----


def test_a_template_with_a_switch_does_not_think_unless_the_setting_says_so(tmp_path):
    folder = thinker(tmp_path, SWITCHED)
    plain = LlavaProcessor.from_pretrained(folder)
    for given_, wanted in (({}, False), ({"enable_thinking": True}, True), ({"other": 3}, False)):
        assert prompt_of(folder, **given_) == plain.apply_chat_template(
            CHAT, add_generation_prompt=True, enable_thinking=wanted
        )
    assert plain.apply_chat_template(CHAT, add_generation_prompt=True).endswith("<think>")
    check_model(folder)


def test_a_template_without_a_switch_is_left_as_it_is(tmp_path):
    folder = thinker(tmp_path, tiny.CHAT_TEMPLATE)
    assert open_processor(folder).chat_template == tiny.CHAT_TEMPLATE
    assert prompt_of(folder, enable_thinking=False, unknown="x") == prompt_of(folder)


def test_a_saved_student_is_prompted_by_others_as_it_was_trained(tmp_path):
    folder = thinker(tmp_path / "model", SWITCHED)
    open_processor(folder).save_pretrained(tmp_path / "saved")
    saved = LlavaProcessor.from_pretrained(tmp_path / "saved")
    assert saved.apply_chat_template(CHAT, add_generation_prompt=True) == prompt_of(folder)
    assert saved.apply_chat_template(CHAT, add_generation_prompt=True, enable_thinking=True).endswith("<think>")


values = st.one_of(
    st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)


@settings(max_examples=60, deadline=None)
@given(value=values)
def test_a_value_arrives_in_the_template_as_it_was_given(value):
    loading = LoadingSettings(chat_template_kwargs={"level": value})
    template = with_defaults("{{ level | tojson }}", loading.chat_template_kwargs)
    told = tiny.processor(chat_template=template).apply_chat_template(CHAT)
    assert json.loads(told) == value and type(json.loads(told)) is type(value)


def test_each_of_several_templates_gets_the_settings():
    assert with_defaults({"default": "a{{ x }}", "tools": "b"}, {"x": 1})["tools"].endswith("b")


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "a b", "1a", "", "x %}{{"])
def test_a_name_that_is_no_variable_of_the_template_is_refused(name):
    with pytest.raises(ValidationError, match="no name of a variable|cannot be given"):
        LoadingSettings(chat_template_kwargs={name: True})


def test_the_settings_are_part_of_what_a_model_is(tmp_path):
    folder = thinker(tmp_path, SWITCHED)
    found = {
        fingerprint(f"hf:{folder}", LoadingSettings(**each))
        for each in ({}, {"chat_template_kwargs": {"enable_thinking": True}}, {"thinking_tokens": 5})
    }
    assert len(found) == 3
    assert fingerprint(f"hf:{folder}", LoadingSettings(chat_template_kwargs={})) in found
    assert len({LoadingSettings(), LoadingSettings(), LoadingSettings(thinking_tokens=1)}) == 2


# ---- given room ----


def test_a_model_that_always_thinks_is_refused_before_any_work_unless_it_has_room(tmp_path):
    folder = thinker(tmp_path, ALWAYS)
    with pytest.raises(UserError, match=r"begins every reply with a thought \(<think>\)") as refused:
        check_model(folder)
    assert "loading.teacher.thinking_tokens: 2048" in str(refused.value) and "A student has to" in str(refused.value)
    check_model(folder, LoadingSettings(thinking_tokens=100))


def test_a_thought_that_the_template_begins_is_told_apart_from_speech(tmp_path):
    folder = thinker(tmp_path / "model", ALWAYS)
    assert opened_thought(Prompter(open_processor(folder))) == "<think>"
    (image,) = tiny.drawn(tmp_path / "images", 1)
    (reply,) = hf.load(folder).generate([Request(image, "what")], Decoding(5))
    assert reply.startswith("<think>") and read_pair(reply) == NoPair.UNFINISHED_THOUGHT


def run_config(**said: object) -> RunConfig:
    common = {"run": "a", "teacher": "embedded:teacher", "tasks": {"textvqa": {"images": "pool"}}}
    return RunConfig.model_validate(common | said)


def test_a_student_that_is_trained_gets_no_room_for_thoughts():
    loading = {"student": {"thinking_tokens": 9}, "teacher": {"thinking_tokens": 9}}
    with pytest.raises(ValidationError, match="is trained to answer at once"):
        run_config(student="embedded:student", loading=loading)
    run_config(student="fake:student.json", loading=loading)
    run_config(student="embedded:student", loading={"teacher": {"thinking_tokens": 9}})


def test_a_teacher_that_thinks_gives_only_text(tmp_path):
    thinks = {"teacher": {"thinking_tokens": 9}}
    confidence = {"objective": {"answer": 1, "confidence": 1}}
    for wanted in ({"level": confidence}, {"discrepancy": {"weight_by": "confidence_gap"}}):
        with pytest.raises(ValidationError, match="gives only text, as it thinks before it answers"):
            run_config(student="embedded:student", loading=thinks, **wanted)
        run_config(student="embedded:student", **wanted)
    config = run_config(student="embedded:student", loading=thinks)
    assert not config.shows("teacher") and config.shows("student")


def test_a_plan_counts_the_room_for_thoughts():
    sizes = {"textvqa": PromptSizes(*[PromptSize(10.0, 0.0)] * 3, pictures=4)}

    def planned(**loading):
        config = run_config(student="embedded:student", loading=loading)
        config = config.model_copy(update={"level": decide_level(config.level, None)})
        works = workloads(
            config, {"textvqa": Counts(100, 10)}, dict.fromkeys(config.roles, sizes), {"textvqa": Shares.assumed(0.5)}
        )
        return {(work.stage, work.role): work for work in works}

    plain, thinks = planned(), planned(teacher={"thinking_tokens": 50})
    for place, work in plain.items():
        more = 50 * work.requests if place[1] == "teacher" else 0
        assert thinks[place].reply_tokens == work.reply_tokens + more


def test_room_for_thoughts_is_added_to_every_answer_and_asked_anew():
    store, heard = AnswerStore(), []
    model = FakeModel(lambda request, decoding: heard.append(decoding.max_new_tokens) or "tea")
    asked = [Asked("1", "", "what", "")]
    for room in (0, 100):
        thinking = CachedModel("m", lambda: model, store, thinking_tokens=room)
        assert thinking.lacking(asked, decoding=Decoding(8)) == 1
        thinking.answer(asked, decoding=Decoding(8), batch_size=1, on_progress=lambda *_: None)
        assert thinking.lacking(asked, decoding=Decoding(8)) == 0
    assert heard == [8, 108]


# ---- told apart ----


def annotate(folder, model, count=40, **options):
    pictures = [ImageRef(image_id=content_id(str(n)), path=f"{n}.png", task="toy") for n in range(count)]
    made, how = artifact(folder, "pairs"), AnnotateSettings(**options)
    annotate_images(made, pictures, {"toy": task()}, model, settings=how, seed=0, progress=mute)


@pytest.mark.parametrize(("batch_size", "asked"), [(1, 8), (3, 9), (8, 8), (20, 20), (128, 40)])
def test_a_teacher_that_does_nothing_but_think_is_told_after_its_first_batch(tmp_path, batch_size, asked):
    teacher = FakeModel(lambda request, decoding: "<think>Question: draft? Answer: no")
    with pytest.raises(WorkFailed, match=f"still thinking at the end of each of its first {asked} replies") as failed:
        annotate(tmp_path, kept(tmp_path, teacher), batch_size=batch_size)
    assert len(teacher.asked) == asked
    for help_ in ("chat_template_kwargs: {enable_thinking: false}", "server.extra_body", "thinking_tokens: 2048"):
        assert help_ in str(failed.value)


def test_a_server_that_keeps_thoughts_to_itself_is_told_the_same(tmp_path):
    class Hidden:
        name, special_tokens = "served", frozenset()

        def ask_all(self, requests, decoding, keep):
            for key in requests:
                keep({key: Said("", "length")}, Spent(answers=1))

    with pytest.raises(WorkFailed, match="was still thinking"):
        annotate(tmp_path, kept(tmp_path, Hidden()))


def test_one_that_comes_to_speak_now_and_then_goes_on(tmp_path):
    def reply(request, decoding):
        return "<think>what" if int(Path(request.image).stem) % 8 else "Question: What is sold? Answer: tea"

    annotate(tmp_path, kept(tmp_path, FakeModel(reply)), batch_size=8)


# ---- a family that is published without a template ----


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory):
    """A folder as on the hub: no chat template, neither beside the processor nor with the tokenizer."""
    family = next(each for each in families.FAMILIES if each.name == "PaliGemma")
    folder = families.write(tmp_path_factory.mktemp("paligemma"), family)
    (folder / "chat_template.jinja").unlink()
    return folder


def test_paligemma_is_asked_by_the_prefix_of_its_task(paligemma):
    image = Image.new("RGB", (40, 40), "red")
    processor = open_processor(str(paligemma))
    seen = Prompter(processor).encode(image, "what is the colour ?\nAnswer the question using a single word or phrase.")
    plain = PaliGemmaProcessor(processor.image_processor, processor.tokenizer)
    asked = "<image>answer en what is the colour ? Answer the question using a single word or phrase."
    expected = plain(images=[image], text=[asked], return_tensors="np")["input_ids"][0].tolist()
    assert seen.tokens == expected
    assert Prompter(processor).chat("what", "red").endswith("answer en whatred<eos>")


def test_paligemma_is_a_student_and_no_teacher(paligemma, tmp_path):
    check_model(str(paligemma))
    with pytest.raises(UserError, match="cannot be the teacher(.|\n)*as the student it is welcome"):
        refuse_teacher(str(paligemma))
    levelled = shutil.copytree(paligemma, tmp_path / "levelled")
    open_processor(str(paligemma)).save_pretrained(levelled)
    with pytest.raises(UserError, match="cannot be the teacher"):
        refuse_teacher(str(levelled))


def test_one_with_a_template_of_its_own_may_teach(tmp_path):
    family = next(each for each in families.FAMILIES if each.name == "PaliGemma")
    refuse_teacher(str(families.write(tmp_path, family)))


def test_paligemma_as_teacher_is_refused_when_the_run_begins(paligemma, tmp_path):
    draw(tmp_path / "pool" / "a.png")
    path = configure(make_project(tmp_path), teacher=f"hf:{paligemma}")
    assert "cannot be the teacher" in refusal("run", path)


# ---- further fields of requests ----


@pytest.mark.parametrize("name", ["model", "temperature", "max_tokens", "stream", "n", "response_format", "top_k"])
def test_a_field_that_is_set_here_cannot_be_given(name):
    with pytest.raises(ValidationError, match="which parityalign sets itself"):
        ServerSettings(extra_body={name: 1})


@pytest.mark.parametrize("name", ["api_key", "apiKey", "Authorization", "client_secret"])
def test_a_secret_has_no_place_among_the_fields(name):
    with pytest.raises(ValidationError, match="looks like a secret"):
        ServerSettings(extra_body={name: "sk-1"})
