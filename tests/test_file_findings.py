"""What was left out is told once, summed, and as loudly as it deserves."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from datasets import Skipped
from datasets.audit import audit
from datasets.findings import Finding
from datasets.images import read
from tests.pictures import dataset_of, photographs

IMAGES = photographs(30)


def findings(skipped: list[Skipped], images: int = len(IMAGES)) -> dict[str, Finding]:
    dataset = dataclasses.replace(dataset_of(IMAGES[:images]), skipped=tuple(skipped))
    return {finding.check: finding for finding in audit(dataset).findings}


def table_of(folder: Path, rows: list[str]) -> Path:
    """Ten films of two classes, and a table with these rows beside theirs."""
    for i, image in enumerate(IMAGES[:10]):
        Image.fromarray(image).save(folder / f"{i}.png")
    said = [f"{i}.png,{'ab'[i % 2]}" for i in range(10)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *said, *rows, ""]))
    return folder / "labels.csv"


def test_many_rows_without_an_image_are_one_warning_with_their_number(tmp_path: Path) -> None:
    rows = [f"gone/{i}.png,a" for i in range(60)]
    found = {one.check: one for one in audit(read(tmp_path, table_of(tmp_path, rows))).findings}
    finding = found["rows_without_image"]
    assert finding.severity == "warning"
    assert finding.title.startswith(
        "60 of 70 rows of labels.csv (85.7 %) name no image: 60 no such image. For instance"
    )
    assert "gone/0.png, line 12 of labels.csv" in finding.title
    assert finding.numbers == {"rows": 70, "without_image": 60, "no such image": 60}
    assert len(finding.images) == 60
    assert "Nothing has to be done" not in finding.remedy
    assert "skipped" not in found


def test_every_reason_of_a_row_is_summed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for name in ("x/twice.png", "y/twice.png"):
        Image.fromarray(IMAGES[11]).save(tmp_path / name)
    rows = ["gone.png,a", ",a", "lost.png,b", "twice.png,a", "1.png,b", "2.png,a", "3.png,b"]
    found = {one.check: one for one in audit(read(tmp_path, table_of(tmp_path, rows))).findings}
    assert found["rows_without_image"].numbers == {
        "rows": 17,
        "without_image": 4,
        "no such image": 2,
        "no path is given": 1,
        "names several images": 1,
    }
    assert found["skipped"].numbers == {"named again": 3, "not in labels.csv": 2}
    assert found["skipped"].title.startswith("5 files or rows are left out: 3 named again; 2 not in labels.csv.")


@pytest.mark.parametrize(
    ("lost", "images", "severity"), [(1, 30, "note"), (2, 30, "warning"), (1, 19, "warning"), (1, 20, "note")]
)
def test_a_slip_is_a_note_and_a_good_part_of_the_rows_a_warning(lost: int, images: int, severity: str) -> None:
    rows = [Skipped(f"{i}.png", f"no such image; line {i} of t.csv") for i in range(lost)]
    assert findings(rows, images)["rows_without_image"].severity == severity


def test_ten_rows_are_a_warning_however_many_there_are() -> None:
    again = [Skipped("a.png", f"named again; line {i} of t.csv") for i in range(500)]
    for lost, severity in ((9, "note"), (10, "warning")):
        rows = [Skipped(f"{i}.png", f"no such image; line {i} of t.csv") for i in range(lost)]
        assert findings(again + rows)["rows_without_image"].severity == severity


def test_rows_without_a_mask_are_told_with_them() -> None:
    rows = [Skipped(f"{i}.png", f"no such mask: {i}_mask.png; line {i} of t.csv") for i in range(20)]
    unmarked = [Skipped(f"{i}.png", f"no mask; line {i} of t.csv") for i in range(20, 40)]
    found = findings(rows + unmarked)
    assert found["rows_without_image"].title.startswith(
        "20 of 70 rows of t.csv (28.6 %) name no image or no mask: 20 no such mask. "
    )
    assert found["skipped"].numbers == {"no mask": 20}, "left empty on purpose, as a label may be"


def test_files_are_called_files() -> None:
    junk = [Skipped(f"{i}.txt", "not an image") for i in range(3)]
    assert findings(junk)["skipped"].title == "3 files are left out: 3 not an image. For instance 0.txt."
