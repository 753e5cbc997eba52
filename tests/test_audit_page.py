"""What an audit says: as JSON, as a page with pictures, and on the command line."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from datasets import Skipped, interruption
from datasets.__main__ import _augmented, app
from datasets.audit import Audit, audit
from datasets.audit_page import audit_page
from datasets.facts import facts
from tests.pictures import BROKEN, class_folders, dataset_of, lettered, photographs

ROOT = Path(__file__).parent.parent
IMAGES = photographs(60, seed=1)
BRIGHTER = [np.clip(image.astype(int) + 9, 0, 255).astype(np.uint8) for image in IMAGES]
MASKS = [np.tri(64, dtype=np.uint8)] * 60
SKIPPED = (Skipped("__MACOSX", "hidden, or left behind by a file manager"),)


def everything() -> Audit:
    images = lettered(IMAGES)
    images += [images[3], BRIGHTER[8], BROKEN]
    dataset = dataset_of(images, [*[0, 1] * 30, 0, 0, 1], source=[*["<b>here</b>", "there"] * 30, "x", "x", "x"],
                         classes=("<script>alert(1)</script>", "b & c"), part=["hand"] * 63,
                         study=[f"s{i // 3}" for i in range(63)])  # fmt: skip
    table = dataset.table.with_columns(image_id=pl.format('<img src="http://x/{}">', "image_id"))
    return audit(dataclasses.replace(dataset, table=table, skipped=SKIPPED))


def test_the_json_has_everything_and_can_be_read_back():
    found = everything()
    again = json.loads(json.dumps(found.json(), allow_nan=False))
    assert again == json.loads(json.dumps(again))
    assert [finding["check"] for finding in again["findings"]] == [finding.check for finding in found.findings]
    assert again["images"] == 63 == len(again["files"]["image_id"]) == len(again["files"]["hash"])
    assert again["remaining"] + len(again["dropped"]) == 63
    assert again["counts"]["label"]["b & c"] == {"development": 31}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_refers_to_nothing_and_escapes_names():
    html = audit_page(everything(), "pictures <x>", lambda image: [image, image])
    page = Page()
    page.feed(html)
    assert page.open == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"} == set()
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) > 20
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not any(name in attributes for _, attributes in page.tags for name in ("href", "onclick", "onerror"))
    assert not re.search(r"url\(|@import", html)
    for name in ("<script>alert(1)</script>", "<b>here</b>", 'src="http', "<x>"):
        assert name not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for check in ("contradictions", "class_by_text", "class_by_source", "corrupt", "skipped"):
        assert f"<code>{check}</code>" in html
    assert len(html) < 8e6


def test_the_page_outlines_masks_and_shows_two_stains_in_colour():
    two = [np.stack([image, image[::-1]], axis=2) for image in IMAGES[:12]]
    html = audit_page(audit(dataset_of(two, [0] * 12, masks=MASKS[:12])), "glands")
    assert "outlines are the masks" in html
    assert "two stains" in html


def test_the_page_decodes_what_it_shows_and_the_audit_decodes_nothing_twice():
    dataset = dataset_of(photographs(40, seed=30))
    facts(dataset)
    calls = len(dataset.decoder.calls)
    audit(dataset)
    looked_at = len(dataset.decoder.calls) - calls
    assert looked_at == 40  # the corners, once
    audit(dataset)
    assert len(dataset.decoder.calls) - calls == looked_at


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_preview_shows_augmented_versions(channels):
    image = np.stack(IMAGES[:channels], axis=2)[:48]
    versions = _augmented(image)
    assert {version.shape for version in versions} == {(48, 64, channels)}
    assert all((version != image).mean() > 0.2 for version in versions)
    assert np.array_equal(_augmented(image)[0], versions[0])


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_the_command_line_prints_findings_or_json_and_writes_a_page(tmp_path: Path):
    data = str(class_folders(tmp_path / "data"))
    said = run("images", "--data", data, "--html", str(tmp_path / "audit.html"))
    assert said.exit_code == 0, said.output
    assert "[class_by_format]" in said.output
    assert (tmp_path / "audit.html").read_text().startswith("<!doctype html>")
    as_json = run("images", "--data", data, "--json")
    assert json.loads(as_json.stdout)["images"] == 24


@pytest.mark.parametrize("inside", [["benign"], ["set/benign"], ["train/benign", "test/benign"]])
def test_a_folder_of_one_class_is_shown_with_its_error(tmp_path: Path, inside):
    class_folders(tmp_path / "all")
    for name, folder in zip("ba", inside, strict=False):
        (tmp_path / "data" / folder).parent.mkdir(parents=True)
        (tmp_path / "all" / name).rename(tmp_path / "data" / folder)
    page = tmp_path / "audit.html"
    said = run("images", "--data", str(tmp_path / "data"), "--html", str(page))
    assert said.exit_code == 0, said.output
    assert "always benign: a network that learns nothing is always right, and a search refuses" in said.output
    assert "A search would refuse these images" in said.output
    assert page.read_text().count("data:image/jpeg") >= 12
    assert run("images", "--data", str(tmp_path / "data"), "--strict").exit_code == 1
    splits = json.loads(run("images", "--data", str(tmp_path / "data"), "--json").stdout)["splits"]
    assert splits == dict.fromkeys(("development", "test")[: len(inside)], 12)


@pytest.mark.parametrize("inside", ["", "train", "train/train"])
def test_images_in_no_folder_of_a_class_stay_refused(tmp_path: Path, inside):
    class_folders(tmp_path)
    (tmp_path / "data" / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a").rename(tmp_path / "data" / inside)
    said = run("images", "--data", str(tmp_path / "data"))
    assert said.exit_code == 2
    assert "expected at least two, one folder of images per class" in said.output


@pytest.mark.parametrize(
    ("program", "imported"), [("datasets", "numpy"), ("datasets", "datasets.facts"), ("search", "rich.console")]
)
def test_ctrl_c_during_the_imports_is_one_line(program, imported):
    command = [sys.executable, "-X", "importtime", "-m", program, "covid", "--demo"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == imported:
            process.send_signal(signal.SIGINT)
            break
    said = [line for line in process.communicate()[1].splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130
    assert list(filter(None, said)) == ["Interrupted."]


def test_ctrl_c_is_an_exception_again_once_the_audit_has_begun():
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, interruption._leave)
        run("images", "--data", "nowhere")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_help_says_that_images_are_those_to_develop_with():
    (option,) = (option for option in typer.main.get_command(app).params if option.name == "images")
    assert option.help.startswith("Development images")
    demo = json.loads(run("mnist", "--demo", "--images", "20", "--json").stdout)
    assert demo["splits"]["development"] == 20 < demo["images"]


def test_strict_exits_with_1_where_there_is_an_error_and_only_there(tmp_path: Path):
    data = class_folders(tmp_path)
    assert run("images", "--data", str(data), "--strict").exit_code == 0
    (data / "b" / "again.bmp").write_bytes((data / "a" / "0.bmp").read_bytes())
    assert run("images", "--data", str(data), "--strict").exit_code == 1
    assert run("images", "--data", str(data)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imges"], "unknown task"),
        (["images", "--data", "nowhere"], "no such"),
        (["covid", "--demo", "--plant", "txt"], "unknown pitfall 'txt'"),
        (["covid", "--demo", "--images", "20", "--like", "x"], "--like x: no such image"),
        (["covid", "--demo", "--images", "20", "--html", "/nowhere/x.html"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message):
    said = run(*arguments)
    assert said.exit_code == 2
    assert said.output.startswith("error: ")
    assert message in said.output


def test_an_unknown_remedy_is_refused():
    said = run("covid", "--demo", "--images", "20", "--drop", "duplicate")
    assert said.exit_code == 2
    assert "did you mean 'duplicates'" in said.output


def test_a_demonstration_says_so():
    said = run("covid", "--demo", "--images", "20")
    assert said.output.startswith("DEMONSTRATION DATA")
