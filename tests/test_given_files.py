"""Files of others: regular ones only, within limits, and folders however deep."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import draw
from parityalign.config.data_specs import is_table
from parityalign.core import given_files
from parityalign.core.errors import UserError
from parityalign.core.files import files_below, files_named, folder_files
from parityalign.core.given_files import given_lines, leads_out, open_given, read_given
from parityalign.data.given_pairs import json_rows
from parityalign.data.images import Unfit, read_bytes


def irregular(folder):
    """A pipe, a socket, a device and a folder, each behind a link too; reading most of them would never end."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    for name in ("pipe", "socket", "folder"):
        (folder / f"link to {name}").symlink_to(folder / name)
    return sorted(folder.iterdir())


def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    for path in irregular(tmp_path):
        with pytest.raises(OSError, match="it is a (pipe|socket|device|folder), not a file"):
            open_given(path)
        with pytest.raises(Unfit, match="not a file"):
            read_bytes(path)
        with pytest.raises(UserError, match=r"not a file.*expected"):
            json_rows(path, "expected")


def test_a_file_behind_a_link_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"tea")
    (tmp_path / "b").symlink_to("a")
    assert read_given(tmp_path / "b", 3) == b"tea"
    with pytest.raises(OSError, match="it has 3 bytes; at most 2 are read"):
        read_given(tmp_path / "b", 2)


@given(st.binary(max_size=60), st.integers(1, 60))
def test_lines_are_those_of_the_file_or_one_is_too_long(tmp_path_factory, content, limit):
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes(content)
    lines = list(enumerate(content.split(b"\n"), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given_files, "MAX_LINE_BYTES", limit)
        ends = len(lines)
        if any(len(line) + (number < ends) > limit for number, line in lines):
            with pytest.raises(UserError, match="is longer than"):
                list(given_lines(path))
        else:
            read = [(number, line.removesuffix(b"\n")) for number, line in given_lines(path)]
            assert read == [(number, line) for number, line in lines if line.strip()]


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("a.png", False),
        ("b/../a.png", False),
        ("../a.png", True),
        ("/etc/passwd", True),
        ("link.png", True),
        ("inner.png", False),
        ("b/up/pool/a.png", False),
        ("b/up/a.png", True),
    ],
)
def test_what_leads_out_of_a_folder_is_told_with_links_resolved(tmp_path, path, out):
    draw(tmp_path / "a.png")
    draw(tmp_path / "pool/b/a.png")
    (tmp_path / "pool/link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "pool/inner.png").symlink_to(tmp_path / "pool/b/a.png")
    (tmp_path / "pool/b/up").symlink_to(tmp_path)
    assert leads_out(tmp_path / "pool" / path, tmp_path / "pool") is out


def test_the_blobs_of_a_snapshot_in_the_hub_cache_belong_to_it(tmp_path):
    cached = tmp_path / "datasets--a--b"
    draw(cached / "blobs/1234.png")
    (cached / "snapshots/5678/train").mkdir(parents=True)
    (cached / "snapshots/5678/train/a.png").symlink_to("../../../blobs/1234.png")
    assert not leads_out(cached / "snapshots/5678/train/a.png", cached / "snapshots/5678")
    assert leads_out(cached / "../a.png", cached / "snapshots/5678")


@pytest.fixture
def deep(tmp_path):
    """A picture below 1,200 folders, too deep for recursion and for most of what walks folders."""
    here = os.getcwd()
    os.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("a")
        os.chdir("a")
    draw(tmp_path.cwd() / "x.png")
    os.chdir(here)
    yield tmp_path / "a"
    for depth in range(1200, 0, -1):  # pytest's own removal goes down recursively
        folder = os.path.join(tmp_path, *["a"] * depth)
        for name in os.listdir(folder):
            os.remove(os.path.join(folder, name))
        os.rmdir(folder)


def test_a_folder_may_be_a_thousand_deep(deep):
    (found,) = files_below(deep)
    assert found.name == "x.png" and len(found.relative_to(deep).parts) == 1200
    assert not is_table(deep)
    with pytest.raises(UserError, match=r"\*\*/\*.tar matches are nested too deeply"):
        files_named(f"{deep}/**/*.tar")
    assert folder_files(deep) == [found.relative_to(deep).as_posix()]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a.b", "é", "a b"]), min_size=1, max_size=4), max_size=8))
def test_a_walk_lists_every_file_once_in_the_order_of_the_parts(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("walk")
    for name in names:
        (folder.joinpath(*name)).mkdir(parents=True, exist_ok=True)
        (folder.joinpath(*name) / "file").touch()
    expected = sorted({(*name, "file") for name in names}, key=lambda parts: [os.fsencode(part) for part in parts])
    assert [found.relative_to(folder).parts for found in files_below(folder)] == expected


def test_there_are_no_files_in_a_folder_that_is_not_there(tmp_path):
    assert folder_files(tmp_path / "nothing") == []
    with pytest.raises(UserError, match="cannot read the folder"):
        list(files_below(tmp_path / "nothing"))
