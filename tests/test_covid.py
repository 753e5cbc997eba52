"""A folder as Kaggle's archive unpacks, with all that real folders hold, and the same task drawn as phantoms."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import ImageDataset, InputError, covid, load
from datasets.covid import phantoms
from datasets.phantoms.chest import NO_OPACITY


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Six COVID and three normal films that decode, all different but for one copy, among junk."""
    root = tmp_path / "covid-19-vs-normal-chest-x-rays"
    covid, normal = root / "COVID/COVID", root / "NORMAL/NORMAL"
    for folder in (covid, normal, root / "__MACOSX"):
        folder.mkdir(parents=True)
    film = Image.linear_gradient("L")
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    film.save(covid / "gray.png")
    film.convert("RGB").save(covid / "rgb.JPG")
    film.convert("RGBA").save(covid / "rgba.png")
    film.convert("P").save(covid / "animated.gif", save_all=True, append_images=[film.convert("P").rotate(90)])
    Image.fromarray(np.asarray(film).astype(np.uint16) * 16).save(covid / "sixteen.png")
    film.convert("RGB").convert("CMYK").save(normal / "cmyk.jpeg")
    film.rotate(180).save(normal / "upside_down.jpg", exif=upside_down, quality=95)
    film.save(normal / "palette.tiff")
    (covid / "copy.png").write_bytes((covid / "gray.png").read_bytes())
    (normal / "truncated.jpg").write_bytes((covid / "rgb.JPG").read_bytes()[:2000])
    (normal / "empty.png").touch()
    (covid / ".DS_169665.jpg").write_bytes((covid / "gray.png").read_bytes())
    for junk in (root / ".DS_Store", root / "__MACOSX/._x.png", covid / "Thumbs.db", root / "metadata.csv"):
        junk.touch()
    return root


def read(root: Path) -> ImageDataset:
    return load("covid", root)


def test_class_is_the_first_folder_and_covid_is_positive(kaggle: Path) -> None:
    films = read(kaggle)
    assert films.classes == ("NORMAL", "COVID")
    assert films.counts == {"NORMAL": 3, "COVID": 6}
    targets = dict(zip(films.table["image_id"], films.targets, strict=True))
    assert targets["COVID/COVID/gray.png"] == 1
    assert targets["NORMAL/NORMAL/cmyk.jpeg"] == 0
    assert list(targets) == sorted(targets)
    assert films.origin == str(kaggle)
    assert not films.demonstration


def test_every_film_looks_the_same_whatever_its_format(kaggle: Path) -> None:
    films = read(kaggle)
    expected = np.asarray(Image.linear_gradient("L"))[:, :, None].astype(int)
    for i in range(len(films)):
        pixels = films.decode(i)
        assert pixels.shape == (256, 256, 3)
        assert np.abs(pixels - expected).mean() < 4, films.table["image_id"][i]


def test_all_that_is_left_out_has_its_reason(kaggle: Path) -> None:
    films = read(kaggle)
    reasons = {file.path: file.reason for file in (*films.skipped, *films.dropped)}
    assert set(reasons) == {
        ".DS_Store",
        "COVID/COVID/.DS_169665.jpg",
        "COVID/COVID/Thumbs.db",
        "NORMAL/NORMAL/empty.png",
        "NORMAL/NORMAL/truncated.jpg",
        "__MACOSX",
        "metadata.csv",
    }
    assert reasons["NORMAL/NORMAL/empty.png"] == "corrupt: empty, 0 bytes"
    assert reasons["NORMAL/NORMAL/truncated.jpg"].startswith("corrupt: broken image")
    assert reasons["metadata.csv"] == "not an image"


def test_byte_identical_films_share_a_group_and_others_do_not(kaggle: Path) -> None:
    films = covid.read(kaggle)
    group = dict(zip(films.table["image_id"], films.table["group"], strict=True))
    assert group["COVID/COVID/gray.png"] == group["COVID/COVID/copy.png"]
    assert len(set(group.values())) == len(films) - 1


def test_reading_lists_what_does_not_decode_and_loading_drops_it(kaggle: Path) -> None:
    broken = {"NORMAL/NORMAL/empty.png", "NORMAL/NORMAL/truncated.jpg"}
    assert broken <= set(covid.read(kaggle).table["image_id"])
    films = read(kaggle)
    assert not broken & set(films.table["image_id"])
    assert broken == {image.path for image in films.dropped}


