"""Where image tokens look, held against what real vision towers of tiny random size answer to one mark in a picture."""

import inspect
from functools import cache

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

import families
import spellings
import tiny
from parityalign.core.errors import UserError
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.models.token_boxes import GRID, TokenBoxes, can_place, pooled, spread_over_cells

EDGE = {"shortest_edge": 96}
SQUARE = {"height": 96, "width": 96}
CHOICES = [[96, 192], [192, 96], [192, 192], [96, 288], [288, 96]]
SIZES = [(240, 90), (80, 200), (24, 16), (301, 223)]
"""Wide, tall, smaller than a tile, larger."""
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": 4,
}
TEXT = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def without_video(kind):
    """The processor's class as it works without torchvision."""

    class ImagesOnly(kind):
        @classmethod
        def get_attributes(cls):
            return ["image_processor", "tokenizer"]

        def __init__(self, *args, **kwargs):
            super().__init__(*args, video_processor=None, **kwargs)

    ImagesOnly.__name__ = kind.__name__
    return ImagesOnly


def llava(images):
    vision = hf.CLIPVisionConfig(**TOWER)
    model = hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=vision, text_config=hf.LlamaConfig(**TEXT)))
    reader = hf.LlavaProcessor(
        images,
        spellings.llama(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return reader, model


def smolvlm():
    images = SmolVLMImageProcessorPil(size={"longest_edge": 192}, max_image_size={"longest_edge": 96})
    with pytest.MonkeyPatch.context() as patch:  # asked for while it is made, and used for videos only
        patch.setattr(processing_smolvlm, "num2words", str)
        reader = without_video(hf.SmolVLMProcessor)(images, spellings.smolvlm(), image_seq_len=144)
    config = hf.SmolVLMConfig(vision_config=TOWER, text_config=hf.LlamaConfig(**TEXT), scale_factor=2)
    return reader, hf.SmolVLMForConditionalGeneration(config)


def llava_next():
    images = LlavaNextImageProcessorPil(size=EDGE, crop_size=SQUARE, image_grid_pinpoints=CHOICES)
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER), text_config=hf.LlamaConfig(**TEXT), image_grid_pinpoints=CHOICES
    )
    reader = hf.LlavaNextProcessor(
        images,
        spellings.llama(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return reader, hf.LlavaNextForConditionalGeneration(config)


def llava_onevision(most=9, side=96):
    choices = [[side * rows, side * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    square = {"height": side, "width": side}
    images = LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=choices)
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER | {"image_size": side}, vision_use_head=False),
        text_config=hf.Qwen2Config(**TEXT),
        image_grid_pinpoints=choices,
        vision_aspect_ratio=f"anyres_max_{most}",
    )
    reader = without_video(hf.LlavaOnevisionProcessor)(
        images,
        spellings.onevision(),
        num_image_tokens=(side // 4) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{most}",
    )
    return reader, hf.LlavaOnevisionForConditionalGeneration(config)


def qwen(kind, config, model, **vision):
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 128**2, "longest_edge": 256**2}, patch_size=4)
    reader = without_video(kind)(images, spellings.qwen())
    vision = {"depth": 2, "num_heads": 2, "patch_size": 4, "hidden_size": 16, "intermediate_size": 32} | vision
    return reader, model(
        config(
            vision_config=vision,
            text_config=TEXT | {"rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default"}},
        )
    )


def idefics3(size=288, split=True):
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": size}, max_image_size={"longest_edge": 96}, do_image_splitting=split
    )
    reader = hf.Idefics3Processor(images, spellings.idefics(), image_seq_len=144)
    config = hf.Idefics3Config(vision_config=TOWER, text_config=hf.LlamaConfig(**TEXT), scale_factor=2)
    return reader, hf.Idefics3ForConditionalGeneration(config)


def internvl():
    images = GotOcr2ImageProcessorPil(size=SQUARE, max_patches=6)
    reader = without_video(hf.InternVLProcessor)(images, spellings.internvl(), image_seq_length=144)
    vision = TOWER | {"image_size": [96, 96], "patch_size": [4, 4]}
    config = hf.InternVLConfig(vision_config=vision, text_config=hf.Qwen2Config(**TEXT), downsample_ratio=0.5)
    return reader, hf.InternVLForConditionalGeneration(config)


