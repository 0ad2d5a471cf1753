"""Image and prompt to model input: upright images on white, prompts that cannot break out, padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from parityalign.core.errors import WorkFailed
from parityalign.models.encoding import Encoded, Prompter, read_image
from parityalign.models.stacking import stack

texts = st.lists(st.sampled_from(["what", "is", "red", "<image>", "</s>", "<|user|>", "<pad>", "<unk", ">", "é"]))


@pytest.fixture(scope="module")
def processor():
    return tiny.processor()


def test_an_image_is_turned_upright(tmp_path):
    image = Image.new("RGB", (20, 10), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    seen = read_image(str(tmp_path / "a.png"))
    assert seen.size == (10, 20)
    assert seen.getpixel((9, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_seen_as_white(tmp_path, mode):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.putpixel((1, 1), (0, 0, 0, 255))
    clear.convert(mode).save(tmp_path / "a.png")
    seen = read_image(str(tmp_path / "a.png"))
    assert (seen.mode, seen.getpixel((0, 0)), seen.getpixel((1, 1))) == ("RGB", (255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / "a.tiff")
    assert read_image(str(tmp_path / "a.tiff")).getpixel((0, 0)) == (255, 255, 255)


def test_an_image_that_is_gone_is_named(tmp_path):
    with pytest.raises(WorkFailed, match=r"nowhere\.png"):
        read_image(str(tmp_path / "nowhere.png"))


def test_the_prompt_is_tokenised_as_transformers_would(processor):
    image = Image.new("RGB", (30, 50), "green")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is the colour ?"}]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="np",
    )
    encoded = Prompter(processor).encode(image, "what is the colour ?")
    assert encoded.tokens == expected["input_ids"][0].tolist()
    seen = stack([encoded], pad_token=0, side="left")["pixel_values"]
    np.testing.assert_array_equal(seen.numpy(), expected["pixel_values"])


@settings(max_examples=30, deadline=None)
@given(texts)
def test_no_prompt_can_write_special_tokens(words):
    processor = tiny.processor()
    tokens = Prompter(processor).encode(Image.new("RGB", (8, 8)), " ".join(words)).tokens
    ids = processor.tokenizer.convert_tokens_to_ids
    places = (tiny.SIDE // tiny.PATCH) ** 2
    assert [tokens.count(ids(token)) for token in ("<image>", "</s>", "<|user|>", "<pad>")] == [places, 0, 1, 0]


def test_a_template_that_begins_the_text_itself_is_not_begun_twice():
    processor = tiny.processor(chat_template="</s>" + tiny.CHAT_TEMPLATE)
    processor.tokenizer.bos_token = "</s>"
    processor.tokenizer.add_bos_token = True
    tokens = Prompter(processor).encode(Image.new("RGB", (8, 8)), "what").tokens
    assert tokens.count(processor.tokenizer.bos_token_id) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5), st.booleans())
def test_rows_keep_their_tokens_whatever_the_padding(rows, left):
    side = "left" if left else "right"
    encoded = [Encoded({"input_ids": row}, {"pixel_values": np.zeros((1, 2))}) for row in rows]
    batch = stack(encoded, pad_token=0, side=side)
    for row, tokens, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        assert tokens[mask == 1].tolist() == row
        assert not tokens[mask == 0].any()
        assert mask[0 if side == "right" else -1] == 1
    assert batch["pixel_values"].shape == (len(rows), 2)


def test_images_of_unequal_tiles_are_filled_up_with_zeros():
    rows = [Encoded({"input_ids": [1]}, {"pixel_values": np.ones((1, tiles, 3))}) for tiles in (1, 3)]
    pixels = stack(rows, pad_token=0, side="left")["pixel_values"]
    assert pixels.shape == (2, 3, 3)
    assert pixels.sum(axis=(1, 2)).tolist() == [3, 9]
