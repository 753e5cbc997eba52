"""The analysis room writes reports, and its command line."""

import html.parser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from kaleido.errors import ChromeNotFoundError
from rich.console import Console
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from analysis import Results, best_trials_table, published_table, ranked, summary, trials, write_report
from analysis.__main__ import app
from analysis.files import write_figures
from analysis.seen import pictures
from analysis.serve import serve
from datasets import InputError
from tests.best_folder import WARNING, add_best
from tests.results_folder import Wanted, build, change

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def report(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html, written once for those who only read."""
    return write_report(Path(shutil.copytree(built, tmp_path_factory.mktemp("reported") / built.name)))


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(built, tmp_path / "results" / built.name))


# --- the report


class Loads(html.parser.HTMLParser):
    """What a browser would fetch, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts = 0
        self.shown = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.scripts += tag == "script"
        named = [value or "" for name, value in attrs if name in ("src", "href", "data", "poster")]
        self.loaded += [name for name in named if not name.startswith(("#", "data:"))]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.loaded += [part for part in data.split() if "url(" in part or "@import" in part]
        elif self._inside != "script":
            self.shown += data


def test_the_report_fetches_nothing_and_holds_plotly_once(folder: Path) -> None:
    add_best(folder)
    page = write_report(folder).read_text()
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert len(page) < 8_000_000
    loads = Loads(page)
    assert loads.loaded == []
    assert loads.scripts == 3  # plotly, the figures as JSON, the lines that draw them
    assert page.count("plotly.js v") == 1
    assert sorted(file.name for file in folder.glob(".*")) == []


@pytest.mark.parametrize("demonstration", [True, False])
def test_the_banner_stands_there_for_demonstration_data_only(folder: Path, demonstration: bool) -> None:
    file = folder / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"demonstration": demonstration}))
    printed = CliRunner().invoke(app, [str(folder)]).stdout
    markdown, page = (folder / "report.md").read_text(), Loads((folder / "report.html").read_text()).shown
    for text in (printed, markdown, page):
        assert ("DEMONSTRATION DATA" in text) is demonstration


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = build(tmp_path, Wanted(classes=("a|b", evil), trials=5, failed=0))
    change(folder, 3, error=f"ValueError: {evil} ![see](http://elsewhere.org)")
    report = write_report(folder)
    page = report.read_text()
    assert Loads(page).scripts == 3
    assert evil in Loads(page).shown  # as text
    assert evil not in page
    markdown = report.with_suffix(".md").read_text()
    assert "<script>" not in markdown
    assert "![see" not in markdown
    assert "a\\|b" in markdown


def test_the_report_names_what_was_run(report: Path) -> None:
    shown = Loads(report.read_text()).shown
    for expected in (
        "svendsen2025-model1",
        "The best of 7 trials is optimistic",
        "95 % interval",
        "0.970",  # the best accuracy that the phantoms allow
        "fedcba9876543210",
        "0123456789abcdef",
        "resumed",
        "the file ends too early",
        "RuntimeError: CUDA out of memory",
        "torch 2.14.1",
    ):
        assert expected in shown


def test_every_score_that_is_shown_has_its_spread(report: Path) -> None:
    told = summary(report.parent)
    page = report.read_text()
    cells = re.findall(r'score-cell">(.*?)</td>', page)
    assert len(cells) >= len(told["published"]) + len(told["top"])
    assert all(re.fullmatch(r"\d\.\d{3} ± \d\.\d{3}", cell) for cell in cells)
    for row in [*told["published"], *told["top"]]:
        assert f"{row['score']:.3f} ± {row['score_std']:.3f}" in cells


