"""The first RUN.yaml of somebody who has images and knows two models."""

from pathlib import Path

import yaml

from parityalign.config import load_config
from parityalign.core import UserError, write_whole

TEACHER, STUDENT = "hf:Qwen/Qwen2-VL-7B-Instruct", "hf:Qwen/Qwen2-VL-2B-Instruct"
"""What is proposed."""
_TEXT = """\
# A run of parityalign; paths are relative to this file. docs/settings.md has all settings.
run: {run}            # a folder of its own: everything that the run makes goes here
teacher: {teacher}
student: {student}
tasks:
  mine:               # any name; several tasks may stand here
    images: {images}
    skill: vqa        # questions of any kind; or textvqa, stvqa, chartqa, okvqa, or prompts of your own
    # test: questions.jsonl    # labelled, for scores: {{"image": "a.png", "question": "Sold?", "answers": ["tea"]}}
    # metric: anls
level:
  questions_together: true     # a step takes all pairs about a picture, which then share it: faster
"""


def write_first_config(file: Path, *, images: str, teacher: str, student: str) -> None:
    """Writes a configuration with comments, after it has been checked.

    Args:
        file: To write; there must be none.
        images: A folder or another source of images.
        teacher: The large model.
        student: The small model.

    Raises:
        UserError: The file is there already, its folder is not, or something in it is wrong.
    """
    if file.exists():
        raise UserError(f"{file} is there already; name another file: parityalign init OTHER.yaml")
    if not file.parent.is_dir():
        raise UserError(f"cannot write {file}: the folder {file.parent} does not exist")
    said = {"run": f"runs/{file.stem.lower()}", "teacher": teacher, "student": student, "images": images}
    write_whole(file, _TEXT.format(**{name: _quoted(value) for name, value in said.items()}))
    try:
        load_config(file)
    except UserError:
        file.unlink()
        raise


def _quoted(value: str) -> str:
    """A text as YAML has it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").rstrip("\n")
