"""No file of a folder can stop a run: each is let in or set aside with a reason, and is counted."""

import os
import random
from io import BytesIO

import pytest
from PIL import Image, ImageDraw

from makers import artifact, content, draw, mute
from parityalign.config.schema import IntakeSettings
from parityalign.core.errors import UserError
from parityalign.core.files import files_below, listing_digest
from parityalign.core.records import ImageRef, Question, Rejected
from parityalign.data import images
from parityalign.data.open import open_source
from parityalign.stages import intake as intake_module
from parityalign.stages._likeness import look_at
from parityalign.stages._seen import SeenImages
from parityalign.stages.intake import accepted_images, sort_images


def take_in(run, pools, tests=None, progress=mute, **settings):
    """Runs intake and gives {file name: reason, "" where accepted}."""
    made = artifact(run, "images")
    sources = {task: [open_source(str(pool))] for task, pool in pools.items()}
    sort_images(made, sources, tests or {}, settings=IntakeSettings(**settings), progress=progress)
    outcomes = {os.path.basename(image.path): "" for image in accepted_images(made)}
    rejected = made.stream("quarantine.jsonl", Rejected)
    return made, outcomes | {os.path.basename(file.path): file.reason for file in rejected}


def question(image) -> Question:
    return Question(question_id="1", image=str(image), question="What?", answers=("tea",))


def test_every_kind_of_file_ends_somewhere_with_its_reason(tmp_path):
    pool = tmp_path / "pool"
    draw(pool / "b/good.png", "blue")
    draw(pool / "a.jpg", "red")
    (pool / "copy.jpg").write_bytes((pool / "a.jpg").read_bytes())
    (pool / "empty.png").write_bytes(b"")
    (pool / "notes.txt").write_text("no picture")
    (pool / "fake.jpg").write_text("no picture either")
    whole = draw(tmp_path / "large.jpg", "green", (300, 300)).read_bytes()
    (pool / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    noise = BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3)).save(noise, "PNG")
    (pool / "cut.png").write_bytes(noise.getvalue()[:2000])
    draw(pool / "dot.png", "red", (1, 1))
    draw(pool / "line.png", "red", (5000, 7))
    draw(pool / "ribbon.png", "red", (8, 2000))
    made, outcomes = take_in(tmp_path / "run", {"toy": pool})
    assert outcomes == {
        "a.jpg": "",
        "good.png": "",
        "copy.jpg": "duplicate",
        "empty.png": "empty_file",
        "notes.txt": "not_an_image",
        "fake.jpg": "not_an_image",
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "dot.png": "too_small",
        "line.png": "too_small",
        "ribbon.png": "too_thin",
    }
    assert made.manifest["counts"]["accepted"] == 2 and made.manifest["counts"]["truncated"] == 2
    assert sum(made.manifest["by_task"]["toy"].values()) == len(outcomes)


