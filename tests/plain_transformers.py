"""Opens saved students as anybody would, with transformers alone; a process of its own, run by test_conformance.py."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer


def look(folder: Path, picture: str, prompt: str) -> dict[str, object]:
    """What the model says of ready-made inputs, and what its processor's parts are."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    inputs = {key: torch.from_numpy(value) for key, value in np.load(folder / "inputs.npz").items()}
    with torch.inference_mode():
        said = {"logits": model(**inputs).logits.tolist(), "processor": None, "refused": ""}
    try:
        processor = AutoProcessor.from_pretrained(folder)
        content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": prompt}]
        read = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        said |= {"processor": type(processor).__name__, "tokens": read["input_ids"].flatten().tolist()}
    except (ImportError, ValueError, OSError) as problem:
        said["refused"] = str(problem)
    said["template"] = AutoTokenizer.from_pretrained(folder).chat_template
    pixels = AutoImageProcessor.from_pretrained(folder)(images=[Image.open(picture)], return_tensors="np")
    said["pixels"] = list(pixels["pixel_values"].shape)
    return said


if __name__ == "__main__":
    torch.set_num_threads(1)
    for found in sorted(Path(sys.argv[1]).iterdir()):
        (found / "said.json").write_text(json.dumps(look(found, *sys.argv[2:])))
    if "parityalign" in sys.modules:
        raise SystemExit("code of parityalign was loaded")