def gemma3(scan):
    images = Gemma3ImageProcessorPil(
        size=SQUARE,
        do_pan_and_scan=scan,
        pan_and_scan_min_crop_size=16,
        pan_and_scan_max_num_crops=4,
        pan_and_scan_min_ratio_to_activate=1.2,
    )
    reader = hf.Gemma3Processor(images, spellings.gemma3(), image_seq_length=144)
    config = hf.Gemma3Config(
        vision_config=TOWER | {"vision_use_head": False}, text_config=TEXT | {"head_dim": 8}, mm_tokens_per_image=144
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    return reader, model


def paligemma():
    images = SiglipImageProcessorPil(size=SQUARE)
    images.image_seq_length = 576
    config = hf.PaliGemmaConfig(
        vision_config=TOWER | {"projection_dim": 16, "vision_use_head": False},
        text_config=TEXT | {"model_type": "gemma", "head_dim": 8},
    )
    return hf.PaliGemmaProcessor(images, spellings.paligemma()), hf.PaliGemmaForConditionalGeneration(config)


FAMILIES = {
    "llava squeezed": lambda: llava(CLIPImageProcessorPil(size=SQUARE, do_center_crop=False)),
    "llava cropped": lambda: llava(LlavaImageProcessorPil(size=EDGE, crop_size=SQUARE)),
    "llava padded": lambda: llava(LlavaImageProcessorPil(size=EDGE, crop_size=SQUARE, do_pad=True)),
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "llava_onevision, features shrunk": lambda: llava_onevision(most=2),
    "llava_onevision, ragged tiles": lambda: llava_onevision(side=98),
    "qwen2_vl": lambda: qwen(hf.Qwen2VLProcessor, hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, embed_dim=16),
    "qwen2_5_vl": lambda: qwen(
        hf.Qwen2_5_VLProcessor,
        hf.Qwen2_5_VLConfig,
        hf.Qwen2_5_VLForConditionalGeneration,
        out_hidden_size=16,
        window_size=16,
        fullatt_block_indexes=[1],
    ),
    "qwen3_vl": lambda: qwen(
        hf.Qwen3VLProcessor,
        hf.Qwen3VLConfig,
        hf.Qwen3VLForConditionalGeneration,
        out_hidden_size=16,
        deepstack_visual_indexes=[0],
        num_position_embeddings=64,
    ),
    "idefics3": idefics3,
    "idefics3, one tile": lambda: idefics3(split=False),
    "smolvlm": smolvlm,
    "internvl": internvl,
    "gemma3": lambda: gemma3(scan=False),
    "gemma3, pan and scan": lambda: gemma3(scan=True),
    "paligemma": paligemma,
}


@cache
def family(name):
    torch.manual_seed(0)
    reader, model = FAMILIES[name]()
    return TokenBoxes(reader), reader, model.eval()


def features(reader, model, picture):
    """The prompt's tokens, and what the vision tower and what follows it make of a picture: (image tokens, width)."""
    inputs = reader(images=[picture], text=[reader.image_token], return_tensors="pt")
    taken = inspect.signature(model.get_image_features).parameters
    with torch.inference_mode():
        made = model.get_image_features(**{key: inputs[key] for key in inputs if key in taken}).pooler_output
    rows = made if isinstance(made, list | tuple) else [made]
    return inputs["input_ids"][0].tolist(), torch.cat([row.reshape(-1, row.shape[-1]) for row in rows])


def marked(size, cell):
    """A dark picture with one cell of the grid white; no cell: without a mark."""
    picture = Image.new("RGB", size, (30, 30, 30))
    if cell:
        top, left = (round(part * side / GRID) for part, side in zip(cell, reversed(size), strict=True))
        bottom, right = (round((part + 1) * side / GRID) for part, side in zip(cell, reversed(size), strict=True))
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill="white")
    return picture


