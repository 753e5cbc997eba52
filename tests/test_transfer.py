"""The shipped weights: that they are what the recipe makes, and that they are worth something where they are used."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import datasets
from benchmarks import pretrain
from benchmarks.transfer import AMOUNTS, Swapped, best_rate, cross_validated
from datasets.folds import Folds
from trainables.backbones import backbone
from trainables.models import build_body

FILE = pretrain.WEIGHTS / f"{pretrain.MODEL}.safetensors"


@pytest.fixture(scope="module")
def few() -> pretrain.Seen:
    return pretrain.seen(5, {"mura": 42, "warwick": 12, "mnist": 20})


def test_the_shipped_weights_are_small_and_say_what_they_were_trained_on():
    assert FILE.stat().st_size < 2_000_000
    recipe = FILE.with_suffix(".md").read_text()
    assert all(f"{task} {images:,}" in recipe for task, images in pretrain.IMAGES.items())
    assert "covid" not in pretrain.IMAGES


def test_every_task_has_a_head_of_its_own_and_is_seen_in_three_colours(few):
    assert few.classes == {"mura": 2, "mura, part": 7, "warwick": 2, "mnist": 10}
    of_task = {head: labels >= 0 for head, labels in few.labels.items()}
    assert of_task["mura"].equal(of_task["mura, part"])
    told = of_task["mura"].int() + of_task["warwick"].int() + of_task["mnist"].int()
    assert told.equal(torch.ones_like(told)), "every image belongs to one task"
    gray, stained = (few.pixels_NHWC[of_task[task].numpy()] for task in ("mura", "warwick"))
    assert (gray == gray[..., :1]).all()
    assert stained[..., :2].any()
    assert not stained[..., 2].any()


def test_the_labels_are_what_the_images_show():
    films = datasets.load_all("bone", datasets.Request(demonstration=True, seed=5, images=40))
    labels = pretrain.seen(5, {"bone": 40}).labels["bone"]
    assert labels.tolist() == films.table["appearance"].to_list()


def test_an_image_is_moved_and_lit_by_itself():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    first, second = pretrain.moved(image)
    assert first.shape == (3, pretrain.SIZE_PX, pretrain.SIZE_PX)
    assert not torch.allclose(first, second)


def test_what_is_trained_learns_its_tasks_and_fits_the_shipped_file():
    """Whether a film is a digit is easily seen: enough is learned in seconds."""
    kinds = pretrain.seen(5, {"bone": 40, "mnist": 24})
    easy = dataclasses.replace(kinds, labels={"kind": (kinds.labels["bone"] >= 0).long()}, classes={"kind": 2})
    body, heads = pretrain.trained(easy, epochs=5)
    rows = torch.arange(len(easy.pixels_NHWC))
    with torch.inference_mode():  # in training mode: batch norm's averages need more than five steps
        logits = {"kind": heads["kind"](body.train()(pretrain.inputs(easy, rows, 0.5, 0.5)))}
    assert pretrain.loss_of(logits, easy, rows) < 0.5, "of 0.69 for who guesses"
    assert {name: tensor.shape for name, tensor in body.state_dict().items()} == {
        name: tensor.shape for name, tensor in load_file(FILE).items()
    }


def test_a_head_does_not_learn_from_the_images_of_other_tasks(few):
    """Its gradient in a batch without any of its images is zero."""
    of_mura = pretrain.Seen(
        few.pixels_NHWC[few.labels["mura"].numpy() >= 0],
        {head: labels[few.labels["mura"] >= 0] for head, labels in few.labels.items()},
        few.classes,
    )
    logits = {head: torch.zeros(4, count, requires_grad=True) for head, count in few.classes.items()}
    pretrain.loss_of(logits, of_mura, torch.arange(4)).backward()
    learned = {head for head, given in logits.items() if given.grad is not None and given.grad.any()}
    assert learned == {"mura", "mura, part"}


def test_a_backbone_starts_from_the_shipped_weights():
    module, features, published = backbone(pretrain.MODEL, 3, 64, "avg", "phantoms")
    shipped = load_file(FILE)
    assert features == 96
    assert published["mean"] == (0.5, 0.5, 0.5), "which is what they were trained with"
    assert all(tensor.equal(shipped[name]) for name, tensor in module.state_dict().items())


def test_gray_images_give_the_features_of_gray_images_in_colour():
    colour, gray = (build_body(pretrain.MODEL, channels, 64, "avg", "phantoms") for channels in (3, 1))
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(
            gray.module.eval()(images), colour.module.eval()(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


def test_a_model_without_shipped_weights_starts_at_random():
    torch.manual_seed(0)
    expected = backbone("test_efficientnet", 3, 64, "avg", "none")[0].state_dict()
    torch.manual_seed(0)
    given = backbone("test_efficientnet", 3, 64, "avg", "phantoms")[0].state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in given.items())


def test_swapped_folds_train_on_what_the_others_validate():
    validated_in = np.array([[0, 1, 2, 0, 1, 2]])
    for (large, small), (trained, validated) in zip(Folds(validated_in), Swapped(validated_in), strict=True):
        assert trained.tolist() == small.tolist()
        assert validated.tolist() == large.tolist()


def test_shipped_weights_beat_random_ones_on_films_that_they_have_not_seen():
    """Frozen, with a linear head, on films at 224 px: transfer.md has the figures."""
    few_films = dataclasses.replace(AMOUNTS[216], films=120, epochs=9)
    of_random, of_shipped = (
        cross_validated(few_films, weights, layers=0, rate=1e-2, seed=7).aurocs.mean()
        for weights in ("none", str(FILE))
    )
    assert of_shipped > of_random + 0.1


@pytest.mark.parametrize("peak", [1e-5, 3e-3, 0.1])
def test_the_best_rate_is_found_wherever_it_is(peak):
    tried = []

    def score(rate: float) -> float:
        tried.append(rate)
        return -abs(np.log(rate / peak))

    assert best_rate(score, first=-5) == pytest.approx(peak)
    assert len(tried) == len(set(tried)), "no rate is tried twice"
