"""Builds the embedded models as ordinary Hugging Face parts: tokenizer, processor, chat template, untrained model.

Both are `FastVlmForConditionalGeneration`: a ResNet with batch norm feeds its last feature map as image tokens to a
small language model, Llama for the teacher and Qwen2 for the student. Towers of plain convolutions learn to read in
minutes where patch-embedding towers need hours; FastVLM is the class of transformers that takes a convolutional map.
"""

from collections.abc import Iterable
from random import Random
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import (
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlamaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    ResNetConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from parityalign.demo.canvas import SIDE
from parityalign.demo.worlds import WORLDS

PATCH = 32
"""Pixels a side that become one image token: 16 tokens a picture."""
PAD, END, IMAGE, USER, ASSISTANT, UNKNOWN = "<pad>", "</s>", "<image>", "<|user|>", "<|assistant|>", "<unk>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PICTURES_FOR_WORDS = 4000


def words_of_the_worlds() -> list[str]:
    """Every word of every fact, from enough pictures to have met them all; sorted."""
    words = {"question:", "answer:"}
    for draw in WORLDS.values():
        for seed in range(_PICTURES_FOR_WORDS):
            for fact in draw(Random(seed)).facts:
                words.update(f"{fact.question} {fact.answer}".replace("?", " ?").lower().split())
    return sorted(words)


def build_tokenizer(words: Iterable[str], phrases: Iterable[str]) -> PreTrainedTokenizerFast:
    """Lower-case words as single tokens, any other ASCII text by character; fixed phrases are one token each."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [PAD, END, IMAGE, USER, ASSISTANT, UNKNOWN, *characters, *(f"##{char}" for char in characters)]
    pieces += [word for word in words if len(word) > 1]
    model = WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token=UNKNOWN)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\?"), "isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    make_tokenizer: Any = PreTrainedTokenizerFast  # untyped
    fast: PreTrainedTokenizerFast = make_tokenizer(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([AddedToken(phrase, normalized=False, lstrip=True, rstrip=True) for phrase in phrases])
    return fast


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Any picture becomes `SIDE` x `SIDE` pixels, any chat becomes tokens with 16 image places."""
    pictures = CLIPImageProcessorPil(
        do_resize=True,
        size={"height": SIDE, "width": SIDE},
        resample=2,
        do_center_crop=False,
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    make_processor: Any = LlavaProcessor  # untyped
    processor: LlavaProcessor = make_processor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=0,
    )
    return processor


def _tower(stem: int, widths: list[int], depths: list[int]) -> ResNetConfig:
    # `hidden_size` is what FastVLM's projector asks a tower for; a ResNet does not have it by itself.
    extra: dict[str, Any] = {"hidden_size": widths[-1]}
    return ResNetConfig(embedding_size=stem, hidden_sizes=widths, depths=depths, layer_type="basic", **extra)


def _language(width: int, layers: int, inner: int, heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }


def build_model(name: str, vocabulary: int) -> FastVlmForConditionalGeneration:
    """The untrained `teacher` or `student`."""
    if name == "teacher":
        tower = _tower(32, [32, 64, 128, 256], [1, 1, 1, 2])
        text: PreTrainedConfig = LlamaConfig(**_language(256, 4, 640, 4, vocabulary))
    else:
        tower = _tower(16, [24, 48, 96, 128], [1, 1, 1, 1])
        text = Qwen2Config(**_language(128, 3, 192, 4, vocabulary))
    ends: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1}
    config = FastVlmConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=2,
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=True,
        **ends,
    )
    return FastVlmForConditionalGeneration(config)