@pytest.mark.parametrize(
    ("count", "failed", "metric"),
    [(0, 0, "auroc"), (1, 1, "auroc"), (1, 0, "auroc"), (2, 0, "auroc"), (2, 0, "log_loss")],
)
def test_few_trials_still_make_a_report(tmp_path: Path, count: int, failed: int, metric: str) -> None:
    mode = "min" if metric == "log_loss" else "max"
    wanted = Wanted(trials=count, failed=failed, published=0, metric=metric, mode=mode, max_epochs=1)
    folder = build(tmp_path, wanted)
    shown = Loads(write_report(folder).read_text()).shown
    assert ("No score yet" in shown) is (count == failed)
    assert ("One trial only" in shown) is (count - failed == 1)
    assert pl.read_parquet(folder / "trials.parquet").height == count


def test_the_summary_says_what_the_table_says(folder: Path) -> None:
    told, table = summary(folder), trials(folder)
    json.dumps(told, allow_nan=False)
    order = ranked(table, "max")
    assert [row["number"] for row in told["top"]] == order["number"].to_list()
    assert [row["score"] for row in told["top"]] == order["score"].to_list()
    assert told["scored"] == order.height
    assert sum(told["budget"][state]["trials"] for state in ("finished", "stopped", "failed", "running")) == 8
    assert told["budget"]["total"]["seconds"] == pytest.approx(table["seconds"].sum())
    assert np.sum(told["failures"]["targets"][0]["confusion"]["counts"]) == 120
    assert told["data"]["groups"] == 60


def test_the_difference_to_a_published_configuration_is_that_of_the_comparisons(folder: Path) -> None:
    told = summary(folder)
    compared = {row["number"]: row for row in told["comparisons"]}
    for row in told["published"]:
        other = compared.get(row["number"], {})
        assert row["difference"] == ({key: other[key] for key in ("difference", "low", "high")} if other else None)
    assert sum(row["difference"] is not None for row in told["published"]) >= 1


# --- the headline


def test_the_corrected_estimate_is_the_headline_everywhere_and_the_score_that_chose_stands_beside_it(
    report: Path,
) -> None:
    told = summary(report.parent)
    estimate, best = told["estimate"], told["best"]
    printed = CliRunner().invoke(app, [str(report.parent)]).stdout
    texts = (Loads(report.read_text()).shown, report.with_suffix(".md").read_text(), " ".join(printed.split()))
    for text in texts:
        corrected = text.index(f"{estimate['corrected']:.3f}")
        assert f"{estimate['low']:.3f} to {estimate['high']:.3f}" in text[corrected : corrected + 80]
        scored = text.index(f"{best['score']:.3f} ± {best['score_std']:.3f}")
        assert corrected < scored < text.index("configuration")


def test_what_the_comparisons_say_is_in_every_form(report: Path) -> None:
    told = summary(report.parent)["comparisons"]
    assert told
    for row in told:
        assert row["words"] in Loads(report.read_text()).shown
        assert row["words"] in report.with_suffix(".md").read_text()


def test_summary_json_is_the_summary(report: Path) -> None:
    assert json.loads(report.with_name("summary.json").read_text()) == json.loads(json.dumps(summary(report.parent)))


def test_what_training_fell_back_to_is_told_with_its_trials(folder: Path) -> None:
    note = "memory did not suffice: <trained> in 2 parts of a batch"
    for number in (0, 3):
        change(folder, number, notes=[note])
    assert summary(folder)["notes"] == [{"note": note, "trials": [0, 3]}]
    report = write_report(folder)
    assert f"{note} (trials 0, 3)" in Loads(report.read_text()).shown
    assert "trials 0, 3: memory did not suffice: &lt;trained>" in report.with_suffix(".md").read_text()


# --- best/


