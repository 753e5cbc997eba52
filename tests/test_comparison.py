"""The winner against published configurations and the second best: the difference, and whether it is one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.comparison import comparisons
from analysis.results import Results, Unavailable
from analysis.summary import summary
from analysis.terminal import headline
from analysis.trials import ranked, trials
from tests.results_folder import Wanted, build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("results"), Wanted(failed=0, trials=7))


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / built.name))


def compared(folder: Path, **estimated: float) -> list[dict]:
    return comparisons(Results.open(folder), trials(folder), {"optimism_of_trials": 0.0} | estimated)


def test_every_published_configuration_is_compared_and_the_second_best(built):
    table = ranked(trials(built), "max")
    found = comparisons(Results.open(built), trials(built))
    winner, second = table["number"][:2]
    assert {each["number"] for each in found} == {0, 1, second} - {winner}
    assert [each["second"] for each in found if each["number"] == second] == [True]
    for each in found:
        other = table.filter(table["number"] == each["number"]).row(0, named=True)
        name = each["published"] or f"trial {each['number']}"
        assert each["naive_difference"] == pytest.approx(table["score"][0] - other["score"])
        assert each["low"] < each["difference"] < each["high"]
        assert each["folds_low"] < each["difference"] < each["folds_high"]
        assert each["images"] == 120
        assert each["winner_right"] + each["other_right"] == each["differ"] <= 120
        assert each["distinguishable"] == (each["low"] > 0 or each["high"] < 0)
        assert ("not distinguishable" in each["words"]) != each["distinguishable"]
        assert (f"stopped {name}" in each["words"]) == (other["state"] == "stopped")
    json.dumps(found)


def test_what_choosing_adds_is_taken_off_the_lead_over_what_nobody_chose(built):
    plain, corrected = compared(built), compared(built, optimism_of_trials=0.05)
    for before, after in zip(plain, corrected, strict=True):
        lost = 0.05 if after["published"] else 0.0
        assert after["difference"] == pytest.approx(before["difference"] - lost)
        assert after["naive_difference"] == before["naive_difference"]


def test_folds_give_the_corrected_resampled_t(built):
    table = ranked(trials(built), "max")
    winner = table.row(0, named=True)
    for each in compared(built):
        other = table.filter(table["number"] == each["number"]).row(0, named=True)
        apart = np.subtract(winner["fold_scores"], other["fold_scores"])
        half = 4.302653 * np.sqrt((1 / 3 + 1 / 2) * apart.var(ddof=1))  # 3 folds: 1/3 + n_test / n_train, t with 2
        assert each["folds_high"] - each["difference"] == pytest.approx(half)


def test_a_copy_of_the_winner_is_not_distinguishable_and_decides_alike(folder):
    winner, second = ranked(trials(folder), "max")["number"][:2]
    shutil.rmtree(folder / f"trials/{second:04d}")
    shutil.copytree(folder / f"trials/{winner:04d}", folder / f"trials/{second:04d}")
    reports = folder / f"trials/{second:04d}/reports.jsonl"
    reports.write_text(reports.read_text().replace(f'"number": {winner}', f'"number": {second}'))
    [found] = [each for each in compared(folder) if each["number"] in (winner, second)]
    assert (found["difference"], found["differ"], found["distinguishable"]) == (0, 0, False)
    assert "decide alike on all 120 images: not distinguishable" in found["words"]


def test_one_trial_has_nothing_to_be_compared_with_and_a_damaged_one_says_so(folder):
    second = ranked(trials(folder), "max")["number"][1]
    for file in (folder / f"trials/{second:04d}").glob("checkpoint_*/predictions.parquet"):
        file.write_bytes(b"x" * file.stat().st_size)
    [damaged] = [each for each in compared(folder) if each["number"] == second]
    assert "damaged" in damaged["unavailable"]
    assert "AUROC" in str(headline(summary(folder))), "of which the other words of the headline know nothing"
    with pytest.raises(Unavailable, match="nothing to compare"):
        comparisons(Results.open(folder), trials(folder).head(1))
