"""The command line as a user meets it: what it says, where, and with which exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import datasets
from search.__main__ import app
from search.experiment import Interrupted

ROOT = Path(__file__).parent.parent


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Kaggle tree of the covid task, small: doubled class folders, mixed modes, junk."""
    root = tmp_path_factory.mktemp("data") / "covid-19-vs-normal-chest-x-rays"
    rng = np.random.default_rng(0)
    for name, bright in (("COVID", 60), ("NORMAL", 0)):
        folder = root / name / name
        folder.mkdir(parents=True)
        for i, mode in enumerate(("L", "RGB", "RGBA", "P", "L", "L", "CMYK", "L")):
            pixels = (rng.integers(0, 120, (90, 80)) + bright).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").convert(mode).save(
                folder / f"{i}.{'jpg' if mode == 'CMYK' else 'png'}"
            )
        (folder / ".DS_Store").write_bytes(b"junk")
        (folder / "broken.JPG").write_bytes(b"\xff\xd8\xff")
    return root


@pytest.fixture(scope="module")
def searched(kaggle, tmp_path_factory, ray_on_loopback):
    results = tmp_path_factory.mktemp("results")
    small = ["--weights", "none", "--folds", 2, "--trials", 2, "--max-epochs", 1, "--set", "model=mobilenetv2_100"]
    done = call("covid", "--data", kaggle, "--results", results, *small)
    assert done.exit_code == 0, done.output
    return results, done.output


def test_a_search_on_the_kaggle_tree(searched):
    results, output = searched
    record = json.loads((results / "covid" / "experiment.json").read_text())
    assert record["data"]["counts"] == {"NORMAL": 8, "COVID": 8}
    assert record["data"]["classes"][1] == "COVID", "the positive class"
    assert len(record["data"]["skipped"]) == 2
    assert [dropped["reason"].partition(":")[0] for dropped in record["data"]["dropped"]] == ["corrupt"] * 2
    assert record["fixed"] == {"model": "mobilenetv2_100"}
    assert not record["demonstration"]
    assert "2 files skipped" in output
    assert "2 images dropped (2 corrupt)" in output
    assert "svendsen2025-model2" in output
    assert "svendsen2025-model1" not in output, "its model was not asked for"