def test_a_warning_of_a_shortcut_stands_at_the_top_of_everything(folder: Path) -> None:
    add_best(folder)
    printed = CliRunner().invoke(app, [str(folder)]).stdout
    shown = Loads((folder / "report.html").read_text()).shown
    assert shown.index(WARNING) < shown.index("Did it help?")
    assert shown.count(WARNING) == 2, "and where the network looks"
    assert WARNING.replace("<", "&lt;") in (folder / "report.md").read_text()
    assert WARNING in " ".join(printed.split())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trial": 77}, "best/ holds trial 77, and trial"),
        ({"warnings": "none"}, "best/seen.json is damaged (warnings)"),
        ({"cases": [{"image_id": "a"}]}, "best/seen.json is damaged (cases)"),
        ({"border": {"metric": "auroc"}}, "best/seen.json is damaged (border)"),
        ({"trial": 10**400}, "best/seen.json is damaged (trial)"),
        ({"further": float("inf")}, "best/seen.json cannot be read"),
    ],
)
def test_a_best_folder_that_does_not_fit_is_said_so(folder: Path, change: dict[str, object], says: str) -> None:
    add_best(folder, **change)
    note = summary(folder)["seen"]["note"]
    assert says in note
    assert "python -m search.explain covid-demo" in note


def test_pictures_are_taken_from_their_folder_only_and_only_if_they_are_pictures(folder: Path) -> None:
    secret = folder / "secret.jpg"
    secret.write_bytes(b"\xff\xd8\xffsecret")
    told = add_best(folder)
    (folder / "best/pictures/link.jpg").symlink_to(secret)
    (folder / "best/pictures/text.jpg").write_text("<svg onload=alert(1)>")
    odd = ("../secret.jpg", str(secret), "pictures/../../secret.jpg", "pictures/link.jpg", "pictures/text.jpg", None)
    cases = [told["cases"][1] | {"picture": name} for name in odd]
    add_best(folder, cases=cases)
    page = write_report(folder).read_text()
    assert "data:image/jpeg" not in page
    assert "<svg onload" not in page
    (folder / "best/pictures").rename(folder / "elsewhere")
    (folder / "best/pictures").symlink_to(folder / "elsewhere")
    assert pictures(Results.open(folder), {"cases": told["cases"]}) == {}


def test_the_test_split_is_told_with_its_interval_where_the_best_trial_was_scored_on_it(folder: Path) -> None:
    assert summary(folder)["test"] is None
    add_best(folder, test_images=60)
    told = summary(folder)["test"]
    (score,) = told["scores"]
    assert (told["images"], score["of"]) == (60, "fold ensemble")
    table = pl.read_parquet(folder / "best/test_predictions.parquet")
    assert score["score"] == pytest.approx(roc_auc_score(table["target"], table["COVID"]))
    assert score["low"] < score["score"] < score["high"]
    report = write_report(folder)
    words = f"{score['score']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
    for text in (Loads(report.read_text()).shown, report.with_suffix(".md").read_text()):
        assert words in text
    add_best(folder, test_images=60, tested_before=[1])
    for text in (Loads(write_report(folder).read_text()).shown, report.with_suffix(".md").read_text()):
        assert "also been scored with trial 1" in text
    add_best(folder, trial=77)
    assert summary(folder)["test"] is None, "another trial's predictions"


def test_what_could_not_be_tested_for_shortcuts_is_not_called_free_of_them(folder: Path) -> None:
    border = add_best(folder, warnings=[])["border"]
    assert "No sign of a shortcut on 80 images" in Loads(write_report(folder).read_text()).shown
    unknown = {"same": {"mean": None, "std": None}, "other": {"mean": None, "std": None}}
    add_best(folder, warnings=[], border=border | {"corners_exchanged": unknown})
    shown = Loads(write_report(folder).read_text()).shown
    assert "No sign" not in shown
    assert "could not be tested" in shown


# --- what was reported


REPORTED = [
    {"name": "svendsen2025-model1", "summary": "a small CNN", "metric": "accuracy", "reported": 0.8148, "images": 81,
     "split": "held out <25 %>", "epochs": 331, "how": "best epoch by its loss", "note": "one image is 1.23 points"},
    {"name": "svendsen2025-model2", "summary": "a MobileNet", "metric": "accuracy", "reported": None, "images": None,
     "split": "not stated", "epochs": None, "note": ""},
    {"name": "svendsen2025-model9", "summary": "never proposed", "metric": "dice", "reported": 0.5, "images": 1850,
     "split": "", "epochs": 2, "note": ""},
]  # fmt: skip


