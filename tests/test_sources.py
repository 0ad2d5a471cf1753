"""Whatever container they lie in, the same images come in; what names no images is refused before any is opened."""

import io
import json
import os
import random
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from makers import artifact, content, draw, mute
from parityalign.config.data_specs import folder_of, full_source, problem_of, relative_source
from parityalign.config.schema import IntakeSettings
from parityalign.core import registry
from parityalign.core.errors import UserError
from parityalign.data.images import Unfit
from parityalign.data.open import open_source
from parityalign.stages.intake import accepted_images, sort_images

COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture
def photos(tmp_path):
    """A folder with five pictures and a file that is none."""
    for place, colour in enumerate(COLOURS):
        draw(tmp_path / f"photos/{place}.{'png' if place % 2 else 'jpg'}", colour)
    (tmp_path / "photos/5.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def contents(photos):
    return [path.read_bytes() for path in sorted(photos.iterdir())]


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def as_txt(photos):
    path = photos.parent / "list.txt"
    path.write_text("".join(f"photos/{image.name}\n\n" for image in sorted(photos.iterdir())))
    return str(path)


def as_jsonl(photos):
    path = photos.parent / "list.jsonl"
    rows = [{"image": f"photos/{image.name}", "other": 1} for image in sorted(photos.iterdir())]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def as_tar(photos):
    for shard in range(2):
        with tarfile.open(photos.parent / f"shard-{shard}.tar", "w") as archive:
            for image in sorted(photos.iterdir())[3 * shard : 3 * shard + 3]:
                add(archive, f"{image.stem}.json", b"{}")
                add(archive, f"{image.stem}{image.suffix}", image.read_bytes())
    return str(photos.parent / "shard-*.tar")


def as_parquet(photos, values=None):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = values or [{"bytes": content, "path": "x.png"} for content in contents(photos)]
    path = photos.parent / "data.parquet"
    pq.write_table(pa.table({"label": list(range(len(rows))), "image": rows}), path)
    return str(path)


def as_bare_parquet(photos):
    return as_parquet(photos, contents(photos))


def as_hf(photos):
    pytest.importorskip("datasets")
    as_parquet(photos)
    folder = photos.parent / "set"
    folder.mkdir(exist_ok=True)
    (photos.parent / "data.parquet").replace(folder / "train.parquet")
    return f"hf:{folder}"


def take_in(run, *specs, **settings):
    made = artifact(run, "images")
    sources = {"toy": [open_source(spec) for spec in specs]}
    sort_images(made, sources, {}, settings=IntakeSettings(**settings), progress=mute)
    return made


@pytest.mark.parametrize("container", [as_txt, as_jsonl, as_tar, as_parquet, as_bare_parquet, as_hf])
def test_the_same_images_come_in_from_any_container(tmp_path, photos, container):
    plain = take_in(tmp_path / "plain", str(photos))
    other = take_in(tmp_path / "other", container(photos))
    assert [image.image_id for image in accepted_images(other)] == [image.image_id for image in accepted_images(plain)]
    assert other.manifest["counts"] == plain.manifest["counts"] == {"accepted": 5, "not_an_image": 1}
    for image, before in zip(accepted_images(other), accepted_images(plain), strict=True):
        with open(image.path, "rb") as file, open(before.path, "rb") as original:
            assert file.read() == original.read()


@pytest.mark.parametrize("container", [as_tar, as_parquet, as_hf])
def test_images_that_were_no_files_lie_in_the_run_under_their_content(tmp_path, photos, container):
    made = take_in(tmp_path / "run", container(photos))
    for image in accepted_images(made):
        assert image.path.startswith(str(made.path / "files" / image.image_id[:2] / image.image_id))
        assert image.origin
    assert not any(name.startswith("files") for name in made.manifest["files"])


def test_several_sources_are_one_pool(tmp_path, photos):
    made = take_in(tmp_path / "run", str(photos), as_tar(photos), as_txt(photos))
    assert made.manifest["counts"] == {"accepted": 5, "duplicate": 10, "not_an_image": 3}


@pytest.mark.parametrize("container", [as_tar, as_parquet, as_txt])
@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_killed_intake_of_a_container_continues_to_the_same_bytes(
    tmp_path, photos, monkeypatch, container, killed_after
):
    monkeypatch.setattr("parityalign.stages.intake._CHUNK", 2)
    spec = container(photos)
    whole = content(take_in(tmp_path / "run", spec, spec).path)
    shutil.rmtree(tmp_path / "run")
    chunks = iter(range(killed_after))

    def kill(*_):
        if next(chunks, None) is None:
            raise KeyboardInterrupt

    made = artifact(tmp_path / "run", "images")
    with pytest.raises(KeyboardInterrupt):
        sort_images(made, {"toy": [open_source(spec)] * 2}, {}, settings=IntakeSettings(), progress=kill)
    stream = made.path / "accepted.jsonl"
    stream.write_bytes(stream.read_bytes()[:-5])  # and the last line was torn
    assert content(take_in(tmp_path / "run", spec, spec).path) == whole


@pytest.mark.parametrize("container", [as_txt, as_jsonl, as_tar, as_parquet])
def test_the_digest_of_a_container_changes_with_its_images_and_nothing_else(photos, container):
    spec = container(photos)
    for path in photos.parent.rglob("*"):
        os.utime(path, (0, 0))  # a coarse clock might give what is written next the same time
    before = open_source(spec).digest()
    assert open_source(spec).digest() == before
    draw(photos / "0.jpg", "orange", (20, 20))
    container(photos)
    assert open_source(spec).digest() != before


def test_a_list_may_name_what_is_not_there(tmp_path, photos):
    (tmp_path / "list.txt").write_text("photos/0.jpg\nphotos/gone.png\n")
    assert take_in(tmp_path / "run", str(tmp_path / "list.txt")).manifest["counts"] == {"accepted": 1, "not_a_file": 1}


@pytest.mark.parametrize("bad", ["a\0b.png", "x" * 5000])
def test_a_list_may_name_what_no_file_can_be_called(tmp_path, photos, bad):
    rows = [{"image": "photos/0.jpg"}, {"image": bad}]
    (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    counts = take_in(tmp_path / "run", str(tmp_path / "list.jsonl")).manifest["counts"]
    assert counts["accepted"] == 1 and sum(counts.values()) == 2
    assert open_source(str(tmp_path / "list.jsonl")).digest()


@pytest.mark.parametrize("bad", ["a\0b.png", "x" * 5000])
def test_a_line_of_text_that_no_file_can_be_called_is_set_aside(tmp_path, photos, bad):
    (tmp_path / "list.txt").write_text(f"photos/0.jpg\n{bad}\n")
    counts = take_in(tmp_path / "run", str(tmp_path / "list.txt")).manifest["counts"]
    assert counts["accepted"] == 1 and sum(counts.values()) == 2


@pytest.fixture
def image_folder(tmp_path):
    """A data set of image files, as `datasets` reads them."""
    pytest.importorskip("datasets")
    for split in ("train", "test"):
        for place, colour in enumerate(COLOURS[:3]):
            draw(tmp_path / f"set/{split}/{place}.png", colour)
    return tmp_path / "set"


def test_a_data_set_of_image_files_comes_in(tmp_path, image_folder):
    made = take_in(tmp_path / "run", f"hf:{image_folder}")
    assert made.manifest["counts"] == {"accepted": 3}
    expected = [(image_folder / f"train/{place}.png").read_bytes() for place in range(3)]
    assert [Path(image.path).read_bytes() for image in accepted_images(made)] == expected


def test_a_data_set_of_zipped_image_files_comes_in(tmp_path, image_folder):
    shutil.make_archive(str(tmp_path / "zipped/a"), "zip", image_folder / "train")
    assert take_in(tmp_path / "run", f"hf:{tmp_path / 'zipped'}").manifest["counts"] == {"accepted": 3}


def test_the_file_of_a_row_that_is_not_there_is_set_aside(tmp_path, image_folder):
    images = list(open_source(f"hf:{image_folder}").images())
    (image_folder / "train/1.png").unlink()
    assert len(images[0].read()) and len(images) == 3
    with pytest.raises(Unfit, match="unreadable"):
        images[1].read()


@pytest.mark.parametrize("form", ["set", "set:train", "data.parquet", "data.parquet:train"])
def test_the_digest_of_a_data_set_on_the_disk_changes_with_its_files(tmp_path, photos, image_folder, form):
    as_parquet(photos)
    source = open_source(f"hf:{tmp_path / form}")
    before = source.digest()
    assert source.digest() == before
    draw(image_folder / "train/0.png", "orange", (90, 90))
    as_parquet(photos, contents(photos)[:2])
    assert source.digest() != before


def test_each_split_of_a_data_set_has_its_own_digest(image_folder):
    assert open_source(f"hf:{image_folder}:train").digest() != open_source(f"hf:{image_folder}:test").digest()


def test_a_damaged_page_of_a_parquet_file_is_told_by_its_file(tmp_path, photos):
    path = Path(as_bare_parquet(photos))
    data = bytearray(path.read_bytes())
    pages_end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # what follows is the footer
    data[4:pages_end] = bytes(pages_end - 4)
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"cannot read the Parquet file {path}"):
        take_in(tmp_path / "run", str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"image": "a.png"}\n{"picture": "b.png"}\n', r"line 2 has no 'image'; its keys are 'picture'"),
        ("a.jsonl", "photos/a.png\n", "line 1 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 should be an object"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8 text"),
        ("a.tar", "no archive", "cannot read the archive"),
        ("a.parquet", "no parquet", "cannot read the Parquet file"),
    ],
)
def test_a_container_that_is_none_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        take_in(tmp_path / "run", str(tmp_path / name))


