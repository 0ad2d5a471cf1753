"""Models and processors of any family are opened in one way, and what cannot be opened is refused with what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

import families
import tiny
from makers import mute
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config
from parityalign.config.schema import RunConfig
from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.interfaces import Decoding
from parityalign.engines.asking import Asked
from parityalign.models import device, loading
from parityalign.models.backends.fake import FakeModel
from parityalign.models.checking import check_model
from parityalign.models.checkpoint import WEIGHTS
from parityalign.models.encoding import Prompter
from parityalign.models.loading import described, open_config, open_model, open_processor
from parityalign.models.max_pixels import limit_pixels
from parityalign.models.versions import NEWEST, OLDEST
from parityalign.pipeline import preflight
from projects import make_project

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a family's tiny model, made once."""
    made: dict[str, Path] = {}

    def folder(family: families.Family) -> Path:
        if family.name not in made:
            made[family.name] = families.write(tmp_path_factory.mktemp("family"), family)
        return made[family.name]

    return folder


@pytest.fixture
def llava(tmp_path, written):
    """A copy of a tiny LLaVA, to be damaged."""
    return shutil.copytree(written(family("LLaVA")), tmp_path / "llava")


def family(name: str) -> families.Family:
    return next(family for family in families.FAMILIES if family.name == name)