def test_the_analysis_of_a_search_is_a_command(searched):
    results, _ = searched
    command = [sys.executable, "-m", "analysis", "covid", "--results", str(results), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [trial["number"] for trial in told["history"]] == [0, 1]
    assert told["metric"] == "auroc"
    (of_target,) = told["failures"]["targets"]
    assert sum(map(sum, of_target["confusion"]["counts"])) == 16
    assert len(of_target["roc"]["areas"]) == len(told["curve"]) == 2


def test_without_data_it_says_what_to_get_where_to_put_it_and_that_demo_exists():
    done = call("covid")
    assert done.exit_code == 2
    assert "Kaggle" in done.stderr
    assert "--data DIR" in done.stderr
    assert "--demo" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["covdi"], "unknown task 'covdi'; did you mean 'covid'? The tasks are: blood, bone, cifar10, covid, digits, "),
        (["covid", "--demo", "--searcher", "bayes"], "--searcher bayes: choose one of tpe, gp, random, grid"),
        (["covid", "--demo", "--trials", "0"], "--trials 0: must be at least 1"),
        (["covid", "--demo", "--trials", "many"], "Invalid value for '--trials'"),
        (["covid", "--demo", "--seed", str(2**32)], "must be below 2,147,483,648"),
        (["covid", "--demo", "--folds", "1"], "--folds 1: choose from 2 to 20"),
        (["covid", "--demo", "--metric", "acc"], "--metric acc: choose one of auroc"),
        (["covid", "--demo", "--set", "lr=1"], "--set lr: no such parameter"),
        (["covid", "--demo", "--set", "dropout"], "write NAME=VALUE"),
        (["covid", "--demo", "--metric", "study_auroc"], "does not say which images are of one study"),
        (["covid", "--demo", "--set", "ema=2"], "--set ema=2: not possible in this space: ema=2: must be in [0, 1)"),
        (["covid", "--demo", "--set", "width=16"], "width=16: svendsen_cnn does not leave it open"),
        (["covid", "--demo", "--images", "20", "--set", "image_size_px=33"], "svendsen_cnn needs at least 70"),
        (["warwick", "--demo", "--images", "20", "--set", "mixup=0.2"], "mixup=0.2: it must be 0 for segmentation"),
        (["covid", "--demo", "--set", "dropout=0.1", "--set", "dropout=0.2"], "given twice, 0.1 and 0.2"),
        (["covid", "--demo", "--only", ","], "--only ',': names nothing"),
        (["covid", "--demo", "--models", ""], "--models '': names nothing"),
        (["covid", "--published", "--space", "/no/file.py"], "--space /no/file.py: cannot be read"),
        (["covid", "--demo", "--models", "svendsen"], "no model of this space; did you mean 'svendsen_cnn'"),
        (["covid", "--demo", "--space", "/no/file.py"], "--space /no/file.py: cannot be read"),
        (["covid", "--demo", "--only", "svendsen2025-model5"], "did you mean 'svendsen2025-model"),
        (["covid", "--demo", "--only", "svendsen2025-model1", "--models", "mobilenetv2_100"], "contradict it"),
        (["covid", "--demo", "--published-only", "--set", "ema=0.9"], "contradict every published configuration"),
        (["covid", "--demo", "--published-only", "--trials", "3"], "there is one for each published configuration"),
        (["covid", "--demo", "--published-only", "--searcher", "grid"], "it has points of its own"),
        (["digits", "--published-only"], "nothing was published for digits"),
        (["digits", "--only", "x"], "no such published configuration. There are: none"),
        (["covid", "--demo", "--set", "dropout=2"], "dropout=2: choose a value from 0 to 0.7"),
        (["covid", "--demo", "--searcher", "grid"], "points and 2,000 are the most"),
        (["covid", "--demo", "--name", "../up"], "use letters, digits"),
        (["covid", "--demo", "--weights", "/no/file"], "--weights /no/file: no such file"),
        (["covid", "--data", "/no/folder"], "/no/folder"),
        (["digits", "--address", "127.0.0.1:9"], "nobody listens there"),
        (["digits", "--nonsense"], "No such option"),
        ([], "Usage"),
    ],
)
def test_a_mistake_is_one_clear_message_and_status_2(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--address" in arguments:  # Ray must not be running already
        command = [sys.executable, "-m", "search", *arguments, "--results", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        status, output = done.returncode, done.stdout + done.stderr
    else:
        result = call(*arguments)
        status, output = result.exit_code, result.output
    assert status == 2
    assert says in " ".join(output.replace("│", " ").split())
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_one_class_and_too_few_images_are_refused(kaggle, tmp_path):
    one_class = call("covid", "--data", kaggle / "COVID", "--results", tmp_path)
    assert one_class.exit_code == 2
    assert "one class only (COVID)" in one_class.stderr
    few = call("covid", "--data", kaggle, "--folds", 9, "--results", tmp_path)
    assert few.exit_code == 2
    assert "class NORMAL has 8 images, fewer than 9 folds: add images or choose --folds 8" in few.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = call("digits", "--results", tmp_path / "file")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_an_error_begins_with_its_first_line_also_after_the_images_were_looked_at(tmp_path):
    done = call("covid", "--demo", "--images", 20, "--like", "nosuch", "--results", tmp_path)
    assert done.exit_code == 2
    assert done.output.startswith("error: --like nosuch: no such image")


def test_the_tasks_are_listed_one_line_each():
    lines = call("--list").stdout.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(datasets.tasks())
    (covid,) = [line for line in lines if line.startswith("covid")]
    assert "324 images" in covid
    assert "2 classes" in covid
    assert "auroc" in covid
    told = {entry["task"]: entry for entry in json.loads(call("--list", "--json").stdout)}
    assert told["digits"] == {
        "task": "digits",
        "images": 1797,
        "classes": list("0123456789"),
        "metric": "accuracy",
        "title": "handwritten digits of scikit-learn, real images, no download",
    }


def test_published_configurations_are_listed_with_their_sizes_and_figures():
    told = json.loads(call("--published", "covid", "--json").stdout)
    assert [(entry["name"], entry["trainable_parameters"], entry["total_parameters"]) for entry in told] == [
        ("svendsen2025-model1", 1_045_441, 1_045_441),
        ("svendsen2025-model2", 164_097, 2_387_969),
        ("svendsen2025-model3", 1_370_177, 2_387_969),
        ("svendsen2025-model4", 2_387_969, 2_387_969),
    ]
    assert {entry["images"] for entry in told} == {81}
    text = " ".join(call("--published", "covid").stdout.split())
    assert "1,370,177 of 2,387,969 parameters trained" in text
    assert "reported accuracy 0.9506 on 81 images" in text
    assert call("--published", "digits").stdout == "nothing was published for digits\n"


def test_an_interruption_has_a_status_of_its_own(monkeypatch):
    def interrupted(**_: object) -> None:
        raise Interrupted("Interrupted. Every finished trial is kept; go on with: …")

    monkeypatch.setattr("search.__main__.run", interrupted)
    done = call("digits")
    assert done.exit_code == 130
    assert "go on with" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demonstration(tmp_path):
    """What `make demo` runs, but shorter: everything says that the data are not real."""
    shorter = ["--trials", "3", "--folds", "2", "--max-epochs", "1"]
    shorter += ["--set", "model=mobilenetv2_100", "--set", "fine_tune=false", "--set", "augment=false", "--no-explain"]
    command = [sys.executable, "-m", "search", "covid", "--demo", "--results", str(tmp_path), *shorter]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DEMONSTRATION DATA") == 2
    assert "324 images (162 NORMAL, 162 COVID), phantoms" in done.stdout
    folder = tmp_path / "covid-demo"
    told = json.loads(
        subprocess.run(
            [sys.executable, "-m", "analysis", str(folder), "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert len(told["history"]) == 3
    assert "DEMONSTRATION DATA" in (folder / "report.html").read_text()
    assert "DEMONSTRATION DATA" in (folder / "report.md").read_text()
