"""Whatever container they lie in, the same images come in; what names no images is refused before any is opened."""

import io
import json
import os
import random
import shutil
import sys
import tarfile
import time
from collections import deque
from pathlib import Path

import pytest

from makers import artifact, content, draw, mute
from parityalign.config.data_specs import folder_of, full_source, problem_of, relative_source
from parityalign.config.schema import IntakeSettings
from parityalign.core import given_files, registry
from parityalign.core.errors import UserError
from parityalign.data import cells
from parityalign.data.images import Unfit
from parityalign.data.open import open_source
from parityalign.data.sources import jsonl, parquet, tar, txt
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


def header(name, kind=tarfile.REGTYPE, size=0, content=b"", raw_size=None):
    """A member of an archive, whose size may be said wrongly."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size or len(content)
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    if raw_size is not None:  # as numbers are stored that are negative or beyond eight gigabytes
        block[124:136] = raw_size.to_bytes(12, "big", signed=True)
        block[124] |= 0x80
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def field(text, kind=b"x"):
    """A header with one field for the next member, or (`g`) for all behind it."""
    length = next(n for n in range(len(text) + 3, len(text) + 9) if len(f"{n} {text}\n") == n)
    return header("p", kind, content=f"{length} {text}\n".encode())


END = bytes(1024)


@pytest.mark.parametrize(
    "content",
    [
        header("a.png") + header("b.png", raw_size=-512) + END,
        header("a.png") + header("b.png", raw_size=-(2**60)) + END,
        header("a.png") + header("long", b"L", raw_size=-512) + END,
        header("a.png") + header("long", b"L", size=8**11 - 1) + END,
        header("a.png") + header("far.png", raw_size=2**70) + END,
        *(
            field(text) + header("b.png") + END
            for text in ("GNU.sparse.map=abc,1", "GNU.sparse.size=abc", f"size={10**20 - 1}", "size=-1024")
        ),
        header("p", b"x", content=b"99999999999999999999 a=b\n") + header("b.png") + END,
        field("a=b") * 1_000 + header("b.png") + END,
        header("link", b"x", content=b"") * 3_000 + END,
        b"".join(field(f"k{number}=v", b"g") + header(f"{number}.png") for number in range(300)) + END,
    ],
)
def test_a_header_that_lies_is_told_by_its_archive_soon(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match="cannot read the archive .*a.tar"):
        deque(open_source(str(tmp_path / "a.tar")).images())


def test_a_field_for_all_members_may_stand_in_an_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(field("a=b", b"g") + header("a.png") + field("c=d", b"g") + header("b.png") + END)
    assert open_source(str(tmp_path / "a.tar")).count() == 2


def test_long_names_and_fields_of_one_archive_are_read(tmp_path, photos):
    picture = (photos / "0.jpg").read_bytes()
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form, pax_headers={"comment": "é"}) as archive:
            for number in range(200):
                add(archive, f"{'long/' * 60}é{number}.jpg", picture)
        images = list(open_source(str(tmp_path / "a.tar")).images())
        assert [image.read() for image in images] == [picture] * 200
        assert images[7].name == f"{tmp_path}/a.tar/{'long/' * 60}é7.jpg"


def test_what_webdataset_notes_of_a_sample_is_no_image(tmp_path, photos):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("0.jpg", "0.__key__", "0.__url__", "0.json"):
            add(archive, name, (photos / "0.jpg").read_bytes())
    assert open_source(str(tmp_path / "a.tar")).count() == 1


def test_a_picture_that_is_stored_with_holes_says_so(tmp_path):
    # As `tar --sparse` writes it: a header of type S with one piece of data.
    block = bytearray(header("hole.png", b"S", content=b"x" * 512))
    block[386:410] = b"00000000000\x0000000001000\x00"
    block[483:495] = b"00000001000\x00"
    block[257:265] = b"ustar  \0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    (tmp_path / "a.tar").write_bytes(bytes(block) + END)
    (found,) = open_source(str(tmp_path / "a.tar")).images()
    with pytest.raises(Unfit, match="stored with holes"):
        found.read()


def named(tmp_path, *paths):
    """A data set of one good picture and rows that name others."""
    pytest.importorskip("datasets")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    picture = draw(tmp_path / "good.png", "green").read_bytes()
    cells = [{"bytes": picture, "path": None}, *({"bytes": None, "path": path} for path in paths)]
    (tmp_path / "set").mkdir(exist_ok=True)
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "set/train.parquet")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../private.png", "outside_folder"),
        ("/etc/passwd", "outside_folder"),
        ("link.png", "outside_folder"),
        ("pipe.png", "unreadable"),
        ("zero.png", "outside_folder"),
        ("a\0b.png", "unreadable"),
        ("x" * 5000, "unreadable"),
        ("xz://::/etc/passwd", "unreadable"),
        ("dir:///etc", "unreadable"),
        ("reference://a", "unreadable"),
        ("file:///etc/passwd", "outside_folder"),
        ("zip://a.png::/etc/a.zip", "outside_folder"),
        ("zip://a.png::pipe.png", "unreadable"),
        ("zip://a.png::../private.png", "outside_folder"),
        ("zip://a.png::file://private.png", "unreadable"),
        ("memory://a::zip://b", "unreadable"),
        ("", "no_bytes"),
    ],
)
def test_a_row_reaches_only_what_belongs_to_its_data_set(tmp_path, path, reason):
    folder = named(tmp_path, path)
    draw(tmp_path / "private.png", "red")
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    made = take_in(tmp_path / "run", f"hf:{folder}")
    assert made.manifest["counts"] == {"accepted": 1, reason: 1}


@pytest.mark.parametrize("place", ["../private.parquet", "{}/private.parquet", "file://{}/private.parquet"])
def test_a_data_set_whose_readme_names_a_table_elsewhere_is_refused(tmp_path, place):
    folder = named(tmp_path)
    (folder / "train.parquet").rename(tmp_path / "private.parquet")
    configs = f"configs:\n- config_name: default\n  data_files: {place.format(tmp_path)}\n"
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    with pytest.raises(UserError, match=r"names .*private.parquet, which is outside its folder"):
        deque(open_source(f"hf:{folder}").images())


def test_a_table_of_a_data_set_may_be_a_link(tmp_path):
    folder = named(tmp_path)
    (folder / "train.parquet").rename(tmp_path / "elsewhere.parquet")
    (folder / "train.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    (tmp_path / "link").symlink_to(folder)
    assert len(list(open_source(f"hf:{tmp_path / 'link'}").images())) == 1


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    folder = named(tmp_path, "https://localhost/a.png")
    monkeypatch.setattr(cells, "_SECONDS", 0.05)
    monkeypatch.setattr(cells, "_fetched", lambda url: time.sleep(1))
    (_, found) = open_source(f"hf:{folder}").images()
    with pytest.raises(Unfit, match="no answer within"):
        found.read()


def test_a_pipe_among_the_tables_of_a_data_set_is_refused(tmp_path):
    folder = named(tmp_path)
    os.mkfifo(folder / "more.parquet")
    with pytest.raises(UserError, match=r"more.parquet is a pipe or a device"):
        deque(open_source(f"hf:{folder}").images())


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tar", "a.parquet"])
def test_a_source_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / "link").symlink_to(name)
    for module in (txt, jsonl, tar, parquet):
        if module.__name__.endswith(name.removeprefix("a.")):
            with pytest.raises(UserError, match="it is a pipe, not a file"):
                deque(module.SOURCE.open(str(tmp_path / name)).images())


def test_a_column_of_plain_bytes_in_a_data_set_comes_in(tmp_path, photos):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    Path(as_bare_parquet(photos)).replace(tmp_path / "set/train.parquet")
    assert take_in(tmp_path / "run", f"hf:{tmp_path / 'set'}").manifest["counts"] == {"accepted": 5, "not_an_image": 1}


def test_a_first_row_without_a_picture_hides_no_column(tmp_path, photos):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    picture = contents(photos)[0]
    Path(as_parquet(photos, [None, {"bytes": picture, "path": None}])).replace(tmp_path / "set/train.parquet")
    assert take_in(tmp_path / "run", f"hf:{tmp_path / 'set'}").manifest["counts"] == {"accepted": 1, "no_bytes": 1}
    Path(as_parquet(photos, [None] * 200)).replace(tmp_path / "set/train.parquet")
    with pytest.raises(UserError, match="no column of images; its columns are 'label', 'image'"):
        take_in(tmp_path / "none", f"hf:{tmp_path / 'set'}")


def test_a_line_of_a_list_that_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(given_files, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.txt").write_text("a.png\n" + "x" * 101)
    with pytest.raises(UserError, match="a.txt, line 2 is longer than 100 bytes"):
        deque(open_source(str(tmp_path / "a.txt")).images())


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
    monkeypatch.setattr(sys.modules["parityalign.data._parquet"], "find_spec", lambda name: None)
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
