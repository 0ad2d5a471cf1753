"""Tokenizers with each family's own special tokens, of transformers' real classes, and chat templates in its style."""

from collections.abc import Sequence

from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    CohereTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)

_WORDS = ("what", "is", "the", "colour", "shape", "red", "green", "blue", "square", "answer", "user", "assistant")
_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
_SENTENCE_PIECES = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(chr(code) for code in range(33, 127))]


def qwen(**names: str) -> PreTrainedTokenizerBase:
    """ChatML; pads with the end of a text, ends a turn with another token."""
    tokens = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    made = _byte_level(Qwen2Tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names)
    return _with(made, tokens)


def glm() -> PreTrainedTokenizerBase:
    """GLM-4's: a role's own token begins a turn, and the next one's ends it."""
    made = _byte_level(
        GPT2Tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", bos_token=None, unk_token=None
    )
    edges = [f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end")]
    return _with(made, ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|image|>", "<|video|>", *edges])


def granite() -> PreTrainedTokenizerBase:
    """Granite's: roles stand between two tokens, and the end of a text ends a turn."""
    made = _byte_level(
        GPT2Tokenizer, eos_token="<|end_of_text|>", pad_token="<|pad|>", bos_token="<|end_of_text|>", unk_token=None
    )
    return _with(made, ["<|start_of_role|>", "<|end_of_role|>", "<image>"])


def lfm() -> PreTrainedTokenizerBase:
    """Liquid's: ChatML behind a token that begins a text."""
    made = _byte_level(
        GPT2Tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", bos_token="<|startoftext|>", unk_token=None
    )
    return _with(made, ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])


def lfm2() -> PreTrainedTokenizerBase:
    """Liquid's with the tokens of a picture that is cut into tiles."""
    edges = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
    return _with(lfm(), [*edges, *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5))])


def molmo() -> PreTrainedTokenizerBase:
    """A Qwen tokenizer that begins a text with the end of one, and has edges and lines of two views of a picture."""
    edges = ["<im_start>", "<low_res_im_start>", "<im_end>", "<frame_start>", "<frame_end>"]
    made = _with(qwen(), ["<|image|>", "<|video|>", "<im_patch>", "<im_col>", "<im_low>", *edges])
    made.bos_token = "<|endoftext|>"
    return made