@pytest.fixture
def recorded(folder: Path) -> Path:
    file = folder / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"published": REPORTED}))
    return folder


def test_a_published_figure_stands_beside_the_reproduced_one_in_its_own_metric(recorded: Path) -> None:
    told = summary(recorded)
    json.dumps(told, allow_nan=False)
    rows = {row["published"]: row for row in told["published"]}
    assert list(rows)[-1] == "svendsen2025-model9"
    first = rows["svendsen2025-model1"]
    folds = json.loads((recorded / "trials/0000/reports.jsonl").read_text().splitlines()[-1])["folds"]["accuracy"]
    assert first["reported"]["reported"] == 0.8148
    assert first["reported"]["reproduced"] == {
        "mean": pytest.approx(np.mean(folds)), "std": pytest.approx(np.std(folds, ddof=1))
    }  # fmt: skip
    assert first["reported"]["best_found"] == told["best"]["metrics"]["accuracy"]
    assert first["score"] == trials(recorded)["auroc"][0], "and in the metric that was searched by"


def test_a_published_configuration_that_was_not_tried_is_told_without_a_score(recorded: Path) -> None:
    row = summary(recorded)["published"][-1]
    assert (row["state"], row["number"], row["score"], row["difference"]) == ("not tried", None, None, None)
    assert (row["reported"]["reproduced"], row["reported"]["best_found"]) == (None, None), "nothing here has a Dice"


def test_every_page_has_what_was_reported(recorded: Path) -> None:
    told = summary(recorded)
    report = write_report(recorded)
    page, markdown = Loads(report.read_text()).shown, report.with_suffix(".md").read_text()
    console = Console(width=120)
    table = published_table(told)
    assert table is not None
    with console.capture() as captured:
        console.print(table)
    reproduced = told["published"][0]["reported"]["reproduced"]
    for text in (page, markdown, captured.get()):
        assert "reproduced" in text
        assert "0.815 on 81 images" in text
        assert "no figure" in text
        assert "0.500 on 1,850 images" in text
        assert "svendsen2025-model9" in text
        assert f"{reproduced['mean']:.3f} ± {reproduced['std']:.3f}" in text
    for text, split in ((page, "held out <25 %>"), (markdown, "held out &lt;25 %>")):
        assert f"{split}; 331 epochs; best epoch by its loss. One image is 1.23 points" in text
        assert "never proposed" in text
    (row,) = [line for line in markdown.splitlines() if "svendsen2025-model9" in line]
    (head,) = [line for line in markdown.splitlines() if line.startswith("| configuration | score | reported")]
    assert row.count("|") == head.count("|")
    printed = CliRunner().invoke(app, [str(recorded)]).stdout
    assert "Against the published configurations" in printed


def test_records_without_what_was_reported_still_make_a_page(folder: Path) -> None:
    told = summary(folder)
    assert [row["reported"] for row in told["published"]] == [None, None]
    assert published_table(told) is None
    report = write_report(folder)
    for text in (Loads(report.read_text()).shown, report.with_suffix(".md").read_text()):
        assert "Against the published configurations" in text
        assert "reproduced" not in text


def test_where_nothing_was_searched_no_search_is_said_to_have_found_nothing(tmp_path: Path) -> None:
    folder = build(tmp_path, Wanted(trials=2, published=2, failed=0, max_epochs=1))
    page = Loads(write_report(folder).read_text()).shown
    assert "Only published configurations ran." in page
    assert "found nothing better" not in page


def test_the_terminal_table_of_published_configurations_fits_100_columns(recorded: Path) -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(published_table(summary(recorded)))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


# --- the command line