def test_a_large_row_group_of_a_parquet_file_is_not_in_memory_as_a_whole(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    noise = random.Random(0)
    rows = [noise.randbytes(40_000) for _ in range(1000)]
    # Pages are ended between batches only; by default one would hold all rows.
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet", write_batch_size=16, use_dictionary=False)
    before = pa.total_allocated_bytes()
    images = open_source(str(tmp_path / "a.parquet")).images()
    assert next(images).read() == rows[0]
    assert pa.total_allocated_bytes() - before < 20_000_000


def test_parquet_without_a_column_of_bytes_says_which_columns_there_are(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "answer": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="found none among image, answer"):
        take_in(tmp_path / "run", str(tmp_path / "a.parquet"))


def test_a_row_without_bytes_is_set_aside(tmp_path, photos):
    spec = as_parquet(photos, [{"bytes": contents(photos)[0], "path": None}, {"bytes": None, "path": "b.png"}])
    assert take_in(tmp_path / "run", spec).manifest["counts"] == {"accepted": 1, "no_bytes": 1}


def test_without_pyarrow_the_fix_is_named(photos, monkeypatch):
    spec = as_parquet(photos)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys.modules["parityalign.data.sources.parquet"], "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'parityalign\[datasets\]'"):
        open_source(spec)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("gone", "does not exist"),
        ("gone.tar", "does not exist"),
        ("no-*.parquet", "does not exist"),
        ("notes.csv", "is not a folder, and its suffix is not one of .jsonl, .parquet, .tar, .txt"),
        ("tar:photos", "'tar' needs a file, or a pattern such as"),
        ("htf:owner/name", "there is no kind of image source 'htf'. Did you mean hf"),
        ("hf:", "does not say where"),
    ],
)
def test_what_cannot_be_a_source_is_told_without_opening_it(tmp_path, photos, spec, problem):
    (tmp_path / "notes.csv").write_text("")
    assert problem in str(problem_of(full_source(spec, tmp_path)))


@pytest.mark.parametrize(
    "spec", ["photos", "list.txt", "shard-*.tar", "tar:./shard-*.tar", "hf:owner/name", "hf:owner/name:test"]
)
def test_a_source_comes_back_from_its_relative_form(tmp_path, photos, spec):
    full = full_source(spec, tmp_path)
    assert relative_source(full, tmp_path) == spec and full_source(full, tmp_path) == full
    assert folder_of(full) == (photos if spec == "photos" else None)


def test_every_kind_of_source_is_found_by_the_name_of_its_file():
    assert registry.part_names("sources") == ["folder", "hf", "jsonl", "parquet", "tar", "txt"]