def mistral3() -> PreTrainedTokenizerBase:
    """Mistral's: turns are between tokens of their own, and each line of a picture ends with one."""
    made = _byte_level(GPT2Tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    return _with(made, ["[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"])


def minicpm() -> PreTrainedTokenizerBase:
    """A Qwen tokenizer that its processor asks for the edges of pictures, slices and numbers of pictures by name."""
    edges = {"image": "image", "slice": "slice", "image_id": "image_id"}
    names = {f"{name}_start_token": f"<{edge}>" for name, edge in edges.items()}
    names |= {f"{name}_end_token": f"</{edge}>" for name, edge in edges.items()}
    return qwen(image_token="<|image_pad|>", video_token="<|video_pad|>", **names)


def cohere() -> PreTrainedTokenizerBase:
    """Cohere's, with a picture's beginning, tiles, places and end."""
    special = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>"]
    vocabulary, merges = _merged([*special, *_BYTES], "Ġ")
    made = CohereTokenizer(vocab=vocabulary, merges=merges)
    turns = ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
    picture = ["<image>", "<|IMG_PATCH|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>"]
    return _with(made, [*turns, *picture, "TILE", "TILE_GLOBAL"])


def ovis() -> PreTrainedTokenizerBase:
    """A Qwen tokenizer with a picture's beginning, places, grid and end."""
    return _with(qwen(), ["<image>", *(f"<IMG_{name}>" for name in ("ATOM", "START", "GRID", "COL", "ROW", "END"))])


def internvl() -> PreTrainedTokenizerBase:
    """A Qwen tokenizer that its processor asks for the image's tokens by name."""
    return qwen(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )


def onevision() -> PreTrainedTokenizerBase:
    """A Qwen tokenizer with LLaVA's placeholder."""
    return _with(qwen(), ["<image>", "<video>"])


def smolvlm() -> PreTrainedTokenizerBase:
    """Begins with `<|im_start|>`, pads with `<|im_end|>`, ends with `<end_of_utterance>`."""
    made = _byte_level(
        GPT2Tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    return _with(made, [*_TILES, "<image>", "<fake_token_around_image>", "<global-img>"])


def idefics() -> PreTrainedTokenizerBase:
    """Llama 3's: begins with `<|begin_of_text|>` and has several tokens that end something."""
    made = _byte_level(
        GPT2Tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",  # as people set it, so that padding looks like an end
        unk_token=None,
        add_bos_token=True,
    )
    return _with(made, [*_TILES, "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"])


def llama(pad: str = "<pad>") -> PreTrainedTokenizerBase:
    """Llama 2's: begins with `<s>` by itself and writes a word's space with the word."""
    vocabulary, merges = _merged(["<unk>", "<s>", "</s>", *_SENTENCE_PIECES], "▁")
    made = LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True, pad_token=pad)
    return _with(made, ["<image>"])


def paligemma() -> PreTrainedTokenizerBase:
    """Gemma's, with the placeholder."""
    return _with(_gemma(), ["<image>"])


def gemma3() -> PreTrainedTokenizerBase:
    """Gemma's, with turns, and an image's beginning, places and end, which its processor asks for by name."""
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    return _with(_gemma(add_bos_token=True, extra_special_tokens=names), ["<start_of_turn>", "<end_of_turn>"])


def gemma4() -> PreTrainedTokenizerBase:
    """Gemma's with other turns, and with names for a picture's and a sound's tokens, which its processor asks for."""
    names = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
    names |= {"boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>"}
    made = _gemma(add_bos_token=True, extra_special_tokens=names)
    return _with(made, ["<|turn>", "<turn|>", "<|video|>"])


def _gemma(**kwargs: object) -> PreTrainedTokenizerBase:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocabulary, merges = _merged([*special, *_SENTENCE_PIECES, "\n"], "▁")
    return GemmaTokenizer(vocab=vocabulary, merges=merges, **kwargs)


def _byte_level(kind: type[PreTrainedTokenizerBase], **kwargs: object) -> PreTrainedTokenizerBase:
    vocabulary, merges = _merged(_BYTES, "Ġ")
    return kind(vocab=vocabulary, merges=merges, **kwargs)


def _with(tokenizer: PreTrainedTokenizerBase, special: Sequence[str]) -> PreTrainedTokenizerBase:
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _merged(pieces: Sequence[str], space: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary in which some words, with and without a space before them, are one token."""
    grown, merges = list(pieces), []
    for word in _WORDS:
        cuts = [(word[:end], word[end]) for end in range(1, len(word))]
        merges += [cut for cut in (*cuts, (space, word)) if cut not in merges]
    grown += [left + right for left, right in merges]
    return {piece: number for number, piece in enumerate(grown)}, merges


_TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def _chat(turn: str, ask: str, *, image: str, begin: str = "") -> str:
    """A template: `turn` has `{{ role }}` and `{{ said }}`, `ask` stands where the answer is to come."""
    return (
        f"{begin}{{% for message in messages %}}{{% set role = message['role'] %}}{{% set said %}}"
        f"{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endset %}"
        f"{turn}{{% endfor %}}{{% if add_generation_prompt %}}{ask}{{% endif %}}"
    )


_CHATML = "<|im_start|>{{ role }}\n{{ said }}<|im_end|>\n"
_ANSWERS = "<|im_start|>assistant\n"
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_SPACE = "{% if role == 'assistant' %} {% endif %}"
_UTTERANCE = f"{{{{ role | capitalize }}}}:{_SPACE}{{{{ said }}}}<end_of_utterance>\n"

QWEN2 = _chat(_CHATML, _ANSWERS, image=_QWEN_IMAGE, begin=_SYSTEM)
QWEN3 = _chat(_CHATML, _ANSWERS, image=_QWEN_IMAGE)
LFM = _chat(_CHATML, _ANSWERS, image=_QWEN_IMAGE, begin="{{ bos_token }}")
LFM2 = _chat(_CHATML, _ANSWERS, image="<image>", begin="{{ bos_token }}")
MOLMO = _chat(_CHATML, _ANSWERS, image="<|image|>", begin="{{ bos_token }}")
MISTRAL3 = _chat(
    "{% if role == 'user' %}[INST]{{ said }}[/INST]{% else %}{{ said }}</s>{% endif %}",
    "",
    image="[IMG]",
    begin="{{ bos_token }}",
)
MINICPM = _chat(_CHATML, _ANSWERS, image="<|image_pad|>")
INTERNVL = _chat(_CHATML, _ANSWERS, image="<IMG_CONTEXT>\n")
FASTVLM = _chat(_CHATML, _ANSWERS, image="<image>\n", begin=_SYSTEM)
# An answer that was given stands after "assistant \n", one that is to come after "assistant\n".
ONEVISION = _chat(
    "<|im_start|>{{ role }} {% if role == 'assistant' %}\n{% endif %}{{ said }}<|im_end|>", _ANSWERS, image="<image>\n"
)
SMOLVLM = _chat(_UTTERANCE, "Assistant:", image="<image>", begin="<|im_start|>")
IDEFICS = _chat(_UTTERANCE, "Assistant:", image="<image>", begin="<|begin_of_text|>")
LLAVA = _chat("{{ role | upper }}: {{ said }} ", "ASSISTANT:", image="<image>\n")
MISTRAL = _chat(
    "{% if role == 'user' %}[INST] {{ said }} [/INST]{% else %} {{ said }}</s>{% endif %}", "", image="<image>\n"
)
PALIGEMMA = _chat("{{ said }}{% if role == 'assistant' %}<eos>{% endif %}", "", image="<image>")
GEMMA3 = _chat(
    "<start_of_turn>{{ 'model' if role == 'assistant' else role }}\n{{ said | trim }}<end_of_turn>\n",
    "<start_of_turn>model\n",
    image="<start_of_image>",
    begin="{{ bos_token }}",
)
GLM = _chat(
    "<|{{ role }}|>\n{{ said }}",
    "<|assistant|>\n",
    image="<|begin_of_image|><|image|><|end_of_image|>",
    begin="[gMASK]<sop>",
)
GRANITE = _chat(
    "<|start_of_role|>{{ role }}<|end_of_role|>{{ said }}<|end_of_text|>\n",
    "<|start_of_role|>assistant<|end_of_role|>",
    image="<image>\n",
)
GEMMA4 = _chat(
    "<|turn>{{ 'model' if role == 'assistant' else role }}\n{{ said | trim }}<turn|>\n",
    "<|turn>model\n",
    image="<|image|>",
    begin="{{ bos_token }}",
)
COHERE = _chat(
    "<|START_OF_TURN_TOKEN|>{{ '<|CHATBOT_TOKEN|>' if role == 'assistant' else '<|USER_TOKEN|>' }}"
    "{{ said }}<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    image="<image>",
    begin="{{ bos_token }}",
)
