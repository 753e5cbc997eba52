"""Anybody's own images: class folders with and without parts, and tables from any program."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets import InputError, check_searchable
from datasets.images import read
from datasets.tables import read_table


def picture(path: Path, gray: int = 128, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, gray).save(path)
    return path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Four different pictures in two folders."""
    for gray, name in enumerate(("a/1.png", "a/2.jpg", "b/3.png", "b/deep/4.PNG")):
        picture(tmp_path / "films" / name, 40 * gray)
    return tmp_path / "films"


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def said(dataset, *columns: str) -> list[tuple]:
    return dataset.table.select("image_id", *columns).rows()


# Class folders


def test_parts_above_the_classes_are_splits_and_val_is_searched(tmp_path: Path) -> None:
    for gray, name in enumerate(("train/no/1.png", "val/yes/2.png", "test/no/3.png", "train/yes/4.png")):
        picture(tmp_path / name, gray)
    dataset = read(tmp_path)
    assert dataset.splits == {"development": 3, "test": 1}
    assert dataset.part("test").table["image_id"].to_list() == ["test/no/3.png"]
    assert dataset.classes == ("no", "yes")


def test_a_test_folder_without_labels_is_no_class(tmp_path: Path) -> None:
    for gray, name in enumerate(("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/unknown/4.png")):
        picture(tmp_path / name, gray)
    dataset = read(tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.splits == {"development": 3, "test": 0}
    assert [(entry.path, entry.reason) for entry in dataset.skipped] == [
        ("test/unknown/4.png", "a test image without a label: unknown is no class of the other parts")
    ]


@pytest.mark.parametrize(
    ("test", "alone"), [(("a", "b", "c"), "c"), (("A", "B"), "A, B"), (tuple("acdefg"), "c, d, e, f, …")]
)
def test_classes_of_the_test_part_alone_are_refused(tmp_path: Path, test: tuple[str, ...], alone: str) -> None:
    for name in ("train/a", "train/b", *(f"test/{name}" for name in test)):
        picture(tmp_path / name / "1.png")
    expected = f"test holds {alone}, but the images to learn from are of a, b: give the folders the same names"
    with pytest.raises(InputError, match=expected) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_class_folders_are_listed_and_hashed_but_not_decoded(tmp_path: Path) -> None:
    picture(tmp_path / "no/1.png")
    (tmp_path / "yes").mkdir()
    for name in ("2.png", "3.png"):
        (tmp_path / "yes" / name).write_bytes(b"no image")
    dataset = read(tmp_path)
    assert len(dataset) == 3
    assert "split" not in dataset.table.columns
    assert dataset.table["group"].to_list() == ["no/1.png", "yes/2.png", "yes/2.png"]
    assert dataset.table["content"].n_unique() == 2


# Tables


def test_labels_groups_splits_and_sources_come_from_the_table(films: Path) -> None:
    labels = table(
        films,
        "image,label,group,split,source\n"
        "a/1.png,sick,p1,train,north\n"
        "a/2.jpg,well,p1,Validation,north\n"
        "b/3.png,sick,,Hold-out,\n"
        "b/deep/4.PNG,well,p2,TEST,south\n",
    )
    dataset = read(None, labels)
    assert dataset.kind == "binary"
    assert dataset.classes == ("sick", "well")
    assert dataset.target_name == "label"
    assert said(dataset, "target", "group", "split", "source") == [
        ("a/1.png", 0, "p1", "development", "north"),
        ("a/2.jpg", 1, "p1", "development", "north"),
        ("b/3.png", 0, "b/3.png", "test", "unknown"),
        ("b/deep/4.PNG", 1, "p2", "test", "south"),
    ]
    assert dataset.skipped == ()
    assert dataset.decode(3).shape == (4, 6, 3)
    assert read(films, Path("labels.csv")).table.equals(dataset.table)


@pytest.mark.parametrize(
    "data",
    [
        b"image,label\na/1.png,x\nb/3.png,y\n",
        b"\xef\xbb\xbf Image , LABEL\r\n a/1.png , x \r\n\r\nb/3.png,y\r\n",
        b"image;label\ra/1.png;x\rb/3.png;y",
        b'sep=;\nimage;label\n"a/1.png";x\n"b/3.png";y\n;\n',
        "image\tlabel\na/1.png\tx\nb/3.png\ty\n".encode("utf-16"),
        b',image,label,\n0,a/1.png,x,\n1,"b/3.png", "y",,\n',
    ],
    ids=["unix", "windows, mark, blanks", "old Macintosh", "spreadsheet", "UTF-16", "index and empty columns"],
)
def test_every_form_of_csv_says_the_same(films: Path, data: bytes) -> None:
    (films / "x.csv").write_bytes(data)
    assert said(read(films, films / "x.csv"), "target") == [("a/1.png", 0), ("b/3.png", 1)]


def test_parquet_says_the_same_and_pandas_whole_numbers_stay_whole(films: Path) -> None:
    frame = pl.DataFrame({"image": ["a/1.png", "b/3.png", "a/2.jpg"], "label": [2.0, 10.0, float("nan")]})
    frame.write_parquet(films / "x.parquet")
    dataset = read(films, films / "x.parquet")
    assert dataset.classes == ("2", "10")
    assert said(dataset, "target") == [("a/1.png", 0), ("b/3.png", 1)]
    assert "no label; line 4 of x.parquet" in [entry.reason for entry in dataset.skipped]
    frame.with_columns(image=pl.concat_list("image")).write_parquet(films / "y.parquet")
    with pytest.raises(InputError, match=r"column image holds List\(String\); expected text"):
        read(films, films / "y.parquet")


def test_latin_letters_of_an_old_windows_are_read(films: Path) -> None:
    (films / "x.csv").write_bytes("image,label\na/1.png,Müller\nb/3.png,Ödem\n".encode("cp1252"))
    assert read(films, films / "x.csv").classes == ("Müller", "Ödem")


def test_whole_numbers_are_sorted_by_size(films: Path) -> None:
    assert read(films, table(films, "image,label\na/1.png,10\na/2.jpg,9\nb/3.png,1.0\n")).classes == ("1", "9", "10")


@pytest.mark.parametrize(
    "given", ["a/1.png", "a/1", "A/1.PNG", "1.png", "1", "films/a/1.png", "a\\1.png", "./a/1.png", "ABSOLUTE"]
)
def test_an_image_is_found_by_whatever_part_of_its_path_names_it_alone(films: Path, given: str) -> None:
    given = str(films / "a/1.png") if given == "ABSOLUTE" else given
    dataset = read(films, table(films, f"image,label\n{given},x\nb/3.png,y\n"))
    assert said(dataset, "target") == [("a/1.png", 0), ("b/3.png", 1)]


def test_accents_of_a_macintosh_are_those_of_the_table(films: Path) -> None:
    picture(films / "be\u0301be\u0301.png")
    dataset = read(films, table(films, "image,label\nb\u00e9b\u00e9.png,x\n1,y\n"))
    assert len(dataset) == 2


def test_a_name_that_fits_several_files_is_left_out_but_a_whole_path_is_not(films: Path) -> None:
    picture(films / "1.png")
    picture(films / "c/2.png")
    dataset = read(films, table(films, "image,label\n1.png,x\na/1,y\n2,y\nb/3,x\n"))
    assert said(dataset) == [("1.png",), ("a/1.png",), ("b/3.png",)]
    reason = "names several images: a/2.jpg or c/2.png; line 4 of labels.csv"
    assert ("2", reason) in [(e.path, e.reason) for e in dataset.skipped]


def test_images_beside_a_table_that_lies_elsewhere_are_found(films: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "tables"
    picture(elsewhere / "5.png")
    dataset = read(films, table(elsewhere, "image,label\n5.png,x\na/1,y\n../films/b/3.png,x\n"))
    assert [Path(path).name for path in dataset.table["path"]] == ["5.png", "1.png", "3.png"]


@pytest.mark.parametrize("given", ["../films/b/3.png", "a/../b/3.png", "../films/link/3.png", "ABSOLUTE"])
def test_a_way_out_of_the_folder_and_in_again_is_the_file_in_it(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (tmp_path / "films/link").symlink_to("b")
    given = str(films / "b/3.png") if given == "ABSOLUTE" else given
    labels = table(films, f"image,label\n{given},x\na/1,y\nb/3,x\n")
    monkeypatch.chdir(tmp_path)
    dataset = read(Path("films"), labels)
    assert said(dataset) == [("a/1.png",), ("b/3.png",)]
    reasons = [entry.reason for entry in dataset.skipped if entry.path == "b/3.png"]
    assert reasons == ["named again; line 4 of labels.csv"], "and not: not in the table"


def test_a_link_in_the_folder_is_itself_and_not_what_it_leads_to(films: Path, tmp_path: Path) -> None:
    (films / "5.png").symlink_to(picture(tmp_path / "5.png"))
    dataset = read(films, table(films, "image,label\n../films/5.png,x\n1,y\n"))
    assert said(dataset) == [("5.png",), ("a/1.png",)]


def test_an_image_outside_of_the_folder_is_used_and_not_counted_as_left_out(films: Path) -> None:
    picture(films.parent / "x.png", 7)
    dataset = read(films, table(films, "image,label\n../x.png,x\n1,y\n2,y\n3,x\n4,x\n"))
    assert "../x.png" in dataset.table["image_id"]
    assert dataset.skipped == ()


def test_an_image_without_label_or_mask_is_left_out_once(films: Path) -> None:
    dataset = read(films, table(films, "image,label\n1,x\n2,\n3,y\n4,nan\n"))
    assert [entry.path for entry in dataset.skipped] == ["2", "4"]
    picture(films / "mask.png")
    dataset = read(films, table(films, "image,mask\n1,mask\n2,\n3,gone\n4,mask\n"))
    assert [entry.path for entry in dataset.skipped] == ["2", "3"]


def test_all_that_is_left_out_has_its_reason(films: Path) -> None:
    (films / ".DS_Store").touch()
    text = "image,label,age,patient\na/1.png,x,7,p\ngone.png,y,7,p\na/2.jpg,,7,p\nb/3.png,y,8,p\nb/3.png,y,8,p\n,x,,\n"
    dataset = read(films, table(films, text))
    assert said(dataset) == [("a/1.png",), ("b/3.png",)]
    known = "none of image, label, label_<name>, mask, mask_classes, group, split, source"
    assert [(entry.path, entry.reason) for entry in dataset.skipped] == [
        ("", "no path is given; line 7 of labels.csv"),
        (".DS_Store", "hidden, or left behind by a file manager"),
        ("a/2.jpg", "no label; line 4 of labels.csv"),
        ("b/3.png", "named again; line 6 of labels.csv"),
        ("b/deep/4.PNG", "not in labels.csv"),
        ("gone.png", "no such image; line 3 of labels.csv"),
        ("labels.csv, column age", known),
        ("labels.csv, column patient", known),
    ]


@pytest.mark.parametrize("none", ["nan", "NaN", "NA", "n/a", "null", "None", "<NA>"])
def test_what_programs_write_for_no_label_is_none(films: Path, none: str) -> None:
    dataset = read(films, table(films, f"image,label\n1,x\n2,{none}\n3,y\n"))
    assert dataset.classes == ("x", "y")
    assert ("2", f"no label ({none}); line 3 of labels.csv") in [(e.path, e.reason) for e in dataset.skipped]
    picture(films / "mask.png")
    masked = read(films, table(films, f"image,mask,label\n1,mask,x\n2,mask,{none}\n3,mask,\n"))
    assert said(masked, "stratum") == [("a/1.png", 1), ("a/2.jpg", 0), ("b/3.png", 0)]


def test_a_class_folder_may_be_called_none(tmp_path: Path) -> None:
    for gray, name in enumerate(("none/1.png", "nan/2.png")):
        picture(tmp_path / name, gray)
    assert read(tmp_path).classes == ("nan", "none")


def test_several_label_columns_are_several_targets(films: Path) -> None:
    dataset = read(films, table(films, "image,label,label_side,label_grade\n1,no,L,3\n2,yes,R,1\n3,no,R,2\n4,yes,R,\n"))
    assert dataset.kind == "multitask"
    assert [(target.name, target.classes, target.scored) for target in dataset.further] == [
        ("side", ("L", "R"), True),
        ("grade", ("1", "2", "3"), True),
    ]
    assert said(dataset, "target", "target_side", "target_grade") == [
        ("a/1.png", 0, 0, 2),
        ("a/2.jpg", 1, 1, 0),
        ("b/3.png", 0, 1, 1),
    ]
    assert ("4", "no label_grade; line 5 of labels.csv") in [(entry.path, entry.reason) for entry in dataset.skipped]
    without = read(films, table(films, "image,label_side,label_grade\n1,L,3\n2,R,1\n"))
    assert (without.target_name, [target.name for target in without.further]) == ("side", ["grade"])


def test_masks_make_a_segmentation_and_labels_stratify_it(films: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2:4] = 37
    for name in ("1", "2"):
        Image.fromarray(mask).save(films / f"{name}_mask.png")
    dataset = read(films, table(films, "image,mask,label\n1,1_mask,benign\n2,2_mask.png,\n3,gone.png,x\n4,,x\n"))
    assert dataset.kind == "segmentation"
    assert dataset.classes == ("background", "object")
    assert dataset.target_name == "mask"
    assert said(dataset, "target", "stratum") == [("a/1.png", 0, 1), ("a/2.jpg", 0, 0)]
    assert np.array_equal(dataset.decode_mask(0)[:, :, 0], mask > 0)
    assert [(entry.path, entry.reason) for entry in dataset.skipped][:2] == [
        ("3", "no such mask: gone.png; line 4 of labels.csv"),
        ("4", "no mask; line 5 of labels.csv"),
    ]


def test_another_mask_is_another_content(films: Path) -> None:
    labels = table(films, "image,mask\n1,mask.png\n")
    contents = []
    for gray in (0, 255):
        picture(films / "mask.png", gray)
        contents.append(read(films, labels).table["content"][0])
    assert contents[0] != contents[1]


def test_classes_of_pixels_are_named_by_the_table(films: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2]], np.uint8)).resize((6, 4), Image.Resampling.NEAREST).save(films / "m.png")
    dataset = read(films, table(films, "image,mask,mask_classes\n1,m.png,background; nucleus; rim\n2,m.png,\n"))
    assert dataset.classes == ("background", "nucleus", "rim")
    assert dataset.decode_mask(1)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="mask_classes 'cell': expected the same two or more names"):
        read(films, table(films, "image,mask,mask_classes\n1,m.png,cell\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is empty; expected the names of the columns"),
        ("a/1.png,x\nb/3.png,y\n", r"has the columns a/1\.png, x; expected image and label"),
        ("image\na/1.png\n", "has the columns image; expected image and label"),
        ("image,label\n", "it has no rows"),
        ("image,label\na/1.png,\n", "no row has a label"),
        (
            "image,label\nx.png,a\ny.png,b\n",
            r"none of its 2 images was found below .*; the first one: 'x\.png': no such",
        ),
        ("image,label\na/1.png,x\na/1,y\n", r"lines 2 and 3 say different things of a/1\.png"),
        ("image,label\na/1.png,x,y\n", "line 2 has 3 values, but there are 2 columns"),
        ("image,label,Label\na/1.png,x,y\n", "has several columns 'label'"),
        ("image,label\na/1.png,Sick\na/2.jpg,sick\n", "label is 'Sick' and 'sick': write the same class the same way"),
        ("image,label\na/1.png,1e3\na/2.jpg,2\n", "label 1e3: expected a word or a whole number"),
        ("image,label\na/1.png,NaN\na/2.jpg,none\n", "no row has a label"),
        ("image,label\na/1.png,0.37\na/2.jpg,0.4\n", r"label 0\.37: expected a word or a whole number"),
        ("image,label,split\na/1.png,x,train\na/2.jpg,y,fold1\n", "line 3: split 'fold1'; expected train, val"),
        ("image,label,label_side\na/1.png,x,L\na/2.jpg,y,L\n", r"label_side is L everywhere"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_clear_line(films: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(films, table(films, text))
    assert "\n" not in str(error.value)
    assert "labels.csv" in str(error.value)


def test_a_table_of_one_class_can_be_looked_at_but_not_searched(films: Path) -> None:
    dataset = read(films, table(films, "image,label\na/1.png,x\na/2.jpg,x\n"))
    assert dataset.counts == {"x": 2}
    with pytest.raises(InputError, match=r"images of one class only \(x\), but a search needs at least two$"):
        check_searchable(dataset)


def test_what_is_no_table_is_one_clear_line(films: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: No such file"):
        read(films, tmp_path / "gone.csv")
    (films / "x.parquet").write_text("image,label")
    with pytest.raises(InputError, match=r"x\.parquet: not a table that can be read") as error:
        read(films, films / "x.parquet")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such folder; expected a folder of images"):
        read(tmp_path / "gone", table(films, "image,label\n1,x\n"))


@pytest.mark.parametrize("ending", ["xls", "XLSX", "ods"])
def test_a_spreadsheet_is_to_be_saved_as_csv(films: Path, ending: str) -> None:
    (films / f"x.{ending}").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=rf"x\.{ending}: a spreadsheet; save it as csv") as error:
        read(films, films / f"x.{ending}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\x14\0\x06\0image", r"line 1 holds '\x03\x04\x14\x00\x06\x00image', which is no text"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"line 2 holds '\x1a\n\x00\x00', which is no text"),
        (b"image,label\n\x1b[2J.png,x\n", r"line 2 holds '\x1b[2J.png,x\n', which is no text"),
        ("image,label\n".encode("utf-16-le"), r"line 1 holds '\x00m\x00a"),
        (b"PAR1".join([b""] * 9000), "has the columns par1par1par1"),
        (b"a " * 9000 + b"\n", "has the columns a a a"),
    ],
    ids=["zip", "png", "escape sequence", "UTF-16 without its mark", "one long word", "one long line"],
)
def test_what_is_no_text_is_shown_short_and_without_control_characters(films: Path, data: bytes, message: str) -> None:
    (films / "x.csv").write_bytes(data)
    with pytest.raises(InputError) as error:
        read(films, films / "x.csv")
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500 + len(str(films))


def test_control_characters_of_a_parquet_file_are_not_printed(films: Path) -> None:
    for frame, message in (
        (pl.DataFrame({"image": ["1", "2"], "label": ["a", "\x1b[31mb"]}), r"column 'label' holds '\x1b[31mb'"),
        (pl.DataFrame({"im\x1bage": ["1", "2"]}), r"its header holds 'im\x1bage'"),
    ):
        frame.write_parquet(films / "x.parquet")
        with pytest.raises(InputError) as error:
            read(films, films / "x.parquet")
        assert message in str(error.value)
        assert str(error.value).isprintable()


def test_the_end_of_a_file_as_dos_marks_it_is_none_of_its_text(tmp_path: Path) -> None:
    assert len(read_table(table(tmp_path, "image,label\r\n1,x\r\n2,y\r\n\x1a")).rows) == 2


def test_quotes_hold_separators_and_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, 'image,label\n"a, b.png","two\nlines"\nc.png,x\n')
    assert [row["image"] for row in read_table(path).rows] == ["a, b.png", "c.png"]
    assert read_table(path).rows[0]["label"] == "two\nlines"
    assert read_table(path).lines == (3, 4)