def change(file: Path, **values: object) -> None:
    """Other values in a JSON file; None takes one out."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(UserError) as refused:
        call(*arguments, **named)
    return str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("each", families.FAMILIES, ids=lambda each: each.name)
def test_a_processor_opens_for_pictures_alone_and_is_the_same_after_saving(written, tmp_path, each):
    folder = written(each)
    processor = open_processor(str(folder))
    assert type(processor).__name__ == each.processor
    assert type(processor.image_processor).__name__.endswith("Pil")
    processor.save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    again = open_processor(str(tmp_path))
    first, second = (Prompter(one).encode(PICTURE, "what is the colour ?") for one in (processor, again))
    assert first.tokens == second.tokens
    assert all(np.array_equal(first.image[key], second.image[key]) for key in first.image)


def test_the_settings_of_the_video_part_are_kept_for_those_who_can_open_it(written, tmp_path):
    folder = shutil.copytree(written(family("Qwen2-VL")), tmp_path / "qwen")
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "max_frames": 7}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    open_processor(str(folder)).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    assert saved["video_processor"] == video
    assert saved["processor_class"] == "Qwen2VLProcessor"


def test_another_way_of_building_processors_is_answered_with_the_versions_that_are_known(written, monkeypatch):
    def changed(*_: object, **__: object) -> None:
        raise TypeError("from_args_and_dict() takes 7 arguments")

    monkeypatch.setattr("transformers.ProcessorMixin.from_args_and_dict", changed)
    text = refusal(open_processor, str(written(family("Qwen2-VL"))))
    assert "takes 7 arguments" in text and f"Install a version from {OLDEST} to {NEWEST}" in text


def test_a_template_that_only_the_tokenizer_has_counts(llava):
    (llava / "chat_template.jinja").unlink()
    change(llava / "tokenizer_config.json", chat_template="{{ messages[0]['role'] }}")
    assert Prompter(open_processor(str(llava))).chat("what") == "user"


def test_a_model_without_chat_template_is_refused(llava):
    (llava / "chat_template.jinja").unlink()
    change(llava / "tokenizer_config.json", chat_template=None)
    assert "has no chat template" in refusal(check_model, str(llava))


def test_a_text_model_is_named_and_what_is_needed(tmp_path):
    config = LlamaConfig(vocab_size=99, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    for call in (check_model, open_model):
        text = refusal(call, str(tmp_path))
        assert "is not a vision-language model but a LlamaForCausalLM (llama)" in text
        assert "AutoModelForImageTextToText" in text


def test_a_text_model_with_a_tokenizer_alone_is_refused_by_its_files(tmp_path):
    config = LlamaConfig(vocab_size=99, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert "lacks a processor" in refusal(check_model, str(tmp_path))


def test_code_beside_the_weights_is_named_with_its_switch_and_never_run(llava, tmp_path):
    ran = tmp_path / "ran"
    (llava / "modeling.py").write_text(f"open({str(ran)!r}, 'w')")
    code = {"AutoConfig": "modeling.Config", "AutoModelForImageTextToText": "modeling.Model"}
    change(llava / "config.json", model_type="homemade", auto_map=code)
    for call in (check_model, open_model, open_processor, open_config):
        text = refusal(call, str(llava))
        assert "modeling.Model" in text and "loading.student.remote_code: true" in text and str(llava) in text
    assert not ran.exists()


def test_code_that_is_allowed_is_run(llava):
    (llava / "homemade.py").write_text(
        "from transformers import LlavaConfig, LlavaForConditionalGeneration\n"
        "class Config(LlavaConfig):\n    model_type = 'homemade'\n"
        "class Model(LlavaForConditionalGeneration):\n    config_class = Config\n"
    )
    code = {"AutoConfig": "homemade.Config", "AutoModelForImageTextToText": "homemade.Model"}
    change(llava / "config.json", model_type="homemade", auto_map=code)
    # transformers renames the weights of families that it knows only.
    weights = {name.replace("language_model.lm_head", "lm_head"): w for name, w in load_file(llava / WEIGHTS).items()}
    save_file(weights, llava / WEIGHTS, {"format": "pt"})
    allowed = LoadingSettings(remote_code=True)
    assert type(open_model(str(llava), allowed)).__name__ == "Model"
    assert type(open_processor(str(llava), allowed)).__name__ == "LlavaProcessor"


def test_code_for_something_else_is_told_what_is_needed(llava):
    change(llava / "config.json", model_type="homemade", auto_map={"AutoModel": "modeling.Model"})
    text = refusal(check_model, str(llava), LoadingSettings(remote_code=True))
    assert "offers AutoModel but no AutoModelForImageTextToText" in text


def test_a_family_that_this_transformers_does_not_know_is_named(llava):
    change(llava / "config.json", model_type="llava_9000")
    text = refusal(check_model, str(llava))
    assert "'llava_9000'" in text and "pip install --upgrade transformers" in text


@pytest.mark.parametrize("content", ["", "[1", "[]", "null", "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_named_with_what_to_do(llava, content):
    (llava / "config.json").write_text(content)
    for call in (check_model, open_model, open_processor):
        text = refusal(call, str(llava))
        assert f"{llava / 'config.json'} is damaged" in text and "download it again" in text


def test_a_configuration_that_makes_no_sense_is_refused(llava):
    (llava / "config.json").write_text('{"model_type": "llava", "text_config": 3}')
    assert f"cannot load the configuration of {llava}" in refusal(check_model, str(llava))


def test_a_broken_processor_is_refused(llava):
    (llava / "preprocessor_config.json").write_text("{")
    (llava / "processor_config.json").write_text("{")
    assert f"{llava / 'processor_config.json'} is damaged" in refusal(check_model, str(llava))


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("Package `num2words` is required. Install it with `pip install num2words`.", "pip install num2words"),
        ("No module named 'timm'", "pip install timm"),
    ],
)
def test_a_missing_package_is_answered_with_its_install_line(llava, monkeypatch, message, line):
    def needs(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(message, name="timm.layers")

    monkeypatch.setattr(loading, "read_processor", needs)
    assert f"Install it: {line}" in refusal(open_processor, str(llava))


def test_damaged_weights_are_named(llava):
    file = llava / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    for call in (check_model, open_model):
        text = refusal(call, str(llava))
        assert "damaged: model.safetensors" in text and "download it again" in text


def test_damaged_files_beside_the_weights_do_no_harm(llava):
    (llava / "consolidated.safetensors").write_bytes(b"half of another program's")
    check_model(str(llava))


def test_missing_weights_are_counted_and_named(llava):
    weights = load_file(llava / WEIGHTS)
    gone = [name for name in weights if name.endswith("o_proj.weight")]
    save_file({name: weights[name] for name in weights if name not in gone}, llava / WEIGHTS, {"format": "pt"})
    assert f"lacks {len(gone)} weights, such as" in refusal(open_model, str(llava))


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_a_model_that_does_not_fit_is_told_what_would_help(llava, monkeypatch, problem):
    def full(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", full)
    with pytest.raises(WorkFailed) as failed:
        open_model(str(llava))
    for help_ in ("does not fit", "bfloat16", "quantise: 4bit", "device_map: auto", "pixels"):
        assert help_ in str(failed.value)


def test_dtype_attention_and_place_are_as_asked(llava):
    loading = LoadingSettings(dtype="bfloat16", attention="eager", device_map="auto")
    model, processor = open_model(str(llava), loading), open_processor(str(llava), loading)
    told = described(model, processor)
    assert (told["dtype"], told["attention"], told["image_processor"]) == ("bfloat16", "eager", "CLIPImageProcessorPil")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert next(open_model(str(llava), loading, dtype=torch.float32).parameters()).dtype == torch.float32


def test_what_this_machine_lacks_is_told_before_anything_is_loaded(llava, monkeypatch):
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = refusal(check_model, str(llava), LoadingSettings(quantise="4bit"))
    assert "pip install 'parityalign[quantised]'" in text
    text = refusal(check_model, str(llava), LoadingSettings(attention="flash_attention_2"))
    assert "needs a GPU" in text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    text = refusal(check_model, str(llava), LoadingSettings(attention="flash_attention_2"))
    assert "pip install flash-attn" in text


IMAGE_PROCESSORS = {
    "Qwen2-VL, Qwen2.5-VL": ("Qwen2VL", {"min_pixels": 3136, "max_pixels": 12845056}),
    "Qwen3-VL": ("Qwen2VL", {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16}),
    "GLM-4V": ("Glm4v", {}),
    "SmolVLM": ("SmolVLM", {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}),
    "Idefics3": ("Idefics3", {"size": {"longest_edge": 460}, "max_image_size": {"longest_edge": 92}}),
    "InternVL": ("GotOcr2", {"size": {"height": 56, "width": 56}, "crop_to_patches": True, "max_patches": 12}),
    "LLaVA-NeXT": (
        "LlavaNext",
        {
            "size": {"shortest_edge": 42},
            "crop_size": {"height": 42, "width": 42},
            "image_grid_pinpoints": [[42, 84], [84, 42], [84, 84], [126, 42], [42, 126]],
        },
    ),
    "LLaVA-OneVision": (
        "LlavaOnevision",
        {
            "size": {"height": 48, "width": 48},
            "image_grid_pinpoints": [[48 * a, 48 * b] for a in range(1, 7) for b in range(1, 7)],
        },
    ),
    "MiniCPM-V 4.6": ("MiniCPMV4_6", {"scale_resolution": 64, "patch_size": 8}),
    "Ovis2": ("Ovis2", {"size": {"height": 48, "width": 48}, "crop_to_patches": True}),
    "LLaVA": ("CLIP", {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}),
    "PaliGemma": ("Siglip", {"size": {"height": 224, "width": 224}}),
    "Gemma 3": ("Gemma3", {"size": {"height": 896, "width": 896}}),
}
"""The image processors of the families as in published models, those that cut pictures into tiles with smaller ones."""
FIXED = {"LLaVA": 336**2, "PaliGemma": 224**2, "Gemma 3": 896**2}
LEAST = {"SmolVLM": 64**2, "Idefics3": 92**2, "InternVL": 56**2, "LLaVA-NeXT": 3 * 42**2, "LLaVA-OneVision": 2 * 48**2}
LEAST |= {"MiniCPM-V 4.6": 64**2, "Ovis2": 48**2}
SIZES = ((160, 120), (450, 150), (150, 450), (400, 400), (30, 30))


def image_processor(name: str):
    kind, settings = IMAGE_PROCESSORS[name]
    return get_image_processor_class_from_name(f"{kind}ImageProcessorPil")(**settings)


def looked_at(processor, size: tuple[int, int]) -> int:
    """How many pixels go into the vision tower for a picture of this size."""
    pixels = processor(images=[Image.new("RGB", size, "red")], return_tensors="np")["pixel_values"]
    return pixels.shape[0] * processor.patch_size**2 if pixels.ndim == 2 else pixels.size // 3


@pytest.mark.parametrize("name", [name for name in IMAGE_PROCESSORS if name not in FIXED])
def test_a_limit_of_pixels_holds_for_pictures_of_any_shape(name):
    free = image_processor(name)
    most = max(looked_at(free, size) for size in SIZES)
    for limit in (most // 2, most // 5, LEAST.get(name, 20_000)):
        limited = image_processor(name)
        limit_pixels(limited, max(limit, LEAST.get(name, 0)))
        assert max(looked_at(limited, size) for size in SIZES) <= max(limit, LEAST.get(name, 0))
    limit_pixels(free, 10**9)
    assert max(looked_at(free, size) for size in SIZES) == most  # a limit never raises what a family takes


@pytest.mark.parametrize(("name", "least"), [*FIXED.items(), *LEAST.items(), ("Qwen3-VL", 32**2)])
def test_a_limit_below_what_a_family_always_looks_at_is_refused_with_the_number(name, least):
    limit_pixels(image_processor(name), least)
    assert f"always uses {least} or more" in refusal(limit_pixels, image_processor(name), least - 1)


def test_an_image_processor_that_is_not_known_is_named():
    class Homemade:
        size = {"longest_edge": 100}  # noqa: RUF012

    assert "of a Homemade" in refusal(limit_pixels, Homemade(), 50)


@pytest.mark.parametrize("name", ["LLaVA-NeXT", "LLaVA-OneVision"])
def test_a_model_that_chooses_its_tiling_knows_the_limit_too(written, name):
    folder = written(family(name))
    free = open_processor(str(folder))
    limit = max(height * width for height, width in free.image_processor.image_grid_pinpoints)  # too little for all
    loading = LoadingSettings(max_pixels=limit)
    processor, model = open_processor(str(folder), loading), open_model(str(folder), loading)
    assert model.config.image_grid_pinpoints == processor.image_processor.image_grid_pinpoints
    assert len(model.config.image_grid_pinpoints) < len(free.image_processor.image_grid_pinpoints)
    encoded = [Prompter(one).encode(PICTURE.resize((400, 400)), "what") for one in (free, processor)]
    assert len(encoded[1].tokens) < len(encoded[0].tokens)
    inputs = {key: torch.from_numpy(value) for key, value in encoded[1].image.items()}
    with torch.inference_mode():  # refuses image features that do not fill the places in the prompt
        model(input_ids=torch.tensor([encoded[1].tokens]), **inputs)


def test_weights_in_8_bits_answer_on_a_machine_without_gpu_too(llava, tmp_path):
    pytest.importorskip("bitsandbytes")
    model = open_model(str(llava), LoadingSettings(quantise="8bit"))
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear8bitLt" in kinds
    image = Prompter(open_processor(str(llava))).encode(PICTURE, "what")
    inputs = {key: torch.from_numpy(value) for key, value in image.image.items()}
    with torch.inference_mode():
        assert model(input_ids=torch.tensor([image.tokens]), **inputs).logits.isfinite().all()


def test_a_manifest_can_tell_how_the_models_of_a_stage_ran(llava, tmp_path):
    (tmp_path / "pool").mkdir()
    spec, tasks = f"hf:{llava}", {"textvqa": {"images": (str(tmp_path / "pool"),)}}
    config = RunConfig.model_validate({"run": tmp_path / "run", "teacher": spec, "student": spec, "tasks": tasks})
    with preflight.open_run_folder(config, mute) as run:
        made = run.folder.artifact("pairs", inputs={}, settings={})
        run.models.begin("annotate", made)
        run.student.loaded()
        made.finish({})
    told = made.manifest["models"]
    assert list(told) == ["before"]
    assert told["before"]["image_processor"] == "CLIPImageProcessorPil" and told["before"]["dtype"] == "float32"
    assert str(tmp_path) not in json.dumps(told)


def test_a_stage_that_is_continued_elsewhere_tells_of_both_machines(tmp_path, monkeypatch):
    config = load_config(make_project(tmp_path) / "run.yaml")
    for place in ("cpu", "cuda:0", "cpu"):
        monkeypatch.setattr(FakeModel, "facts", {"device": place, "dtype": "float32"}, raising=False)
        with preflight.open_run_folder(config, mute) as run:
            made = run.folder.artifact("pairs", inputs={}, settings={})
            run.models.begin("annotate", made)
            run.teacher.loaded()
    with preflight.open_run_folder(config, mute) as run:
        made = run.folder.artifact("pairs", inputs={}, settings={})
        run.models.begin("annotate", made)
        made.finish({})
    assert made.manifest["models"] == {"teacher": {"device": "cpu, then cuda:0", "dtype": "float32"}}


def test_a_run_that_begins_refuses_a_model_that_it_could_not_use(llava, tmp_path):
    (llava / "chat_template.jinja").unlink()
    change(llava / "tokenizer_config.json", chat_template=None)
    (tmp_path / "pool").mkdir()
    tasks = {"textvqa": {"images": (str(tmp_path / "pool"),)}}
    said = {"run": tmp_path / "run", "teacher": "http://host/v1#any", "student": f"hf:{llava}", "tasks": tasks}
    with (
        pytest.raises(UserError, match="has no chat template"),
        preflight.open_run_folder(RunConfig.model_validate(said), mute),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_a_manifest_tells_of_a_model_that_is_in_memory_since_the_stage_before(tmp_path, monkeypatch):
    config = load_config(make_project(tmp_path) / "run.yaml")
    monkeypatch.setattr(FakeModel, "facts", {"device": "cpu"}, raising=False)
    picture = str(next((tmp_path / "pool").glob("*.png")))
    with preflight.open_run_folder(config, mute) as run:
        for name, stage in (("pairs", "annotate"), ("verdicts", "identify")):
            made = run.folder.artifact(name, inputs={}, settings={})
            run.models.begin(stage, made)
            asked = Asked(name, picture, f"What is written, for {stage}?", "")
            run.teacher.answer([asked], decoding=Decoding(5), batch_size=1, on_progress=lambda *_: None)
            made.finish({})
            assert made.manifest["models"] == {"teacher": {"device": "cpu"}}