def test_all_usual_formats_and_modes_are_let_in(tmp_path):
    pool = tmp_path / "pool"
    for shade, name in enumerate(("a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff", "a.ppm")):
        draw(pool / name, (30 * shade, 9, 200))
    draw(pool / "wrong-name.txt", format="PNG")
    Image.new("CMYK", (20, 20)).save(pool / "cmyk.jpg")
    Image.new("I;16", (20, 20), 40000).save(pool / "16bit.png")
    Image.new("LA", (20, 20), (9, 9)).save(pool / "grey-alpha.png")
    Image.new("1", (20, 20)).save(pool / "black.png")
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(pool / "palette-alpha.png", transparency=bytes([0, 128]))
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(pool / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(pool / "turned.jpg", "pink", (30, 20), exif=exif)
    made, outcomes = take_in(tmp_path / "run", {"toy": pool}, near_duplicates=False)
    assert set(outcomes.values()) == {""} and len(outcomes) == 15
    assert made.manifest["noted"] == {"first_frame": 1, "other_format": 1}


def test_a_picture_too_large_to_decode_safely_is_set_aside(tmp_path, monkeypatch):
    pool = tmp_path / "pool"
    draw(pool / "good.png")
    draw(pool / "large.png", "red", (40, 30))
    draw(pool / "bomb.png", "red", (60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    _, outcomes = take_in(tmp_path / "run", {"toy": pool})
    assert outcomes == {"good.png": "", "large.png": "too_large", "bomb.png": "too_large"}


def test_a_new_picture_is_decoded_once_however_many_it_may_equal(tmp_path):
    image = Image.radial_gradient("L").convert("RGB")
    look, seen, decoded = look_at(b"new", image), SeenImages(), []
    for number in range(5):
        seen.add(look._replace(image_id=f"{number}", pixels=f"{number}"), str(tmp_path / "gone.png"))
    assert seen.match(look, lambda: decoded.append(1) or image, near=True) is None
    assert len(decoded) == 1


def test_a_film_left_in_the_folder_is_not_read_into_memory(tmp_path, monkeypatch):
    draw(tmp_path / "pool/good.png")
    with (tmp_path / "pool/film.mp4").open("wb") as film:
        film.truncate(images.MAX_BYTES + 1)  # sparse: takes no room
    _, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    assert outcomes["film.mp4"] == "too_large"


def test_links_that_leave_the_folder_are_not_followed_and_those_inside_are(tmp_path):
    pool = tmp_path / "pool"
    draw(pool / "sub/good.png")
    draw(tmp_path / "outside/secret.png", "blue")
    (pool / "leaving.png").symlink_to(tmp_path / "outside/secret.png")
    (pool / "leaving-folder").symlink_to(tmp_path / "outside")
    (pool / "inside.png").symlink_to(pool / "sub/good.png")
    (pool / "broken.png").symlink_to(pool / "nothing.png")
    (pool / "loop.png").symlink_to(pool / "loop.png")
    (pool / "circle").symlink_to(pool)
    os.mkfifo(pool / "pipe.png")
    _, outcomes = take_in(tmp_path / "run", {"toy": pool})
    assert outcomes == {
        "inside.png": "",
        "good.png": "duplicate",
        "leaving.png": "outside_folder",
        "leaving-folder": "outside_folder",
        "broken.png": "not_a_file",
        "loop.png": "not_a_file",
        "circle": "not_a_file",
        "pipe.png": "not_a_file",
    }


def test_a_file_name_that_is_no_text_is_set_aside(tmp_path):
    draw(tmp_path / "pool/good.png")
    odd = os.fsencode(tmp_path / "pool") + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write((tmp_path / "pool/good.png").read_bytes())
    _, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    assert outcomes == {"good.png": "", "\\xff.png": "unreadable_name"}


def test_a_file_that_cannot_be_read_is_set_aside(tmp_path, monkeypatch):
    draw(tmp_path / "pool/good.png")
    draw(tmp_path / "pool/locked.png", "blue")
    read = images.read_given

    def refuse(path, limit):
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return read(path, limit)

    monkeypatch.setattr(images, "read_given", refuse)
    _, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    assert outcomes == {"good.png": "", "locked.png": "unreadable"}


def test_a_subfolder_that_cannot_be_read_is_set_aside_and_its_neighbours_come_in(tmp_path, monkeypatch):
    draw(tmp_path / "pool/good.png")
    draw(tmp_path / "pool/lost+found/a.png", "blue")
    scan, access = os.scandir, os.access

    def refuse(path):  # as root, who may read everything
        if os.fsencode(path).endswith(b"lost+found"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "lost+found" and access(path, mode))
    made, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    assert outcomes == {"good.png": "", "lost+found": "unreadable"}
    (rejected,) = made.stream("quarantine.jsonl", Rejected)
    assert rejected.detail == "a folder without access"


def test_a_pool_of_iphone_photos_says_what_to_do(tmp_path):
    (tmp_path / "pool").mkdir()
    for name in ("a.HEIC", "b.jpg"):
        (tmp_path / "pool" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + name.encode())
    with pytest.raises(UserError, match=r"2 unsupported_format\n.*HEIC of an iPhone.*convert them"):
        take_in(tmp_path / "run", {"toy": tmp_path / "pool"})


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    draw(tmp_path / "pool/good.png")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot read the folder .*pool: Permission denied"):
        take_in(tmp_path / "run", {"toy": tmp_path / "pool"})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_however_a_picture_is_damaged_it_ends_somewhere(tmp_path, kind):
    chance = random.Random(kind)
    buffer = BytesIO()
    Image.frombytes("RGB", (24, 24), chance.randbytes(24 * 24 * 3)).save(buffer, kind)
    whole = buffer.getvalue()
    pool = tmp_path / "pool"
    draw(pool / "good.png")
    for number in range(60):
        damaged = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
        (pool / f"{number}.bin").write_bytes(damaged)
    _, outcomes = take_in(tmp_path / "run", {"toy": pool})
    assert len(outcomes) == 61
    # Cut behind the header and before the last pixel, every format must notice.
    (pool / "half.bin").write_bytes(whole[: len(whole) // 2])
    _, outcomes = take_in(tmp_path / "again", {"toy": pool})
    assert outcomes["half.bin"] in ("truncated", "not_an_image")


def test_pictures_of_any_test_split_leave_every_pool(tmp_path):
    draw(tmp_path / "a/tested.png", "blue")
    draw(tmp_path / "a/free.png", "red")
    draw(tmp_path / "b/free.png", "red")
    draw(tmp_path / "b/also-tested.png", "blue")
    test = draw(tmp_path / "test/elsewhere.png", "blue")
    made, outcomes = take_in(
        tmp_path / "run", {"one": tmp_path / "a", "two": tmp_path / "b"}, {"one": [question(test)], "two": []}
    )
    assert outcomes == {"tested.png": "in_test_split", "free.png": "", "also-tested.png": "in_test_split"}
    # The same picture may serve two tasks: it is a duplicate only within one.
    assert [image.task for image in accepted_images(made)] == ["one", "two"]


def sign(path, words, size=(128, 96), scale=1.0, **options):
    """A picture with enough in it to be told from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((6, 30), words, fill="navy", font_size=24)
    if scale != 1.0:
        image = image.resize((round(size[0] * scale), round(size[1] * scale)))
    image.save(path, **options)
    return path


def planted(pool, words):
    """One picture in every way in which it may be saved again, and one that only looks like it."""
    copy = sign(pool / "copy.png", words)
    Image.open(copy).save(pool / "pixels.bmp")
    sign(pool / "encoded.jpg", words, quality=30)
    sign(pool / "resized.png", words, scale=0.5)
    sign(pool / "larger.jpg", words, scale=2.0, quality=80)
    sign(pool / "other.png", words[:-1] + "6")
    return {"copy.png", "pixels.bmp", "encoded.jpg", "resized.png", "larger.jpg"}


def test_planted_test_images_leave_the_pool_and_name_their_partner(tmp_path):
    overlapping = planted(tmp_path / "pool", "Exit 35")
    test = sign(tmp_path / "test/t.png", "Exit 35")
    tests = {"toy": [question(test)]}
    made, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"}, tests)
    assert outcomes == dict.fromkeys(overlapping, "in_test_split") | {"other.png": ""}
    rejected = list(made.stream("quarantine.jsonl", Rejected))
    assert {row.partner for row in rejected} == {"../test/t.png"}
    assert {os.path.basename(row.path): row.detail.partition(" as ")[0] for row in rejected} == {
        "copy.png": "same bytes",
        "pixels.bmp": "same pixels",
        **dict.fromkeys(("encoded.jpg", "resized.png", "larger.jpg"), "nearly the same pixels"),
    }
    assert made.manifest["note"] == (
        "overlap guard: compared with 1 pictures of the test splits; 5 of 6 images were dropped"
    )


def test_a_guard_that_is_turned_off_says_so(tmp_path):
    planted(tmp_path / "pool", "Exit 35")
    tests = {"toy": [question(sign(tmp_path / "test/t.png", "Exit 35"))]}
    made, outcomes = take_in(
        tmp_path / "run", {"toy": tmp_path / "pool"}, tests, overlap_guard=False, near_duplicates=False
    )
    assert "in_test_split" not in outcomes.values()
    assert "off, so images of the test splits may be in the pools" in made.manifest["note"]


def test_of_a_picture_saved_again_the_first_is_kept_whichever_that_is(tmp_path):
    names = sorted(planted(tmp_path / "pool", "Exit 35"))
    for place, first in enumerate(names):
        pool = tmp_path / f"pool-{place}"
        pool.mkdir()
        for name in names:
            source = (tmp_path / "pool" / name).read_bytes()
            (pool / f"{'0' if name == first else '1'}-{name}").write_bytes(source)
        _, outcomes = take_in(tmp_path / f"run-{place}", {"toy": pool})
        assert outcomes[f"0-{first}"] == "" and list(outcomes.values()).count("") == 1


def test_near_duplicates_stay_where_they_are_wanted_but_equal_ones_do_not(tmp_path):
    planted(tmp_path / "pool", "Exit 35")
    _, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"}, near_duplicates=False)
    assert sorted(name for name, reason in outcomes.items() if reason) == ["pixels.bmp"]
    assert outcomes["pixels.bmp"] == "duplicate_pixels"


def test_a_test_picture_that_cannot_be_opened_is_counted(tmp_path):
    draw(tmp_path / "pool/a.png")
    (tmp_path / "broken.png").write_bytes(b"broken")
    tests = {"toy": [question(tmp_path / "broken.png"), question(tmp_path / "gone.png")]}
    made, _ = take_in(tmp_path / "run", {"toy": tmp_path / "pool"}, tests)
    assert "compared with 0 pictures of the test splits, 2 could not be opened" in made.manifest["note"]


def test_order_and_identity_depend_on_names_and_content_only(tmp_path):
    pool = tmp_path / "pool"
    for name, colour in (("c", "red"), ("a", "green"), ("b/d", "blue"), ("b-d", "white")):
        draw(pool / f"{name}.png", colour)
    made, _ = take_in(tmp_path / "run", {"toy": pool})
    images = accepted_images(made)
    assert [os.path.relpath(image.path, pool) for image in images] == ["a.png", "b/d.png", "b-d.png", "c.png"]
    assert all(len(image.image_id) == 32 for image in images) and len({image.image_id for image in images}) == 4


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_missing_folder_is_named_before_anything_is_read(tmp_path, kind):
    draw(tmp_path / "good/a.png")
    if kind == "file":
        (tmp_path / "bad").write_text("")
    with pytest.raises(UserError, match=f"images is {tmp_path / 'bad'}, which"):
        take_in(tmp_path / "run", {"one": tmp_path / "good", "two": tmp_path / "bad"})
    assert not (tmp_path / "run/images/accepted.jsonl").exists()


def test_folders_without_a_usable_image_are_named_with_their_counts(tmp_path):
    (tmp_path / "empty").mkdir()
    for number in range(3):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / f"bad/{number}.txt").write_text("text")
    draw(tmp_path / "bad/dot.png", "red", (1, 1))
    draw(tmp_path / "good/a.png")
    with pytest.raises(UserError) as refusal:
        take_in(
            tmp_path / "run",
            {"one": tmp_path / "empty", "two": tmp_path / "bad", "three": tmp_path / "good"},
        )
    message = str(refusal.value)
    assert f"{tmp_path / 'empty'} (task one): no file" in message
    assert f"{tmp_path / 'bad'} (task two): 3 not_an_image, 1 too_small" in message
    assert "three" not in message and refusal.value.exit_status == 2


def test_progress_is_told_by_task(tmp_path):
    draw(tmp_path / "pool/a.png")
    told = []
    take_in(tmp_path / "run", {"toy": tmp_path / "pool"}, progress=lambda *step: told.append(step))
    assert told == [("intake toy", 1, 1)]


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_a_killed_intake_continues_to_the_same_bytes(tmp_path, monkeypatch, killed_after):
    pool = tmp_path / "pool"
    for number in range(7):
        draw(pool / f"{number}.png", (60 * (number // 2), 0, 0))  # every other one is a duplicate
    monkeypatch.setattr(intake_module, "_CHUNK", 2)
    take_in(tmp_path / "whole", {"toy": pool})
    chunks = iter(range(killed_after))

    def kill(*_):
        if next(chunks, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_in(tmp_path / "killed", {"toy": pool}, progress=kill)
    stream = tmp_path / "killed/images/accepted.jsonl"
    stream.write_bytes(stream.read_bytes()[:-5])  # and the last line was torn
    take_in(tmp_path / "killed", {"toy": pool})
    assert content(tmp_path / "killed/images") == content(tmp_path / "whole/images")


def test_a_finished_intake_reads_nothing_again(tmp_path):
    draw(tmp_path / "pool/a.png")
    take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    (tmp_path / "pool/a.png").unlink()
    made, outcomes = take_in(tmp_path / "run", {"toy": tmp_path / "pool"})
    assert outcomes == {"a.png": ""} and list(made.stream("accepted.jsonl", ImageRef))


def test_the_listing_digest_notices_what_changes_and_nothing_else(tmp_path):
    pool = tmp_path / "pool"
    draw(pool / "a.png")
    before = listing_digest(files_below(pool), pool)
    assert listing_digest(files_below(pool), pool) == before
    draw(pool / "sub/b.png")
    added = listing_digest(files_below(pool), pool)
    (pool / "sub/b.png").write_bytes(b"other")
    rewritten = listing_digest(files_below(pool), pool)
    (pool / "sub/b.png").unlink()
    assert len({before, added, rewritten}) == 3 and listing_digest(files_below(pool), pool) == before
