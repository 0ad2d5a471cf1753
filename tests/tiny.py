"""Tiny untrained vision-language models of transformers' real classes, saved as ordinary folders."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import (
    CLIPVisionConfig,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    ResNetConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from parityalign.core.records import Pair
from parityalign.training.weighted_loss import WeightedLoss

ANSWER = WeightedLoss({"answer": (1.0, 1.0)})
"""The paper's objective."""
SIDE, PATCH = 32, 8
WORDS = ("what", "is", "the", "colour", "shape", "answer", "question:", "answer:", "red", "green", "blue", "square")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Changed(WeightedLoss):
    """The paper's objective with something done to each loss."""

    def __init__(self, change: Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]) -> None:
        super().__init__({"answer": (1.0, 1.0)})
        self._change = change

    def __call__(self, model, batch, done=1.0):
        return self._change(super().__call__(model, batch, done), batch)


def tokenizer(pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """Known words as one token, anything else by character; `pad` may be the end token itself."""
    characters = [chr(code) for code in range(33, 127)]
    special = ["<pad>", "</s>", "<image>", "<|user|>", "<|assistant|>", "<unk>"]
    pieces = [*special, *characters, *(f"##{char}" for char in characters), *WORDS]
    built = Tokenizer(WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token=pad, eos_token="</s>", unk_token="<unk>", additional_special_tokens=special
    )


def processor(pad: str = "<pad>", chat_template: str | None = CHAT_TEMPLATE, **kwargs: object) -> LlavaProcessor:
    """Any image becomes SIDE x SIDE pixels and one token for each patch."""
    size = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, do_center_crop=False),
        tokenizer=tokenizer(pad),
        patch_size=PATCH,
        vision_feature_select_strategy=kwargs.get("select", "full"),
        num_additional_image_tokens=kwargs.get("extra", 0),
        chat_template=chat_template,
    )


def fast_vlm(folder: Path, *, text: str = "qwen2", dtype: torch.dtype = torch.float32, pad: str = "<pad>") -> Path:
    """A ResNet (with batch norm) before a Qwen2 or a Llama."""
    tower = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        hidden_size=16,
    )
    language = (Qwen2Config if text == "qwen2" else LlamaConfig)(**_language())
    config = FastVlmConfig(
        vision_config=tower, text_config=language, image_token_index=2, image_seq_length=(SIDE // PATCH) ** 2
    )
    return _save(folder, FastVlmForConditionalGeneration, config, processor(pad), dtype)


def llava(folder: Path, *, dtype: torch.dtype = torch.float32, pad: str = "<pad>", width: int = 16) -> Path:
    """A CLIP tower of a width before a Llama that is twice as wide."""
    tower = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=width,
    )
    language = LlamaConfig(**_language() | {"hidden_size": 2 * width, "intermediate_size": 4 * width})
    config = LlavaConfig(vision_config=tower, text_config=language, image_token_index=2, vision_feature_layer=-1)
    # The tower's class token is made and then left out: one more, one less.
    reader = processor(pad, select="default", extra=1)
    return _save(folder, LlavaForConditionalGeneration, config, reader, dtype)


def drawn(folder: Path, count: int, *, sizes: Sequence[tuple[int, int]] = ((40, 40), (64, 24), (20, 50))) -> list[str]:
    """Image files of mixed sizes, each with a square of its own colour and place."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        image = Image.new("RGB", size, "white")
        corner = (number * 3) % (min(size) // 2)
        colour = (number * 67 % 256, number * 131 % 256, number * 29 % 256)
        ImageDraw.Draw(image).rectangle((corner, corner, corner + 9, corner + 9), fill=colour)
        paths.append(str(folder / f"{number}.png"))
        image.save(paths[-1])
    return paths


def pairs(images: Sequence[str], answers: Sequence[str]) -> list[Pair]:
    """One of the task `toy` for each image, with questions of three lengths and the answers in turn."""
    return [
        Pair(
            pair_id=str(number),
            image_id=str(number),
            image=image,
            task="toy",
            question="what is the " + "shape " * (number % 3),
            answer=answers[number % len(answers)],
            teacher="fake:teacher",
        )
        for number, image in enumerate(images)
    ]


def _language() -> dict[str, object]:
    return {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": 0.3,  # wide, so that an untrained model has something to say
    }


def _save(
    folder: Path, kind: type[PreTrainedModel], config: object, reader: LlavaProcessor, dtype: torch.dtype
) -> Path:
    torch.manual_seed(0)
    model = kind(config).to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    model.generation_config.eos_token_id = 1
    model.generation_config.pad_token_id = reader.tokenizer.pad_token_id
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    return folder
