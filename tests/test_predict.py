"""A finished search is opened again, its winner written as a model and asked about files."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from analysis.predictions import balanced_threshold
from analysis.results import Results
from datasets import InputError, Skipped
from search.model_card import described, write_model
from search.predict import _places, app, no_formulas
from search.predicted import batches
from search.records import make_record
from search.reopened import Reopened, reopened
from tests.finished_search import finished, planned, write_images
from tests.small import small_config, small_dataset, small_folds, small_multitask, small_protocol, small_segmentation
from trainables.ensemble import Ensemble
from trainables.lockstep import Lockstep


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose images are films of 16 bit and photographs that lie on their side, too."""
    folder = tmp_path_factory.mktemp("searched")
    data = write_images(small_dataset(34), folder / "data")
    rng = np.random.default_rng(0)
    for number, label in enumerate("abab"):
        deep = Image.fromarray(rng.integers(0, 4096, (50, 40), np.uint16))
        deep.save(data / "train" / label / f"deep{number}.png")
        turned = Image.fromarray(rng.integers(0, 256, (500, 700, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(data / "train" / label / f"turned{number}.jpg", exif=exif)
    shutil.copy(data / "train" / "a" / "000.png", data / "train" / "a" / "again.png")  # shares the group of the first
    shutil.copy(data / "train" / "a" / "002.png", data / "train" / "b" / "contradicts.png")  # both are left out
    return finished(planned(folder / "results", data=data), small_config())


@pytest.fixture(scope="module")
def again(searched: Path) -> Reopened:
    return reopened(searched)


@pytest.fixture(scope="module")
def best(searched: Path, again: Reopened) -> Path:
    write_model(searched / "best", again.ensemble(0), again.results, 0)
    return searched / "best"


def test_the_same_images_are_found_again_in_the_same_order_and_folds(searched: Path, again: Reopened) -> None:
    plan = planned(searched.parent, data=searched.parents[1] / "data", name="another")

    assert again.dataset.table.select("image_id", "group", "target").equals(
        plan.dataset.table.select("image_id", "group", "target")
    )
    assert again.dataset.table["group"].n_unique() == len(again.dataset) - 1
    assert np.array_equal(again.folds.validated_in, plan.folds.validated_in)
    assert again.test.table["image_id"].to_list() == plan.test.table["image_id"].to_list()
    assert (len(again.dataset), len(again.test)) == (38, 4)
    assert again.protocol() == plan.protocol("cpu")


def test_images_that_have_moved_are_found_where_one_says(searched: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(searched.parents[1] / "data", tmp_path / "moved")

    assert reopened(searched, moved).dataset.digest == reopened(searched).dataset.digest
    with pytest.raises(InputError, match="are not there; say where they are now with --data"):
        reopened(searched, tmp_path / "nowhere")
    changed = moved / "train" / "a" / "004.png"
    Image.open(changed).point(lambda value: 255 - value).save(changed)
    with pytest.raises(InputError, match="are not those of the search"):
        reopened(searched, moved)
    changed.unlink()
    with pytest.raises(InputError, match=r"1 images are missing, train/a/004.png for one"):
        reopened(searched, moved)


def test_phantoms_with_repeats_are_drawn_again(tmp_path: Path) -> None:
    plan = planned(tmp_path, task="skin", demo=True, images=24, repeats=2, seed=3, plant=("duplicates",))
    plan.options.folder.mkdir()
    (plan.options.folder / "experiment.json").write_text(json.dumps(make_record(plan)))
    plan.folds.table(plan.dataset).write_parquet(plan.options.folder / "folds.parquet")

    again = reopened(plan.options.folder)

    assert again.dataset.digest == plan.dataset.digest
    assert np.array_equal(again.folds.validated_in, plan.folds.validated_in)
    with pytest.raises(InputError, match="did not read its images from files"):
        reopened(plan.options.folder, tmp_path)
    told = json.loads((plan.options.folder / "experiment.json").read_text())
    del told["request"]
    (plan.options.folder / "experiment.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="of an earlier version"):
        reopened(plan.options.folder)


def test_files_are_decoded_and_judged_as_in_the_search(again: Reopened, best: Path) -> None:
    ensemble, skipped = Ensemble.load(best), list[Skipped]()
    files = [Path(path) for path in again.dataset.table["path"]]

    probabilities_kNC = np.concatenate([got.probabilities_kBC for got in batches(ensemble, files, skipped)], axis=1)

    out_of_fold_NC = probabilities_kNC[again.folds.validated_in[0], np.arange(len(files))]
    assert not skipped
    assert np.abs(out_of_fold_NC - again.results.out_of_fold(0)).max() < 2e-5


def test_the_model_tells_what_it_is_and_no_path_of_this_machine(again: Reopened, best: Path) -> None:
    card, told = (best / "README.md").read_text(), json.loads((best / "model.json").read_text())
    report = json.loads((again.results.trial_folder(0) / "reports.jsonl").read_text())

    assert f"accuracy {report['accuracy']:.3f} ± {report['accuracy_std']:.3f} over 3 folds" in card
    assert "no medical device" in card
    assert "38 images (19 a, 19 b)" in card
    assert told["about"]["data"]["digest"] == again.dataset.digest
    for text in (card, json.dumps(told)):
        assert str(again.results.folder.parents[1]) not in text


def test_a_card_says_what_was_corrected_and_what_was_drawn(again: Reopened, tmp_path: Path) -> None:
    estimate = {"corrected": 0.81, "low": 0.7, "high": 0.9, "level": 0.95, "how": "Stopped trials count."}
    ensemble = again.ensemble(0)
    experiment = again.results.experiment | {"demonstration": True, "title": "<script>alert(1)</script>\n# odd"}
    results = Results(again.results.folder, experiment, again.results.folds)  # type: ignore[arg-type]

    write_model(tmp_path, ensemble, results, 0, estimate=estimate)
    card = (tmp_path / "README.md").read_text()

    assert "Corrected accuracy: **0.810 (0.700 to 0.900)** (95% interval)" in card
    assert "DEMONSTRATION DATA" in card
    assert "<script>" not in card
    assert "\n# odd" not in card
    assert Ensemble.load(tmp_path).description.demonstration


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_one_of_the_highest_balanced_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive_N = rng.integers(0, 2, 40)
    probability_N = np.round(np.clip(0.3 * positive_N + rng.random(40) * 0.6, 0, 1), 2)

    def balanced(threshold: float) -> float:
        decided_N = probability_N >= threshold
        return float(np.mean([decided_N[positive_N == 1].mean(), 1 - decided_N[positive_N == 0].mean()]))

    found = balanced_threshold(positive_N, probability_N)

    assert balanced(found) == pytest.approx(max(balanced(cut) for cut in np.linspace(0, 1, 1001)))
    assert balanced_threshold(np.ones(3, int), probability_N[:3]) == 0.5


def test_a_table_has_no_formulas_in_it() -> None:
    table = pl.DataFrame({"image": ["=1+1.png", "a=b.png", None], "class": ["-1", "b", "@x"], "@y": [-1.0, 2.0, 3.0]})

    inert = no_formulas(table)

    assert inert.columns == ["image", "class", "'@y"]
    assert inert["image"].to_list() == ["'=1+1.png", "a=b.png", None]
    assert inert["class"].to_list() == ["'-1", "b", "'@x"]
    assert inert["'@y"].to_list() == [-1.0, 2.0, 3.0]


def test_pictures_of_files_elsewhere_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    assert _places([Path("../there/a.png"), Path("b.png")]) == [Path("there/a.png.png"), Path("here/b.png.png")]


def said_of(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_folder_becomes_a_table_and_what_is_no_image_is_named(searched: Path, best: Path, tmp_path: Path) -> None:
    data = shutil.copytree(searched.parents[1] / "data" / "test", tmp_path / "new")
    (data / "a" / "broken.png").write_bytes(b"no image")
    (data / "notes.txt").write_text("hello")

    result = said_of("images", data, "--csv", tmp_path / "out.csv", "--results", searched.parent)
    table, ensemble = pl.read_csv(tmp_path / "out.csv"), Ensemble.load(best)

    assert result.exit_code == 0, result.stderr
    assert "broken.png: not an image of a known format" in result.stderr
    assert "notes.txt" in result.stderr
    assert table.height == 4
    pixels = [np.repeat(np.asarray(Image.open(file))[:, :, None], 3, axis=2) for file in table["image"]]
    positive_kN = ensemble.predict(pixels)[..., 1]
    threshold = ensemble.description.threshold(ensemble.description.targets[0])
    decided_N = positive_kN.mean(0) >= threshold
    assert table["class"].to_list() == np.where(decided_N, "b", "a").tolist()
    assert np.allclose(table["probability_b"], positive_kN.mean(0), atol=2e-6)
    assert np.allclose(table["disagreement"], positive_kN.std(0), atol=2e-6)
    assert table["dissenting"].to_list() == ((positive_kN >= threshold) != decided_N).sum(0).tolist()
    assert np.allclose(table["probability"], np.where(decided_N, table["probability_b"], table["probability_a"]))


def test_what_cannot_be_is_one_line_and_status_2(searched: Path, best: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    unexplained = shutil.copytree(searched, tmp_path / "results" / "later", ignore=shutil.ignore_patterns("best"))
    for arguments, said in (
        (("imagse", broken, "--results", searched.parent), "did you mean 'images'?"),
        ((unexplained.name, broken, "--results", tmp_path / "results"), "python -m search.explain later"),
        ((best, tmp_path / "nowhere"), "no such file or folder"),
        ((best, broken), "none of 1 files is an image"),
        ((best, broken, "--masks", tmp_path / "masks"), "no masks; leave it out"),
        ((best, broken, "--csv", tmp_path / "nowhere" / "out.csv"), "there is no folder"),
        ((best, broken, "--csv", tmp_path), "is a folder"),
    ):
        result = said_of(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stdout == ""


def test_pictures_show_where_the_networks_look(searched: Path, best: Path, tmp_path: Path) -> None:
    files = sorted((searched.parents[1] / "data" / "test").glob("*/*.png"))

    result = said_of(best, *files, files[0], "--saliency", tmp_path / "looks")

    assert result.exit_code == 0, result.stderr
    assert pl.read_csv(io.StringIO(result.stdout)).height == 4
    looks = [tmp_path / "looks" / file.parent.name / f"{file.name}.png" for file in files]
    pictures_NHW3 = np.stack([np.asarray(Image.open(look)) for look in looks]).astype(int)
    assert pictures_NHW3.shape == (4, 16, 16, 3)
    assert (pictures_NHW3[..., 0] > pictures_NHW3[..., 1]).any()  # red, on gray
    assert (pictures_NHW3[..., 1] == pictures_NHW3[..., 2]).all()


def model_of(folder: Path, config: dict[str, object], metric: str, small: object) -> Path:
    """Networks of one epoch."""
    dataset = small_multitask(24) if small is small_multitask else small_segmentation(12)
    lockstep = Lockstep(small_config(**config), dataset, small_folds(dataset), small_protocol(metric=metric))
    lockstep.advance()
    lockstep.save(folder)
    protocol = small_protocol(metric=metric)
    Ensemble.of_trial(folder, small_config(**config), dataset, small_folds(dataset), protocol).save(folder / "best")
    return folder / "best"


def test_images_of_one_study_are_averaged_and_every_target_has_columns(tmp_path: Path) -> None:
    model = model_of(tmp_path, {}, "accuracy", small_multitask)
    for number, place in enumerate(("patient1/study1", "patient1/study1", "patient2/study1_positive", "loose")):
        file = tmp_path / "films" / place / f"image{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small_multitask().decode(number)[:, :, 0]).save(file)

    result = said_of(model, tmp_path / "films")
    table = pl.read_csv(io.StringIO(result.stdout)).sort("image")
    tall = table["probability_height:b"].to_list()

    assert table["study_images"].to_list() == [None, 2, 2, 1]
    assert table["study"][1] == (tmp_path / "films" / "patient1" / "study1").as_posix()
    of_study = (tall[1] + tall[2]) / 2
    assert table["study_class"][1] == ("b" if of_study >= 0.5 else "a")
    assert table["study_probability"][1] == pytest.approx(max(of_study, 1 - of_study), abs=2e-6)
    assert {"class_side", "probability_side", "dissenting_shade", "probability_shade:grey"} <= set(table.columns)


def test_masks_are_as_large_as_their_images(tmp_path: Path) -> None:
    model = model_of(tmp_path, {"model": "encoder_decoder", "dense_widths": ()}, "dice", small_segmentation)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8)).save(tmp_path / "gland.png")

    result = said_of(model, tmp_path / "gland.png", "--masks", tmp_path / "masks")
    mask = np.asarray(Image.open(tmp_path / "masks" / "gland.png.png"))
    table = pl.read_csv(io.StringIO(result.stdout))

    assert result.exit_code == 0, result.stderr
    assert mask.shape == (30, 50)
    assert set(np.unique(mask)) <= {0, 255}
    assert table["area"][0] == pytest.approx((mask > 0).mean(), abs=0.15)  # counted on the square
    assert 0 <= table["disagreement"][0] <= 1


def test_thresholds_of_several_targets_are_their_own(again: Reopened, best: Path) -> None:
    description = Ensemble.load(best).description

    assert description.thresholds.keys() == {"label"}
    truth, probability = again.results.targets, again.results.out_of_fold(0)[:, 1]
    assert description.thresholds["label"] == balanced_threshold(truth, probability)
    assert described(description, again.results, 0).about["trial"] == 0
