"""What people have on their disks becomes what it looks like, or is left out with a reason."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import EpsImagePlugin, Image

from datasets import InputError, decoding
from datasets.decoding import FORMATS, FileDecoder, MaskDecoder, decode_file, decode_mask, upright_size
from datasets.folders import below, beside, class_folders, file_digests, find_images, groups

GRAY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def picture(path: Path, gray: int = 128, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, gray).save(path)
    return path


def undecodable(path: Path) -> str | None:
    """Why a file does not decode."""
    try:
        decode_file(path, "RGB")
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def noisy(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


# Pixels


def test_gray_file_is_read_as_it_is_and_replicated_for_rgb(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "x.png")
    assert np.array_equal(decode_file(tmp_path / "x.png", "L"), GRAY[:, :, None])
    assert np.array_equal(decode_file(tmp_path / "x.png", "RGB"), np.stack([GRAY] * 3, axis=2))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    assert decode_file(tmp_path / "x.png", "L")[:, :, 0].tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("mode", "pixel", "seen"),
    [("LA", (200, 128), 100), ("LA", (200, 0), 0), ("RGBA", (90, 90, 90, 255), 90), ("RGBA", (255, 255, 255, 51), 51)],
)
def test_transparent_pixels_are_seen_on_black(tmp_path: Path, mode: str, pixel: tuple[int, ...], seen: int) -> None:
    Image.new(mode, (3, 2), pixel).save(tmp_path / "x.png")
    pixels = decode_file(tmp_path / "x.png", "RGB")
    assert pixels.shape == (2, 3, 3)
    assert np.abs(pixels.astype(int) - seen).max() <= 1


def test_palette_is_looked_up_and_its_transparent_entry_is_black(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 250, 250, 200, 100, 50])
    image.putdata([0, 1])
    image.save(tmp_path / "x.png", transparency=0)
    assert decode_file(tmp_path / "x.png", "RGB").tolist() == [[[0, 0, 0], [200, 100, 50]]]


def test_cmyk_jpeg_has_the_colours_of_its_print(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 60)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert np.abs(decode_file(tmp_path / "x.jpg", "RGB").astype(int) - (200, 40, 60)).max() <= 3


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_film_that_lies_on_its_side_is_put_upright(tmp_path: Path, ending: str) -> None:
    stored = np.zeros((16, 32), np.uint8)
    stored[:, :16] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left comes to the top
    Image.fromarray(stored).save(tmp_path / f"x.{ending}", exif=exif)
    seen = decode_file(tmp_path / f"x.{ending}", "L")[:, :, 0]
    assert seen.shape == (32, 16)
    assert seen[:15].min() > 240
    assert seen[17:].max() < 15


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("L", (8, 8), gray) for gray in (40, 220)]
    frames[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:])
    assert np.abs(decode_file(tmp_path / f"x.{ending}", "L").astype(int) - 40).max() <= 2


@settings(max_examples=40, deadline=None)
@given(
    values=arrays.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5))),
    dtype=st.sampled_from(["<u2", ">u2", "<i4", "<f4"]),
)
def test_deep_gray_keeps_its_order_and_fills_eight_bit(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, dtype: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "deep.tif"
    Image.fromarray(values.astype(dtype)).save(path)
    seen = decode_file(path, "L").ravel().astype(int)
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(seen[order]) >= 0).all()
    assert seen.min() == 0
    assert seen.max() == (255 if values.min() < values.max() else 0)


def test_twelve_bits_in_a_sixteen_bit_png_are_not_a_black_image(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 2000, 3000]], np.uint16)).save(tmp_path / "x.png")
    assert decode_file(tmp_path / "x.png", "L")[:, :, 0].tolist() == [[0, 128, 255]]


def test_floating_point_holes_are_black(tmp_path: Path) -> None:
    Image.fromarray(np.array([[np.nan, -1.0, 0.0, 1.0, np.inf]], np.float32)).save(tmp_path / "x.tif")
    assert decode_file(tmp_path / "x.tif", "L")[:, :, 0].tolist() == [[0, 0, 128, 255, 255]]


def test_sixteen_bit_tiff_with_white_as_zero_is_inverted(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([[0, 1000, 65535]], np.uint16)).save(path)
    # tag 262 (photometric interpretation), type short, one value: 1, black is zero, becomes 0
    stored = path.read_bytes()
    entry = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert stored.count(entry + b"\x01") == 1
    path.write_bytes(stored.replace(entry + b"\x01", entry + b"\x00"))
    assert decode_file(path, "L")[:, :, 0].tolist() == [[255, 251, 0]]


# Reduced size


@pytest.mark.parametrize(
    ("size", "at_least", "read"),
    [
        ((800, 600), None, (800, 600)),
        ((800, 600), 601, (800, 600)),
        ((800, 600), 600, (800, 600)),
        ((800, 600), 300, (400, 300)),
        ((600, 800), 224, (300, 400)),
        ((801, 601), 70, (101, 76)),
        ((20, 800), 10, (10, 400)),
    ],
)
def test_jpeg_is_decoded_no_larger_than_needed_and_no_smaller_than_asked(
    tmp_path: Path, size: tuple[int, int], at_least: int | None, read: tuple[int, int]
) -> None:
    Image.radial_gradient("L").resize(size).save(tmp_path / "x.jpg", quality=95)
    whole, pixels = decode_file(tmp_path / "x.jpg", "L"), decode_file(tmp_path / "x.jpg", "L", at_least)
    assert pixels.shape == (*read[::-1], 1)
    assert min(pixels.shape[:2]) >= min(at_least or 0, *size)
    shrunk = Image.fromarray(whole[:, :, 0]).resize(read, Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - pixels[:, :, 0]).mean() < 3


def test_reduced_jpeg_is_put_upright_keeps_its_colours_and_is_found_out_when_truncated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), (200, 40, 60)).save(tmp_path / "x.jpg", exif=exif, quality=100)
    pixels = FileDecoder("RGB")({"path": str(tmp_path / "x.jpg"), "at_least_px": 8})
    assert pixels.shape == (16, 8, 3)
    assert np.abs(pixels.astype(int) - (200, 40, 60)).max() <= 3
    path = noisy(tmp_path / "y.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="broken image"):
        decode_file(path, "RGB", 8)


def test_other_formats_come_whole(tmp_path: Path) -> None:
    noisy(tmp_path / "x.png")
    assert decode_file(tmp_path / "x.png", "RGB", 8).shape == (64, 64, 3)


# Masks


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"])
@pytest.mark.parametrize("white", [255, 1])
def test_object_is_what_is_not_black_in_every_kind_of_mask(tmp_path: Path, mode: str, white: int) -> None:
    inside = np.zeros((4, 6), np.uint8)
    inside[1:3, 2:5] = white
    image = Image.fromarray(inside)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(inside.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    elif mode == "P":
        image = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    else:
        image = image.point(lambda value: value * 255 // white).convert(mode) if mode == "1" else image.convert(mode)
    path = tmp_path / ("x.tif" if mode in ("I", "F") else "x.png")
    image.save(path)
    picture(tmp_path / "image.png")
    row = {"path": str(tmp_path / "image.png"), "mask_path": str(path)}
    assert np.array_equal(MaskDecoder()(row)[:, :, 0], (inside > 0).astype(np.uint8))


def test_palette_of_classes_keeps_its_indices_wherever_white_and_black_stand(tmp_path: Path) -> None:
    for palette, indices, expected in (
        ([0, 0, 0, 128, 0, 0, 0, 128, 0], [0, 1, 2], [0, 1, 2]),
        ([255, 255, 255, 0, 0, 0], [0, 1, 0], [255, 0, 255]),
        ([0, 0, 0, 0, 0, 0], [0, 1, 0], [0, 1, 0]),
    ):
        image = Image.new("P", (3, 1))
        image.putpalette(palette)
        image.putdata(indices)
        image.save(tmp_path / "x.png")
        assert decode_mask(tmp_path / "x.png").tolist() == [expected]


def test_instances_are_one_class_and_named_classes_are_kept(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2, 37, 300, 2]], np.uint16)).save(tmp_path / "mask.png")
    picture(tmp_path / "image.png", size=(6, 1))
    row = {"path": str(tmp_path / "image.png"), "mask_path": str(tmp_path / "mask.png")}
    assert MaskDecoder()(row)[0, :, 0].tolist() == [0, 1, 1, 1, 1, 1]
    assert MaskDecoder(classes=301)(row)[0, 2, 0] == 2
    with pytest.raises(InputError, match=r"mask\.png: holds the class 300; expected 0 to 2"):
        MaskDecoder(classes=3)(row)


def test_jpeg_masks_are_what_they_were_before_they_were_blurred(tmp_path: Path) -> None:
    inside = np.zeros((32, 32), np.uint8)
    inside[9:21, 5:30] = 255
    Image.fromarray(inside).save(tmp_path / "x.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "x.jpg")))) > 2
    assert np.array_equal(decode_mask(tmp_path / "x.jpg"), inside)


def test_mask_comes_in_the_size_of_its_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (12, 6)).save(tmp_path / "image.jpg", exif=exif)
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / "mask.png")
    assert upright_size(tmp_path / "image.jpg") == (6, 12)
    mask = MaskDecoder()({"path": str(tmp_path / "image.jpg"), "mask_path": str(tmp_path / "mask.png")})
    assert mask.shape == (12, 6, 1)
    assert mask[:, :3].max() == 0
    assert mask[:, 3:].min() == 1


# Files that do not decode


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_file_has_a_reason(tmp_path: Path, ending: str) -> None:
    path = noisy(tmp_path / f"x.{ending}")
    assert undecodable(path) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert undecodable(path)
    with pytest.raises(InputError, match=f"x.{ending}: "):
        decode_file(path, "RGB")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_broken_file_stops_the_program(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(["jpg", "png", "gif", "bmp", "tif", "webp"]))
    path = noisy(tmp_path_factory.getbasetemp() / f"broken.{ending}")
    stored = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        stored[data.draw(st.integers(0, min(len(stored), 400) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # a broken header may ask for any size
        undecodable(path)  # does not raise, whatever Pillow does


def test_what_is_no_image_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("patient;label")
    assert undecodable(tmp_path / "empty.png") == "empty, 0 bytes"
    assert undecodable(tmp_path / "text.png") == "not an image of a known format"
    assert "cannot be read now (No such file or directory)" in (undecodable(tmp_path / "gone.png") or "")


@pytest.mark.parametrize("limit", [1500, 500])
def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    picture(tmp_path / "x.png", size=(40, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # Pillow warns above it and raises above twice of it
    reason = undecodable(tmp_path / "x.png")
    assert reason is not None
    assert "decompression bomb" in reason


def test_a_format_that_starts_another_program_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS: Pillow has Ghostscript run the program that the file is."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    Image.open(tmp_path / "x.png").close()
    assert undecodable(tmp_path / "x.png") == "not an image of a known format"
    picture(tmp_path / "x.ppm").rename(tmp_path / "y.png")
    assert undecodable(tmp_path / "y.png") == "not an image of a known format"
    assert not called.exists()


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_every_format_of_a_known_ending_is_one_that_is_opened(tmp_path: Path, ending: str) -> None:
    with Image.open(noisy(tmp_path / f"x.{ending}")) as image:
        assert image.format in FORMATS
    frames = [Image.new("RGB", (8, 8), gray) for gray in ("black", "white")]
    frames[0].save(tmp_path / "x.jpeg", format="MPO", save_all=True, append_images=frames[1:])
    assert decode_file(tmp_path / "x.jpeg", "L").max() == 0


# Memory

LARGE_PX = 2500
PROGRAM = """
import resource, sys
import numpy as np
from pathlib import Path
from PIL import Image
from datasets.decoding import decode_file, decode_mask
mode, side, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
read = decode_mask if mode == "P" else lambda path: decode_file(path, "L")
Image.MAX_IMAGE_PIXELS = side * side
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
read(Path(sys.argv[4]))
before = peak()
read(path)
print((peak() - before) / side**2)
"""


@pytest.mark.parametrize(("mode", "most_bytes"), [("I;16", 8), ("RGBA", 9), ("F", 9), ("P", 16)])
def test_the_largest_image_takes_little_more_than_its_pixels(tmp_path: Path, mode: str, most_bytes: int) -> None:
    """Bytes per pixel at the peak: the image and what is made of it, and no copy of either."""
    paths = []
    for side in (LARGE_PX, 64):
        ramp = (np.arange(side)[:, None] * 5 + np.arange(side)).astype({"I;16": np.uint16, "F": np.float32}.get(mode))
        image = Image.fromarray(ramp if mode in ("I;16", "F") else ramp.astype(np.uint8))
        paths.append(tmp_path / f"{side}.{'tif' if mode == 'F' else 'png'}")
        (image if image.mode == mode else image.convert(mode)).save(paths[-1])
    arguments = [mode, str(LARGE_PX), *map(str, paths)]
    said = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert float(said.stdout) < most_bytes


def test_images_in_flight_share_a_budget_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MOST_PIXELS", 64 * 64 * 2)
    most, now, lock = 0, 0, threading.Lock()
    strips = decoding._strips

    def counted(image: Image.Image):
        nonlocal most, now
        with lock:
            now += image.width * image.height
            most = max(most, now)
        time.sleep(0.01)
        yield from strips(image)
        with lock:
            now -= image.width * image.height

    monkeypatch.setattr(decoding, "_strips", counted)
    noisy(tmp_path / "x.png")
    picture(tmp_path / "large.png", size=(200, 200))
    names = ["x.png"] * 20 + ["large.png"] + ["x.png"] * 5
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(decode_file, tmp_path / name, "L") for name in names]
        assert {job.result().shape for job in jobs} == {(64, 64, 1), (200, 200, 1)}
    assert most == 200 * 200
    assert now == 0


def test_what_is_read_in_strips_is_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    deep = Image.fromarray(rng.integers(0, 60000, (23, 17), dtype=np.uint16))
    clear = Image.fromarray(rng.integers(0, 256, (23, 17, 4), dtype=np.uint8))
    for name, image in {"deep.png": deep, "clear.png": clear, "palette.gif": clear.convert("RGB").convert("P")}.items():
        image.save(tmp_path / name)
        whole = decode_file(tmp_path / name, "RGB")
        monkeypatch.setattr(decoding, "STRIP_PIXELS", 40)
        assert np.array_equal(decode_file(tmp_path / name, "RGB"), whole)
        monkeypatch.undo()


# Folders


def test_images_are_found_in_the_order_of_their_paths_and_the_rest_is_reported(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "a.tiff", "a/z.WebP", "b/.DS_169665.jpg", "__MACOSX/b/._2.png", ".git/x.png"):
        picture(tmp_path / name)
    for name in ("a/@eaDir/z.WebP/SYNOPHOTO_THUMB_M.jpg", "b/._2.JPG", "b/.thumbnails/2.png", "$RECYCLE.BIN/x.png"):
        picture(tmp_path / name)
    for name in ("b/Thumbs.db", "labels.csv", ".DS_Store", "no_ending"):
        (tmp_path / name).touch()
    found, skipped = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.tiff", "a/z.WebP", "b/10.png", "b/2.JPG"]
    assert [(file.path, file.reason.split()[0]) for file in skipped] == [
        ("$RECYCLE.BIN", "hidden,"),
        (".DS_Store", "hidden,"),
        (".git", "hidden,"),
        ("__MACOSX", "hidden,"),
        ("a/@eaDir", "hidden,"),
        ("b/.DS_169665.jpg", "hidden,"),
        ("b/._2.JPG", "hidden,"),
        ("b/.thumbnails", "hidden,"),
        ("b/Thumbs.db", "not"),
        ("labels.csv", "not"),
        ("no_ending", "not"),
    ]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/x.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked_file.png").symlink_to(tmp_path / "elsewhere/x.png")
    (root / "circle").symlink_to(root)
    (root / "lost.png").symlink_to(tmp_path / "nothing.png")
    (root / "itself.png").symlink_to(root / "itself.png")
    found, skipped = find_images(root)
    assert [path.relative_to(root).as_posix() for path in found] == ["linked/x.png", "linked_file.png"]
    assert [(file.path, file.reason) for file in skipped] == [
        ("circle", "the same folder as ."),
        ("itself.png", "a link in a circle"),
        ("lost.png", "a link to nothing"),
    ]


def test_no_folder_is_read_twice_and_its_own_place_goes_before_links(tmp_path: Path) -> None:
    """Two links in each of 14 folders to the next one: 16,383 ways to one image."""
    for i in range(14):
        (tmp_path / f"L{i:02d}").mkdir()
    for i in range(13):
        for name in "ab":
            (tmp_path / f"L{i:02d}" / name).symlink_to(f"../L{i + 1:02d}")
    picture(tmp_path / "L13/x.png")
    found, skipped = find_images(tmp_path)
    assert found == [tmp_path / "L13/x.png"]
    assert len(skipped) == 26
    assert (skipped[0].path, skipped[0].reason) == ("L00/a", "the same folder as L01")


def test_two_links_to_one_folder_elsewhere_are_read_once(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere/deep/x.png")
    (tmp_path / "root/z").mkdir(parents=True)
    for link in ("root/b", "root/z/a", "root/a"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    found, skipped = find_images(tmp_path / "root")
    assert found == [tmp_path / "root/a/deep/x.png"]
    reason = "the same folder as a"
    assert [(file.path, file.reason) for file in skipped] == [("b", reason), ("z/a", reason)]


def test_one_rule_says_what_is_junk_on_the_way_down(tmp_path: Path) -> None:
    for name in ("b/c/d/x", "a/x", "__MACOSX/x", ".git/x", "b/@eaDir/x", "b/.x", "9/x", "y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list(below(tmp_path, 2, lambda folder: folder.name != "9"))
    assert [folder.path.relative_to(tmp_path).as_posix() for folder in found] == [".", "a", "b", "b/c"]
    assert [file.name for folder in found for file in folder.files] == ["y", "x"]
    assert [(file.path, file.reason) for file in beside(tmp_path, [tmp_path / "b/c", tmp_path / "y"], "other")] == [
        (".git", "hidden, or left behind by a file manager"),
        ("9", "other"),
        ("__MACOSX", "hidden, or left behind by a file manager"),
        ("a", "other"),
        ("b/.x", "hidden, or left behind by a file manager"),
        ("b/@eaDir", "hidden, or left behind by a file manager"),
    ]
    assert not list(below(tmp_path / "gone", 2))


def test_links_do_not_multiply_the_folders_on_the_way_down(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(20):
        (tmp_path / f"a/up{i}").symlink_to("..")
    assert [folder.path for folder in below(tmp_path, 4)] == [tmp_path, tmp_path / "a"]


def test_name_that_is_no_text_is_reported_printably(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    found, skipped = find_images(tmp_path)
    assert not found
    assert skipped[0].path.encode() == "caf\ufffd.png".encode()
    assert "rename" in skipped[0].reason


def test_classes_are_the_first_folders_in_sorted_order(tmp_path: Path) -> None:
    for name in ("cat/deep/er/1.png", "ant/2.png", "bee/3.png", "loose.png"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    folders = class_folders(tmp_path)
    assert folders.classes == ("ant", "bee", "cat")
    assert [path.name for path in folders.paths] == ["2.png", "3.png", "1.png"]
    assert folders.targets == (0, 1, 2)
    assert [file.path for file in folders.skipped] == ["loose.png"]


def test_named_folders_match_in_any_case_and_others_are_reported(tmp_path: Path) -> None:
    for name in ("Covid/1.png", "normal/2.png", "pneumonia/3.png"):
        picture(tmp_path / name)
    folders = class_folders(tmp_path, {"NORMAL": 0, "COVID": 1})
    assert folders.classes == ("NORMAL", "COVID")
    assert [(path.name, target) for path, target in zip(folders.paths, folders.targets, strict=True)] == [
        ("1.png", 1),
        ("2.png", 0),
    ]
    assert [(file.path, file.reason) for file in folders.skipped] == [
        ("pneumonia/3.png", "not in a class folder (NORMAL, COVID)")
    ]


@pytest.mark.parametrize("classes", [None, {"NORMAL": 0, "COVID": 1}])
@pytest.mark.parametrize("above", ["archive", "archive/films", "covid"])
def test_folder_above_the_data_set_is_understood(tmp_path: Path, above: str, classes: dict[str, int] | None) -> None:
    for name in ("COVID/COVID/1.png", "NORMAL/NORMAL/2.png"):
        picture(tmp_path / above / name)
    (tmp_path / "readme.txt").touch()
    (tmp_path / "__MACOSX").mkdir()
    folders = class_folders(tmp_path, classes)
    assert folders.root == tmp_path / above
    assert [path.name for path in folders.paths] == ["1.png", "2.png"]
    assert [file.path for file in folders.skipped] == ["__MACOSX", "readme.txt"]


def test_one_named_class_alone_is_not_taken_for_a_folder_above(tmp_path: Path) -> None:
    picture(tmp_path / "COVID/COVID/1.png")
    assert class_folders(tmp_path, {"NORMAL": 0, "COVID": 1}).root == tmp_path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no images in it"),
        (("x.png",), "images but no folders"),
        (("a/x.png", "a/y.png"), "one folder with images, a"),
        (("train/x.png", "Test/x.png"), "Test, train are parts of a data set and hold no folders of classes"),
    ],
)
def test_folder_without_classes_is_a_clear_error(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        picture(tmp_path / name)
    with pytest.raises(InputError, match=message) as error:
        class_folders(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_folders_are_a_clear_error(tmp_path: Path) -> None:
    for name in ("sick/1.png", "well/2.png"):
        picture(tmp_path / name)
    with pytest.raises(InputError, match="holds sick, well; expected one folder of images per class: NORMAL, COVID"):
        class_folders(tmp_path, {"NORMAL": 0, "COVID": 1})
    with pytest.raises(InputError, match=r"missing: no such folder; expected .* NORMAL, COVID"):
        class_folders(tmp_path / "missing", {"NORMAL": 0, "COVID": 1})
    with pytest.raises(InputError, match=r"1\.png: a file; expected"):
        class_folders(tmp_path / "sick" / "1.png")


@pytest.mark.parametrize("classes", [None, {"Benign": 0, "malignant": 1}])
@pytest.mark.parametrize("above", ["", "archive/"])
def test_parts_above_the_classes_become_splits(tmp_path: Path, above: str, classes: dict[str, int] | None) -> None:
    for name in ("Train/Benign/1.png", "Train/malignant/2.png", "val/Benign/3.png", "TEST/malignant/deep/4.png"):
        picture(tmp_path / above / name)
    picture(tmp_path / above / "Train/loose.png")
    folders = class_folders(tmp_path, classes)
    assert folders.root == tmp_path / above
    assert folders.classes == ("Benign", "malignant")
    assert folders.splits is not None
    found = zip((path.name for path in folders.paths), folders.targets, folders.splits, strict=True)
    assert sorted(found) == [
        ("1.png", 0, "development"),
        ("2.png", 1, "development"),
        ("3.png", 0, "development"),
        ("4.png", 1, "test"),
    ]
    assert [file.path for file in folders.skipped] == [f"{above}Train/loose.png"]


def test_classes_may_be_called_like_a_part(tmp_path: Path) -> None:
    for name in ("plane/1.png", "train/2.png"):
        picture(tmp_path / name)
    folders = class_folders(tmp_path)
    assert (folders.classes, folders.splits) == (("plane", "train"), None)


def test_one_part_alone_is_the_folder_above_its_classes(tmp_path: Path) -> None:
    for name in ("test/a/1.png", "test/b/2.png"):
        picture(tmp_path / name)
    folders = class_folders(tmp_path)
    assert (folders.classes, folders.splits, folders.root) == (("a", "b"), None, tmp_path / "test")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_set", "test_set"),
        ("TrainData", "TestData"),
        ("trainset", "testset"),
        ("Training Images", "Testing Images"),
        ("images-train", "images-val"),
        ("dataset_train", "hold out set"),
    ],
)
def test_parts_are_known_by_more_names(tmp_path: Path, train: str, test: str) -> None:
    for name in (f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/a/3.png", f"{test}/b/4.png"):
        picture(tmp_path / name)
    folders = class_folders(tmp_path)
    assert folders.classes == ("a", "b")
    assert folders.splits is not None
    assert folders.splits.count("test") == (0 if "val" in test else 2)


def test_one_part_beside_something_else_is_gone_into(tmp_path: Path) -> None:
    for name in ("x/train/benign/1.png", "x/train/malignant/2.png", "x/figures/3.png"):
        picture(tmp_path / name)
    folders = class_folders(tmp_path)
    assert (folders.classes, folders.splits, folders.root) == (("benign", "malignant"), None, tmp_path / "x/train")
    assert [(file.path, file.reason) for file in folders.skipped] == [
        ("x/figures/3.png", "not in a class folder (benign, malignant)")
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("fold1/a", "fold1/b", "fold2/a", "fold2/b"), "fold1 and fold2 hold the same folders a, b: are they parts"),
        (("p1/0", "p1/1", "p2/0", "p2/1", "p3/1", "p3/0"), "p1 and p2 and 1 more hold the same folders 0, 1"),
        (("train/a", "train/b", "unseen/a", "unseen/b"), "train and unseen hold folders: if both are parts"),
    ],
)
def test_folders_that_look_like_parts_are_refused_and_not_taken_for_classes(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        picture(tmp_path / name / "1.png")
    with pytest.raises(InputError, match=message) as error:
        class_folders(tmp_path)
    assert "\n" not in str(error.value)


def test_files_are_known_by_their_bytes_and_copies_share_a_group(tmp_path: Path) -> None:
    paths = [picture(tmp_path / name, gray) for name, gray in (("a.png", 1), ("b.png", 2), ("c.png", 1))]
    found = file_digests([*paths, tmp_path / "gone.png"])
    assert found[0] == found[2] != found[1]
    assert found[3] == f"No such file or directory: {tmp_path / 'gone.png'}"
    assert groups(["a", "b", "c", "gone"], found) == ["a", "b", "a", "gone"]