def test_the_command_prints_the_table_and_writes_the_report(folder: Path) -> None:
    done = CliRunner().invoke(app, [folder.name, "--results", str(folder.parent)])
    assert done.exit_code == 0
    winner = summary(folder)["best"]
    assert f"{winner['score']:.3f} ± {winner['score_std']:.3f}" in done.stdout
    assert str(folder / "report.html") in done.stdout
    assert (folder / "report.html").stat().st_size > 1_000_000


def test_json_goes_to_stdout_alone_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = CliRunner().invoke(app, [folder.name, "--results", str(folder.parent), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(summary(folder)))
    assert done.stderr == ""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_an_unknown_name_suggests_the_nearest(folder: Path, option: list[str]) -> None:
    done = CliRunner().invoke(app, ["covid-dmo", "--results", str(folder.parent), *option])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean 'covid-demo'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--figures", "svgg"], "--figures 'svgg' is no format; did you mean 'svg'?"),
        (["--figures", ","], "--figures needs a format"),
        (["--metric", "auroc"], "--metric is for comparing"),
    ],
)
def test_options_that_make_no_sense_are_one_clear_line(folder: Path, options: list[str], says: str) -> None:
    done = CliRunner().invoke(app, [str(folder), *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_browser_figures_as_files_are_refused_clearly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise ChromeNotFoundError

    monkeypatch.setattr("plotly.io.write_images", nothing)
    with pytest.raises(InputError, match="apt install chromium"):
        write_figures(folder, ["svg"])


# --- --serve


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    """The address of a report that another process serves, which ends quietly on Ctrl-C."""
    command = [sys.executable, "-m", "analysis", str(folder), "--serve"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert process.stdout is not None
    try:
        yield next(found[0] for line in process.stdout if (found := re.findall(r"http://127[\d.]+:\d+/", line)))
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
        assert (process.returncode, complaint) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_the_page_is_served_to_this_machine_and_nothing_else_of_the_folder(served: str, folder: Path) -> None:
    with urllib.request.urlopen(served) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.read() == (folder / "report.html").read_bytes()
    with urllib.request.urlopen(f"{served}summary.json") as answer:
        assert json.load(answer)["name"] == "covid-demo"
    for path in ("study.db", "../report.html", "experiment.json", "..%2freport.html"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(served + path)
    here = urllib.request.Request(served, headers={"Host": "localhost"})  # as at port 80
    with urllib.request.urlopen(here) as answer:
        assert answer.status == 200
    elsewhere = urllib.request.Request(served, headers={"Host": "example.org:80"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(elsewhere)


def test_a_port_that_is_taken_is_one_clear_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port 0 takes a free one"):
            serve([folder / "report.html"], taken.getsockname()[1], print)


@pytest.mark.parametrize("damage", ["{", "[]", "{}", None])
def test_a_damaged_experiment_is_one_clear_line(folder: Path, damage: str | None) -> None:
    if damage is None:
        (folder / "folds.parquet").unlink()
    else:
        (folder / "experiment.json").write_text(damage)
    done = CliRunner().invoke(app, [str(folder)])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") <= 2


def test_no_experiments_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m search"):
        Results.open(tmp_path / "nothing" / "covid")


def test_the_terminal_table_fits_100_columns(built: Path) -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(best_trials_table(trials(built), Results.open(built).experiment))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 100
    assert any("published: svendsen2025-model1" in line for line in lines)
    assert not any("…" in line for line in lines)  # nothing is cut off


def test_a_score_of_many_words_and_a_long_name_leave_80_columns_for_all(built: Path) -> None:
    experiment = Results.open(built).experiment | {"metric": "study_balanced_accuracy"}
    named = trials(built).with_columns(published=pl.lit("kamaneh2024-efficientnetb0-finetuned"))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(best_trials_table(named, experiment))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("accuracy over", "finished", "efficientnetb0-finetuned"):
        assert words in shown