def looked_at(name, size, cell):
    """The map of a model that looks at each token as much as the mark changed it."""
    token_boxes, reader, model = family(name)
    tokens, with_mark = features(reader, model, marked(size, cell))
    _, without = features(reader, model, marked(size, None))
    positions, boxes = token_boxes.locate(size, tokens)
    assert len(positions) == len(with_mark)
    return pooled((with_mark - without).norm(dim=-1).numpy(), boxes)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_peaks_in_the_cell_that_holds_the_mark(name, size):
    for cell in [(3, 4), (4, 3)] if name == "llava cropped" else [(0, 7), (5, 2)]:
        found = looked_at(name, size, cell)
        assert found.sum() == pytest.approx(1)
        assert np.unravel_index(found.argmax(), found.shape) == cell, found.round(2)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["llava_next", "idefics3", "internvl"]),
    st.tuples(st.integers(16, 200), st.integers(16, 200)),
    st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_tiles_are_put_together_for_any_picture_and_cell(name, size, cell):
    assume(max(size) < 4 * min(size))
    found = looked_at(name, size, cell)
    assert np.unravel_index(found.argmax(), found.shape) == cell, found.round(2)


@pytest.mark.parametrize("kind", families.FAMILIES, ids=lambda kind: kind.name)
def test_the_chats_of_each_family_have_a_place_for_each_image_token(kind, tmp_path):
    if kind.name == "SmolVLM":
        pytest.importorskip("num2words")
    reader = open_processor(str(families.write(tmp_path, kind)))
    token_boxes, prompter = TokenBoxes(reader), Prompter(reader)
    for size in [(90, 30), (31, 64), (40, 40)]:
        tokens = prompter.encode(Image.new("RGB", size), "what is the colour").tokens
        positions, boxes = token_boxes.locate(size, tokens)
        assert len({tokens[position] for position in positions}) == 1
        assert spread_over_cells(boxes).sum() > 1


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_bundled_models_see_the_whole_picture_squeezed(name):
    edges = np.linspace(0, 1, 5)
    expected = [(edges[x], edges[y], edges[x + 1], edges[y + 1]) for y in range(4) for x in range(4)]
    boxes = TokenBoxes(open_processor(str(EMBEDDED_MODELS / name))).boxes((200, 90))
    np.testing.assert_allclose(boxes, expected, atol=0.003)


def test_boxes_undo_the_crop():
    # 300 x 100 becomes 288 x 96, of which the 96 pixels in the middle are shown as 24 tokens.
    boxes = family("llava cropped")[0].boxes((300, 100))
    edges = np.linspace(1 / 3, 2 / 3, 25)
    np.testing.assert_allclose(boxes[:24, [0, 2]], np.stack([edges[:-1], edges[1:]], axis=1), atol=0.003)
    assert boxes[[0, -1], [1, 3]] == pytest.approx([0, 1], abs=0.003)


def test_padding_is_no_place_and_boxes_reach_over_the_edge_where_tokens_show_both():
    # 240 x 90 is put on a square of 240: three of the square's eight parts show the picture, its edges cut tokens.
    boxes = family("llava padded")[0].boxes((240, 90)).reshape(24, 24, 4)
    seen = ~np.isnan(boxes[:, 0, 0])
    assert seen.tolist() == [7 <= row < 17 for row in range(24)]
    assert boxes[7, 0, 1] == pytest.approx(-1 / 18, abs=0.005)
    assert spread_over_cells(boxes[7]).sum(axis=1) == pytest.approx(0.5, abs=0.05)
    assert spread_over_cells(boxes[8]).sum(axis=1) == pytest.approx(1)


def test_ends_of_lines_have_no_place():
    boxes = family("llava_next")[0].boxes((200, 200))
    lines = boxes[24 * 24 :].reshape(48, 49, 4)
    assert np.isnan(lines[:, 48]).all()
    assert not np.isnan(lines[:, :48]).any()


