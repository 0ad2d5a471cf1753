"""Pictures prepared in processes: the same to the bit, and whatever happens to a process happens to nothing else."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
import torch
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import families
import tiny
from parityalign.config.loading import LoadingSettings
from parityalign.core.errors import WorkFailed
from parityalign.core.prepared import PictureRoom, keeping_pictures
from parityalign.models import eight_bits, picture_processes, picture_store
from parityalign.models.cutting import Uncut
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.loading import open_processor
from parityalign.models.picture_processes import PictureProcesses
from parityalign.models.pictures import Pictures
from parityalign.models.stacking import stack

SECONDS = 120
"""How long something may take that a busy machine has to get round to."""
LOADING = LoadingSettings(max_pixels=3000)


def until(found):
    """What the function finds at last."""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        if it := found():
            return it
        time.sleep(0.05)
    raise AssertionError("it never came")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("model")))


@pytest.fixture
def processes(folder):
    made = PictureProcesses(folder, LOADING, 1)
    yield made
    made.close()


@pytest.mark.long
def test_a_process_makes_of_a_picture_what_this_one_makes_and_may_die(folder, processes, tmp_path):
    images = tiny.drawn(tmp_path, 3, sizes=((150, 90), (40, 110), (60, 60)))
    prompter = Prompter(open_processor(folder, LOADING))
    here = Pictures(prompter, 1)
    there = Pictures(prompter, 1, processes=processes)
    processes.start()
    assert until(lambda: processes.see(images[0], "what"))
    for image in images:
        expected, found = (each.begin(image, "what").result().encoded for each in (here, there))
        assert found.per_token == expected.per_token and found.size == expected.size
        assert all((found.image[key] == expected.image[key]).all() for key in expected.image)
        assert (found.levels == expected.levels).all()

    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(WorkFailed, match=r"broken\.png"):
        there.begin(str(tmp_path / "broken.png"), "what").result()
    assert processes.see(images[0], "what"), "a picture with a fault ends no process"

    (worker,) = psutil.Process(processes._forker.process.pid).children()
    worker.kill()
    assert there.begin(images[1], "what").result().encoded.tokens
    assert processes.see(images[1], "what") is None
    there.close()
    processes.start()
    assert until(lambda: processes.see(images[2], "what")), "closed, they can be started again"


@pytest.mark.long
def test_processes_that_are_on_their_way_are_waited_for_and_tell_what_they_tried(
    folder, processes, tmp_path, monkeypatch
):
    (image,) = tiny.drawn(tmp_path, 1)
    monkeypatch.setattr(picture_processes, "_ON_THEIR_WAY", SECONDS)
    monkeypatch.setattr(eight_bits, "_known", {})
    prompter = Prompter(open_processor(folder, LOADING))
    monkeypatch.setattr(eight_bits, "_levels_tried", lambda *_: pytest.fail("tried once more"))
    there = Pictures(prompter, 1, processes=processes)
    processes.start()
    seen = there.begin(image, "what").result()
    assert len(eight_bits._known) == 1 and seen.encoded.levels is prompter.eight_bits.levels


def test_processes_that_never_come_keep_nobody_waiting(folder, processes, monkeypatch):
    monkeypatch.setattr(picture_processes, "_ON_THEIR_WAY", 0.1)
    processes.start()
    assert processes.see("nowhere.png", "what") is None


@pytest.mark.long
def test_processes_keep_what_they_prepare_and_find_it_again(tmp_path):
    family = next(each for each in families.FAMILIES if each.name == "Qwen2-VL")
    large = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=500_000)  # worth a file
    location = str(families.write(tmp_path / "model", replace(family, image_processor=large)))
    (image,) = tiny.drawn(tmp_path, 1, sizes=((420, 300),))
    room = PictureRoom(tmp_path / "kept", 10**8, pytest.fail)
    with keeping_pictures(room):
        processes = PictureProcesses(location, LoadingSettings(), 2)
        here = Pictures(Prompter(open_processor(location)), 1, processes=processes)
    try:
        processes.start()
        assert until(lambda: processes.see(image, "what")).prompt == "what"
        (kept,) = room.folder.rglob("*.safetensors")
        again = processes.see(image, "who")
        assert again.prompt == "a" and [*room.folder.rglob("*.safetensors")] == [kept]
        seen = here.begin(image, "who").result()
        found = here.row(image, seen, "who")
        expected = here._prompter.encode(read_image(image), "who")
        assert found.per_token == expected.per_token
        assert all((found.image[key] == expected.image[key]).all() for key in expected.image)
    finally:
        here.close()


@pytest.mark.long
def test_processes_leave_what_becomes_larger_to_the_device(tmp_path):
    family = next(each for each in families.FAMILIES if each.name == "Idefics3")
    larger = Idefics3ImageProcessorPil(size={"longest_edge": 1024}, max_image_size={"longest_edge": 128})
    location = str(families.write(tmp_path / "model", replace(family, image_processor=larger)))
    images = tiny.drawn(tmp_path, 3, sizes=((420, 300), (300, 420), (1600, 1200)))
    processes = PictureProcesses(location, LoadingSettings(), 1, uncut=True)
    here = Pictures(Prompter(open_processor(location)), 1, processes=processes)
    try:
        processes.start()
        assert until(lambda: processes.see(images[0], "what"))
        for image, uncut in zip(images, (True, True, False), strict=True):
            row = here.row(image, here.begin(image, "who").result(), "who")
            assert isinstance(row.image["pixel_values"], Uncut) is uncut
            expected = here._prompter.encode(read_image(image), "who")
            assert row.per_token == expected.per_token
            made, plain = (stack([each], pad_token=0, side="left") for each in (row, expected))
            assert all(torch.equal(made[key], plain[key]) for key in plain)
    finally:
        here.close()


@pytest.mark.long
def test_a_process_that_hangs_keeps_nobody_waiting_once_they_are_closed(folder, processes, tmp_path):
    (image,) = tiny.drawn(tmp_path, 1)
    processes.start()
    assert until(lambda: processes.see(image, "what"))
    (worker,) = psutil.Process(processes._forker.process.pid).children()
    worker.suspend()
    with ThreadPoolExecutor(1) as waiting:
        hangs = waiting.submit(processes.see, image, "who")
        until(lambda: not processes._idle.qsize())
        processes.close()
        assert hangs.result(SECONDS) is None
    assert until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_the_processes_of_all_replicas_have_the_room_of_one_run_between_them(folder, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "by-another-model").write_bytes(bytes(1000))
    room = PictureRoom(tmp_path / "kept", 9000, pytest.fail, sharers=4)
    with keeping_pictures(room):
        opening = PictureProcesses(folder, LOADING, 10)._opening
    place, most, sharers = opening.room
    assert PictureRoom(place, most, pytest.fail, sharers).left() == room.left() // 10 == 200


def test_threads_keep_what_they_prepare_where_no_process_could_be_started(tmp_path, monkeypatch):
    family = next(each for each in families.FAMILIES if each.name == "Qwen2-VL")
    location = str(families.write(tmp_path / "model", family))
    monkeypatch.setattr(picture_store, "SMALLEST", 0)
    room = PictureRoom(tmp_path / "kept", 10**8, pytest.fail)
    with keeping_pictures(room):
        nobody = PictureProcesses(location, LoadingSettings(), 2)
        here = Pictures(Prompter(open_processor(location)), 1, processes=nobody)
    here.begin(tiny.drawn(tmp_path, 1)[0], "what").result()
    assert len([*room.folder.rglob("*.safetensors")]) == 1


OWNER = """
import sys, time
from parityalign.config.loading import LoadingSettings
from parityalign.models.picture_processes import PictureProcesses
processes = PictureProcesses(sys.argv[1], LoadingSettings(), 2)
processes.start()
while not processes.see(sys.argv[2], "what"):
    time.sleep(0.1)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.kills
def test_no_process_outlives_a_run_that_was_killed(folder, tmp_path):
    (image,) = tiny.drawn(tmp_path, 1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, image], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout.readline() == "ready\n"
    workers = psutil.Process(owner.pid).children(recursive=True)
    assert len(workers) == 3  # one, which has forked two
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(workers, SECONDS)
    assert not alive


def test_where_no_process_can_be_started_there_is_none_and_no_error(folder, processes, monkeypatch):
    def refused(*_args, **_more):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refused)
    processes.start()
    assert processes._forker is None and not processes.alive
    assert processes.see("any.png", "what") is None
