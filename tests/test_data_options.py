"""What a user says about the images of a search: a table, remedies, repeats, sources, the test split."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import search
from analysis import Results
from datasets import InputError
from search.__main__ import app

SMALL = {"weights": "none", "trials": 1, "folds": 2, "max_epochs": 1, "concurrent": 1}
MODEL = {"model": "mobilenetv3_small_100", "augment": False, "balance": "class_weights"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen films of eight patients of two hospitals, their masks, and what one may say of them."""
    root = tmp_path_factory.mktemp("films")
    rng, rows = np.random.default_rng(0), []
    for i in range(16):
        pixels = rng.integers(0, 120, (40, 40, 3), np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, 10 + i % 5 : 30] = 255
        pixels[mask > 0] += 60 + 40 * (i % 2)
        Image.fromarray(pixels).save(root / f"{i}.png")
        Image.fromarray(mask).save(root / f"{i}_mask.png")
        rows.append(
            {
                "image": f"{i}.png",
                "label": ("healthy", "ill")[i % 2],
                "label_side": ("left", "right")[i // 2 % 2],
                "mask": f"{i}_mask.png",
                "group": f"patient {i // 4 * 2 + i % 2}",
                "source": ("north", "south")[i // 8],
                "split": "test" if i >= 12 else "train",
            }
        )
    pl.DataFrame(rows).write_csv(root / "all.csv")
    return root


def table(folder: Path, *columns: str) -> Path:
    file = folder / f"{'_'.join(columns)}.csv"
    pl.read_csv(folder / "all.csv").select("image", *columns).write_csv(file)
    return file


def searched(tmp_path: Path, **options: Any) -> tuple[search.Result, str]:
    console = Console(width=200, file=io.StringIO(), record=True)
    given = SMALL | {"explain": False} | options
    return search.run("images", console=console, results=tmp_path, **given), console.export_text()


@pytest.mark.slow
def test_a_table_of_several_labels_is_searched_as_multitask_with_repeats(folder, tmp_path, ray_on_loopback):
    file = table(folder, "label", "label_side", "group")
    result, said = searched(tmp_path, data=folder, table=file, repeats=2, fixed=MODEL)
    assert "2-fold cross-validation, 2 times" in said
    record = Results.open(result.folder).experiment["data"]
    assert (record["kind"], record["images"], record["repeats"]) == ("multitask", 16, 2)
    assert [target["name"] for target in record["further"]] == ["side"]
    folds = pl.read_parquet(result.folder / "folds.parquet")
    assert folds.height == 32
    assert folds.group_by("repeat", "group").agg(pl.col("fold").n_unique())["fold"].max() == 1
    assert len(result.best["fold_scores"]) == 4
    assert Results.open(result.folder).out_of_fold(0).shape == (32, 2)


@pytest.mark.slow
def test_a_table_of_masks_is_searched_as_segmentation_by_its_dice(folder, tmp_path, ray_on_loopback):
    result, _ = searched(tmp_path, table=table(folder, "mask", "group"))
    experiment = Results.open(result.folder).experiment
    assert (experiment["metric"], experiment["data"]["kind"]) == ("dice", "segmentation")
    assert 0 <= result.best["score"] <= 1
    assert result.report().exists()


@pytest.mark.slow
def test_one_source_at_a_time_is_left_out_and_the_test_split_is_never_seen(folder, tmp_path, ray_on_loopback):
    file = table(folder, "label", "source", "split")
    result, said = searched(tmp_path, table=file, folds=None, leave_source_out=True, fixed=MODEL)
    assert "leaving out one of 2 sources at a time" in said
    assert "4 further images are the test split" in said
    experiment = Results.open(result.folder).experiment
    assert (experiment["folds"], experiment["data"]["leave_source_out"]) == (2, True)
    assert experiment["data"]["splits"] == {"development": 12, "test": 4}
    folds = pl.read_parquet(result.folder / "folds.parquet")
    assert folds.group_by("fold").agg(pl.col("source").n_unique())["source"].to_list() == [1, 1]
    assert not set(folds["image_id"]) & {f"{i}.png" for i in range(12, 16)}


@pytest.mark.slow
def test_what_is_left_out_stands_in_the_record_and_in_the_report(folder, tmp_path, ray_on_loopback):
    root = tmp_path / "data"
    for label, numbers in (("healthy", range(0, 16, 2)), ("ill", range(1, 16, 2))):
        (root / label).mkdir(parents=True)
        for i in numbers:
            (root / label / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    (root / "ill" / "0.png").write_bytes((folder / "0.png").read_bytes())
    (root / "ill" / "broken.png").write_bytes((folder / "1.png").read_bytes()[:200])
    result, said = searched(tmp_path, data=root, fixed=MODEL)
    assert "3 images dropped (2 contradiction, 1 corrupt)" in said
    dropped = {entry["path"] for entry in Results.open(result.folder).experiment["data"]["dropped"]}
    assert dropped == {"healthy/0.png", "ill/0.png", "ill/broken.png"}
    page = (result.folder / "report.html").read_text()
    assert all(path in page for path in dropped)
    kept, _ = searched(tmp_path, data=root, fixed=MODEL, drop=("corrupt",), name="kept", folds=2)
    folds = pl.read_parquet(kept.folder / "folds.parquet")
    pair = folds.filter(pl.col("image_id").str.ends_with("/0.png"))
    assert pair["fold"].n_unique() == 1, "the same image never stands on both sides of a split"


@pytest.mark.parametrize("name", ["drop", "like", "plant"])
def test_a_word_in_place_of_several_is_refused_from_python(name, tmp_path):
    with pytest.raises(InputError, match=f"--{name} 12: from Python give a tuple of words"):
        search.run("covid", demo=True, results=tmp_path, **{name: "12"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["covid", "--demo", "--drop", "corupt"], "corupt"),
        (["covid", "--demo", "--plant", "txt"], "unknown pitfall 'txt'"),
        (["covid", "--demo", "--repeats", "0"], "--repeats 0: must be at least 1"),
        (["covid", "--demo", "--leave-source-out"], "name no sources"),
        (["covid", "--demo", "--leave-source-out", "--folds", "3"], "leave out --folds and --repeats"),
        (["covid", "--demo", "--metric", "dice"], "dice"),
        (["covid", "--demo", "--images", "1"], "ask for at least 2"),
        (["covid", "--demo", "--like", "nothing"], "nothing"),
        (["digits", "--images", "5"], "--images is about demonstration data"),
        (["digits", "--pool"], "has no test split to put into the folds"),
        (["digits", "--weights", "/no/file"], "no network searched here has pretrained weights"),
        (["digits", "--plant", "text"], "--plant is about demonstration data"),
        (["covid", "--data", "DIR", "--table", "DIR/all.csv"], "--table is for the task 'images'"),
        (["images", "--table", "/no/table.csv"], "/no/table.csv"),
        (["images", "--data", "/no/folder"], "/no/folder: no such file or folder"),
        (["mura", "--data", "DIR"], "DIR"),
    ],
)
def test_a_mistake_about_the_images_is_one_clear_message_and_status_2(arguments, says, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = [argument.replace("DIR", str(folder)) for argument in arguments]
    done = CliRunner().invoke(app, here)
    assert done.exit_code == 2, done.output
    assert says.replace("DIR", str(folder)) in done.stderr
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == [], "nothing was written"