def test_a_class_token_that_is_kept_has_no_place():
    places = (tiny.SIDE // tiny.PATCH) ** 2
    boxes = TokenBoxes(tiny.processor(extra=1)).boxes((50, 50))
    assert np.isnan(boxes).all(axis=1).tolist() == [True] + [False] * places


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (3, 200), (2, 2), (90, 2)], ids=str)
@pytest.mark.parametrize("name", ["llava squeezed", "llava padded", "llava_next", "idefics3", "qwen2_vl", "internvl"])
def test_a_line_of_pixels_is_placed_too(name, size):
    token_boxes, reader, _ = family(name)
    boxes = token_boxes.boxes(size)
    map_of_even_attention = pooled(np.ones(len(boxes)), boxes)
    assert map_of_even_attention.sum() == pytest.approx(1)
    assert (map_of_even_attention > 0).all()


def test_pictures_of_one_size_are_measured_once():
    reader = tiny.processor()
    token_boxes, calls = TokenBoxes(reader), []
    token_boxes._processor = CountedCalls(reader, calls)
    for _ in range(3):
        token_boxes.boxes((30, 20))
    measured = len(calls)
    token_boxes.boxes((20, 30))
    assert len(calls) == 2 * measured


class CountedCalls:
    """A processor that notes when it is called."""

    def __init__(self, reader, calls):
        self._reader, self._calls = reader, calls

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def __call__(self, **kwargs):
        self._calls.append(kwargs)
        return self._reader(**kwargs)


def test_boxes_that_are_kept_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        TokenBoxes(tiny.processor()).boxes((30, 20))[0] = 0


def test_an_unknown_family_is_refused_by_name():
    class FuyuProcessor:
        pass

    assert not can_place(FuyuProcessor())
    assert can_place(tiny.processor())
    with pytest.raises(UserError, match=r"cannot be placed for Fuyu(.|\n)*Known:.*LlavaNext"):
        TokenBoxes(FuyuProcessor())


def test_a_prompt_with_another_number_of_image_tokens_is_refused():
    token_boxes, reader, model = family("llava_next")
    tokens, _ = features(reader, model, marked((240, 80), None))
    with pytest.raises(UserError, match=f"LlavaNext: the prompt has {tokens.count(tokens[-1])} image tokens.*80x240"):
        token_boxes.locate((80, 240), tokens)


inside = st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.01, 0.1)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(st.lists(inside, min_size=1, max_size=5), st.integers(1, 9))
def test_attention_in_the_picture_is_shared_out_whole(boxes, grid):
    shares = spread_over_cells(np.array(boxes), grid)
    assert shares.shape == (len(boxes), grid * grid)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1)


@given(st.lists(inside, min_size=1, max_size=5))
def test_a_coarse_map_is_the_sum_of_a_fine_one(boxes):
    fine, coarse = (pooled(np.ones(len(boxes)), np.array(boxes), grid) for grid in (8, 4))
    np.testing.assert_allclose(fine.reshape(4, 2, 4, 2).sum(axis=(1, 3)), coarse, atol=1e-12)


@given(st.integers(1, 30), st.integers(1, 30))
def test_even_attention_on_even_tokens_is_an_even_map(rows, columns):
    boxes = [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]
    np.testing.assert_allclose(pooled(np.ones(len(boxes)), np.array(boxes)), 1 / GRID**2)


def test_tokens_without_a_place_count_for_nothing():
    boxes = np.array([(0, 0, 0.1, 0.1), (np.nan,) * 4, (0.2, 0.2, 0.2, 0.2), (1, 0, 1.1, 0.1)])
    assert pooled(np.array([1, 5, 5, 5]), boxes)[0, 0] == 1
    assert not pooled(np.array([0, 5, 5, 5]), boxes).any()


def test_a_map_made_with_torch_is_the_same_and_differentiable():
    boxes = family("llava_next")[0].boxes((240, 80))
    weights = torch.rand(len(boxes), dtype=torch.float64, requires_grad=True)
    cells = weights @ torch.from_numpy(spread_over_cells(boxes))
    cells[5].backward()
    np.testing.assert_allclose(
        (cells / cells.sum()).detach().reshape(GRID, GRID), pooled(weights.detach().numpy(), boxes)
    )
    np.testing.assert_allclose(weights.grad, spread_over_cells(boxes)[:, 5])
