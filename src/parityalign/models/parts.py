"""The parts of a vision-language model: the vision tower, the connector behind it, and the language model.

Found by the names that transformers gives them, which its families share:

    model.vision_tower...  model.visual...  model.vision_model...          vision
    model.multi_modal_projector...  model.connector...  model.visual.merger...    connector
    model.language_model...  model.text_model...  lm_head                   language
"""

from typing import Any

VISION, CONNECTOR, LANGUAGE = "vision", "connector", "language"
PARTS = (VISION, CONNECTOR, LANGUAGE)
HEAD = "lm_head"
"""The output head, which may share its weights with the embeddings."""

_NAMES = {
    VISION: ("vision_tower", "visual", "vision_model", "vision_encoder", "vision_backbone"),
    CONNECTOR: (
        *("multi_modal_projector", "connector", "mlp1", "aligner", "modality_projection", "perceiver_resampler"),
        *("qformer", "query_tokens", "language_projection", "image_to_text_projection", "embed_vision"),
        # Learnt separator tokens between rows and tiles of an image, next to the projector.
        *("image_newline", "view_separator", "view_seperator"),
    ),
    LANGUAGE: ("language_model", "text_model", HEAD),
}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_INSIDE_VISION = frozenset({"merger", "deepstack_merger_list", "patch_merger", "downsample"})
"""Connectors inside the tower that map to the language model's space: Qwen-VL, GLM-4V."""


def part_of(name: str) -> str | None:
    """The part of a parameter or module, by its full name; None if unknown."""
    pieces = name.split(".")
    part = next((_PART_OF[piece] for piece in pieces if piece in _PART_OF), None)
    return CONNECTOR if part == VISION and not _INSIDE_VISION.isdisjoint(pieces) else part


def not_in_4_bits() -> list[str]:
    """Patterns of the modules that keep their precision in 4 bits: vision tower, connector and output head.

    Four bits in the tower make a model see wrongly, and cost little memory elsewhere: the language model is most of it.
    They are patterns as transformers' quantisers match them, from the start of a module's full name.
    """
    names = "|".join((*_NAMES[VISION], *_NAMES[CONNECTOR], HEAD))
    return [rf"(?:.*\.)?(?:{names})"]


def image_token(config: Any) -> int | None:  # noqa: ANN401 - the family's own
    """The id of the tokens that stand for pictures, by either of its names; None: the family has none."""
    found = getattr(config, "image_token_id", None)
    return getattr(config, "image_token_index", None) if found is None else found