def test_folder_of_broken_films_is_a_clear_error(kaggle: Path) -> None:
    for path in (*kaggle.glob("*/*/*.*g"), *kaggle.glob("*/*/*.tiff")):
        path.write_bytes(b"")
    with pytest.raises(InputError) as error:
        read(kaggle)
    assert str(kaggle) in str(error.value)


def test_folder_above_gives_the_same_data_set(kaggle: Path) -> None:
    assert read(kaggle.parent).digest == read(kaggle).digest
    assert read(kaggle.parent).table.equals(read(kaggle).table)


def test_digest_changes_with_bytes_and_labels_only(kaggle: Path) -> None:
    before = read(kaggle).digest
    (kaggle / "metadata.csv").write_text("new")
    assert read(kaggle).digest == before
    (kaggle / "NORMAL/NORMAL/palette.tiff").rename(kaggle / "COVID/palette.tiff")
    relabelled = read(kaggle).digest
    Image.new("L", (9, 9)).save(kaggle / "COVID/palette.tiff")
    assert len({before, relabelled, read(kaggle).digest}) == 3


def test_wrong_folder_says_what_is_expected(tmp_path: Path, kaggle: Path) -> None:
    with pytest.raises(InputError, match=r"missing: no such file or folder"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no such folder; expected .*NORMAL, COVID"):
        covid.read(tmp_path / "missing")
    with pytest.raises(InputError, match="images of one class only"):
        read(kaggle / "COVID")


def test_two_folders_of_ones_own_are_binary_and_the_second_is_positive(kaggle: Path) -> None:
    films = load("images", kaggle)
    assert films.classes == ("COVID", "NORMAL")
    assert films.kind == "binary"
    assert films.name == "images"
    assert films.decode(0).shape == (256, 256, 3)
    with pytest.raises(InputError, match="no demonstration data"):
        load("images", demonstration=True)


def test_missing_data_set_says_how_to_obtain_it() -> None:
    with pytest.raises(InputError, match=r"covid-19-vs-normal-chest-x-rays[\s\S]*--demo"):
        load("covid")


def test_phantoms_have_the_size_of_the_real_task_and_say_what_they_are() -> None:
    films = load("covid", demonstration=True)
    assert films.counts == {"NORMAL": 162, "COVID": 162}
    assert films.demonstration
    assert films.origin == "phantoms, seed 0"
    assert films.best_accuracy == pytest.approx(0.97)
    assert films.table["group"].n_unique() == len(films)
    assert films.decode(1).shape == (224, 224, 3)


def test_phantom_depends_on_its_seed_and_number_only() -> None:
    few, many, others = phantoms(images=6), phantoms(images=10), phantoms(seed=1, images=6)
    assert many.table[:6].equals(few.table)
    assert np.array_equal(few.decode(5), pickle.loads(pickle.dumps(many)).decode(5))
    assert not np.array_equal(few.decode(5), others.decode(5))
    assert len({few.digest, many.digest, others.digest}) == 3
    assert few.digest == phantoms(images=6).digest


def test_perfect_observer_reaches_the_stated_accuracy() -> None:
    films = phantoms(images=8000)
    shown = films.table["appearance"].to_numpy() == 1
    accuracy = (shown == (films.targets == 1)).mean()
    spread = np.sqrt(NO_OPACITY * (1 - NO_OPACITY) / 4000) / 2
    assert films.best_accuracy == pytest.approx(accuracy, abs=4 * spread)
    assert not shown[films.targets == 0].any()


def test_no_two_phantoms_are_alike() -> None:
    films = phantoms(images=20)
    assert len({hashlib.sha256(films.decode(i).tobytes()).digest() for i in range(len(films))}) == len(films)
    assert phantoms(images=8000).table["draw"].n_unique() == 8000


def test_planted_films_look_like_films(tmp_path: Path) -> None:
    films = phantoms(images=120, plant=("duplicates", "text", "source"))
    assert films.decode(0).shape[2] == 3
    assert films.table["content"].n_unique() < len(films)
    assert "planted: duplicates, source, text" in films.origin
