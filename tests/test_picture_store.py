"""Prepared pictures in files: the next model finds them to the bit, and without the files the run goes on."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import tiny
from parityalign.core import PictureRoom, keeping_pictures
from parityalign.core import prepared as prepared_module
from parityalign.models import picture_store, pictures
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.pictures import Pictures

PROMPTS = ("what is the colour ?", "shape ?")


@pytest.fixture
def path(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_store, "SMALLEST", 0)
    return PictureRoom(tmp_path / "kept", 10**6, said.append)


said: list[str] = []


@pytest.fixture(autouse=True)
def nothing_said():
    said.clear()


def files(room) -> list[Path]:
    return sorted(room.folder.rglob("*.safetensors"))


def prepared(room, path, prompt=PROMPTS[0], processor=None):
    """A picture's row as a model of a process that has just begun has it."""
    with keeping_pictures(room):
        reader = Pictures(Prompter(processor or tiny.processor()), 0)
        return reader.row(path, reader.begin(path, prompt).result(), prompt)


def plain(path, prompt=PROMPTS[0], processor=None):
    return Prompter(processor or tiny.processor()).encode(read_image(path), prompt)


def equal(one, other):
    assert (one.per_token, one.size, sorted(one.image)) == (other.per_token, other.size, sorted(other.image))
    assert all(
        one.image[key].dtype == other.image[key].dtype and np.array_equal(one.image[key], other.image[key])
        for key in one.image
    )


def never_decoded(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded though it is kept")

    monkeypatch.setattr(pictures, "decoded", refuse)


def test_what_one_model_prepared_the_next_finds_to_the_bit_whatever_its_prompt(room, path, monkeypatch):
    prepared(room, path)
    assert len(files(room)) == 1
    never_decoded(monkeypatch)
    for prompt in PROMPTS:
        equal(prepared(room, path, prompt), plain(path, prompt))


def test_a_file_belongs_to_the_pictures_content_and_not_to_its_name(room, path, monkeypatch):
    prepared(room, path)
    renamed = os.rename(path, f"{path}.png") or f"{path}.png"
    Image.new("RGB", (60, 60), "red").save(path)
    equal(prepared(room, path), plain(path))
    never_decoded(monkeypatch)
    equal(prepared(room, renamed), plain(renamed))


def test_another_processor_does_not_take_these_pictures_for_its_own(room, path):
    prepared(room, path)
    other = tiny.processor()
    other.image_processor = CLIPImageProcessorPil(
        size={"height": tiny.SIDE, "width": tiny.SIDE}, do_center_crop=False, resample=0
    )
    equal(prepared(room, path, processor=other), plain(path, processor=other))
    assert len(files(room)) == 2


@pytest.mark.parametrize("place", [3, 40, 150, 1500, -1])
def test_a_damaged_file_is_noticed_and_made_again(room, path, place, monkeypatch):
    prepared(room, path)
    (file,) = files(room)
    whole = bytearray(file.read_bytes())
    whole[place] ^= 16
    file.write_bytes(whole)
    equal(prepared(room, path), plain(path))
    never_decoded(monkeypatch)
    equal(prepared(room, path), plain(path))


@pytest.mark.parametrize("size", [0, 7, 500])
def test_half_a_file_is_noticed_and_made_again(room, path, size, monkeypatch):
    prepared(room, path)
    (file,) = files(room)
    file.write_bytes(file.read_bytes()[:size])
    equal(prepared(room, path), plain(path))
    never_decoded(monkeypatch)
    equal(prepared(room, path), plain(path))


def test_a_full_disk_is_told_of_once_and_the_work_goes_on(room, path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    Image.new("RGB", (60, 60), "red").save(tmp_path / "b.png")
    with keeping_pictures(room):
        reader = Pictures(Prompter(tiny.processor()), 0)
        rows = [reader.begin(each, PROMPTS[0]).result().encoded for each in (path, str(tmp_path / "b.png"))]
    equal(rows[0], plain(path))
    equal(rows[1], plain(str(tmp_path / "b.png")))
    assert len(said) == 1 and os.strerror(errno.ENOSPC) in said[0] and str(room.folder) in said[0]
    assert not files(room)


def test_no_more_is_kept_than_there_is_room_for(room, path, tmp_path):
    prepared(room, path)
    (file,) = files(room)
    for number in range(5):
        Image.new("RGB", (60, 60), (number, 0, 0)).save(tmp_path / f"{number}.png")
    small = PictureRoom(room.folder, 3 * file.stat().st_size, room.say)
    for number in range(5):
        equal(prepared(small, str(tmp_path / f"{number}.png")), plain(str(tmp_path / f"{number}.png")))
    assert len(files(room)) == 3 and not said


def test_small_pictures_are_not_worth_a_file(path, tmp_path):
    room = PictureRoom(tmp_path / "kept", 10**6, said.append)
    equal(prepared(room, path), plain(path))
    assert not room.folder.exists()


def test_a_file_that_another_process_renames_meanwhile_takes_no_room(room, monkeypatch):
    room.folder.mkdir(parents=True, exist_ok=True)
    (room.folder / "kept").write_bytes(bytes(100))
    monkeypatch.setattr(prepared_module, "files_below", lambda folder: [folder / "kept", folder / ".half.written"])
    assert room.left() == room.most - 100
