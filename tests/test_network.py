"""Networks: exact sizes, and what is frozen."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from datasets import InputError
from datasets.pixels import pixels
from tests.small import MOBILENET, small_config, small_dataset
from trainables.config import TrialConfig
from trainables.cutting import cut
from trainables.images import pixel_fetch
from trainables.models import build_body
from trainables.network import (
    Network,
    build_head,
    freeze,
    frozen_body,
    network_size,
    parameter_counts,
    pristine_body,
    weights_digest,
)


def network(config: TrialConfig, channels: int = 3, outputs: int = 1) -> Network:
    body = pristine_body(config, channels, weights="none", seed=0)
    freeze(body.module, config.unfrozen_layers, (channels, config.image_size_px, config.image_size_px))
    return Network(body.module, build_head(config, body.features, outputs, seed=0))


SVENDSEN = {"image_size_px": 224, "dense_widths": (128,), "dropout": 0.5}


@pytest.mark.parametrize(
    ("model", "unfrozen_layers", "trainable", "total"),
    [
        ("svendsen_cnn", None, 1_045_441, 1_045_441),
        ("mobilenetv2_100", 0, 164_097, 2_387_969),
        ("mobilenetv2_100", 13, 1_216_577, 2_387_969),
        ("mobilenetv2_100", 14, 1_370_177, 2_387_969),
        ("mobilenetv2_100", 104, 2_387_969, 2_387_969),
        ("mobilenetv2_100", None, 2_387_969, 2_387_969),
    ],
)
def test_svendsens_networks_have_the_published_sizes(model, unfrozen_layers, trainable, total):
    config = small_config(model=model, unfrozen_layers=unfrozen_layers, **SVENDSEN)
    assert parameter_counts(network(config)) == (trainable, total)


@pytest.mark.parametrize(
    ("batch_norm", "outputs", "total"),
    [(False, 2, 16_750), (True, 2, 16_918), (False, 1, 16_745), (True, 1, 16_913)],
)
def test_the_encoder_decoder_has_the_size_of_the_student_network(batch_norm, outputs, total):
    config = small_config(model="encoder_decoder", image_size_px=128, dense_widths=(), batch_norm=batch_norm)
    body = pristine_body(config, 2, weights="none", seed=0)
    whole = Network(body.module, build_head(config, body.features, outputs, seed=0, dense=body.dense))
    assert parameter_counts(whole) == (total, total)
    assert whole(torch.zeros(2, 2, 128, 128)).shape == (2, outputs, 128, 128)
    if outputs == 1:
        assert network_size(config, channels=2, classes=2) == (total, total)


def test_a_dense_head_is_the_same_head_at_every_pixel():
    config = small_config(dense_widths=(6,), dense_batch_norm=True)
    dense, plain = (build_head(config, 4, 3, seed=0, dense=dense).eval() for dense in (True, False))
    with torch.no_grad():
        for of_dense, of_plain in zip(dense.parameters(), plain.parameters(), strict=True):
            of_plain.copy_(of_dense.view_as(of_plain))
        features = torch.randn(2, 4, 5, 5)
        at_a_pixel = plain(features[:, :, 2, 3])
        torch.testing.assert_close(dense(features)[:, :, 2, 3], at_a_pixel)


def test_a_size_that_does_not_come_back_from_pooling_is_refused():
    with pytest.raises(InputError, match="image_size_px=100: encoder_decoder needs a multiple of 8, such as 96"):
        build_body("encoder_decoder", 3, 100, "avg", "none")


@pytest.mark.parametrize("model", ["mobilenetv2_035", "digits_cnn"])
def test_batch_norm_is_refused_where_a_body_does_not_leave_it_open(model):
    with pytest.raises(InputError, match=f"batch_norm=True: {model} does not leave it open"):
        build_body(model, 3, 32, "avg", "none", batch_norm=True)


def test_a_network_knows_nothing_of_objectives():
    """Which stand above it: they ask for as many outputs as `outputs_for` says."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, trainables.network; print([n for n in sys.modules if 'objectives' in n])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_further_targets_have_outputs_of_their_own():
    config = small_config(dense_widths=(8,))
    alone, _ = network_size(config, channels=1, classes=2)
    assert network_size(config, channels=1, classes=2, further=(2, 7))[0] == alone + (1 + 7) * (8 + 1)


def test_the_last_layers_in_order_of_execution_are_trained():
    frozen = network(small_config(**MOBILENET, unfrozen_layers=2))
    trained = {name for name, parameter in frozen.body.named_parameters() if parameter.requires_grad}
    assert trained == {"conv_head.weight", "bn2.weight", "bn2.bias"}


def test_frozen_batch_norm_keeps_its_statistics_while_training():
    frozen = network(small_config(**MOBILENET, unfrozen_layers=2))
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers() if "running" in name}
    frozen.train()
    frozen(torch.randn(4, 3, 32, 32))
    changed = {name for name, buffer in frozen.named_buffers() if name in before and not buffer.equal(before[name])}
    assert changed == {"body.bn2.running_mean", "body.bn2.running_var"}


@pytest.mark.parametrize("model", ["visformer_tiny", "convnext_atto", "vit_tiny_patch16_224", "levit_128s"])
def test_trained_layers_train_and_frozen_ones_do_not_wherever_their_parents_have_parameters(model):
    config = small_config(model=model, image_size_px=64, unfrozen_layers=20)
    training = network(config).train()
    for layer in training.modules():
        own = [parameter.requires_grad for parameter in layer.parameters(recurse=False)]
        if own:
            assert layer.training == any(own)


@pytest.mark.parametrize("model", ["efficientvit_b0", "deit_tiny_patch16_224", "tiny_vit_5m_224", "mixer_s32_224"])
def test_backbones_take_the_image_size_as_they_can(model):
    size = 224 if "mixer" in model else 64
    body = pristine_body(small_config(model=model, image_size_px=size), 3, "none", 0)
    assert body.module(torch.zeros(1, 3, size, size)).shape == (1, body.features)


def test_a_size_that_a_backbone_cannot_take_is_refused():
    with pytest.raises(InputError, match="crossvit_tiny_240 cannot take images of 50 px"):
        build_body("crossvit_tiny_240", 3, 50, "avg", "none")


def test_a_vision_transformer_freezes_its_embeddings_with_its_first_layer():
    config = small_config(model="vit_tiny_patch16_224", image_size_px=32, unfrozen_layers=3, dense_widths=())
    body = network(config).body
    trained = {name for name, parameter in body.named_parameters() if parameter.requires_grad}
    assert "pos_embed" not in trained
    assert trained == {
        f"{layer}.{part}"
        for layer in ("fc_norm", "blocks.11.mlp.fc2", "blocks.11.mlp.fc1")
        for part in ("weight", "bias")
    }


CUTS = [
    ("mobilenetv1_100", 26, 2_932_224, 3_206_976),
    ("vgg16", 7, 13_569_280, 14_714_688),
    ("vgg19", 12, 19_764_224, 20_024_384),
    ("efficientnet_b0", 42, 3_155_740, 4_007_548),
    ("mobilenetv2_100", 14, 1_206_080, 2_223_872),
    ("mobilenetv2_100", 13, 1_052_480, 2_223_872),  # `layers[:135]` frozen where Keras counts 154
    ("mobilenetv2_100", 8, 886_080, 2_223_872),
    ("mobilenetv2_100", 36, 1_861_440, 2_223_872),
    # Keras' batch norm has no scale here, 3,456 fewer in these layers and 17,216 in all: 6,073,728 of 21,768,352.
    ("inception_v3", 19, 6_073_728 + 3_456, 21_768_352 + 17_216),
    # Keras' convolutions have biases here, 17,408 in these layers and 26,560 in all: 19,452,928 of 23,534,592.
    ("resnet50", 45, 19_452_928 - 17_408, 23_534_592 - 26_560),
]


@pytest.mark.parametrize(("model", "unfrozen_layers", "trainable", "total"), CUTS)
def test_the_cuts_of_the_reports_train_as_many_parameters_as_in_keras(model, unfrozen_layers, trainable, total):
    """The last 40 of Keras' layers of MobileNet, 10 of VGG16, 15 of VGG19, 75 of EfficientNetB0, 40 of InceptionV3, 75
    of ResNet50, where activations and paddings count as layers."""
    body = frozen_body(small_config(model=model, image_size_px=96, unfrozen_layers=unfrozen_layers), 3, "none", 0)
    assert parameter_counts(body.module) == (trainable, total)


def test_the_tuned_head_of_blood_cells_has_the_published_size():
    """Of kamaneh2024: a dense layer has a bias before batch norm as well in Keras, and in torch has none."""
    tuned = small_config(
        model="mobilenetv1_100",
        image_size_px=96,
        unfrozen_layers=0,
        dense_widths=(832, 320),
        dense_batch_norm=True,
        dropout=0.3,
        last_dropout=0.1,
        defaults="keras",
    )
    assert network_size(tuned, channels=3, classes=8) == (1_124_232, 1_124_232 + 3_206_976)
    head = build_head(tuned, 1024, 8, seed=0)
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.3, 0.1]
    as_torch = dataclasses.replace(tuned, defaults="torch")
    assert network_size(as_torch, channels=3, classes=8)[0] == 1_124_232 - 832 - 320


def test_a_flattened_vgg_has_the_published_size():
    """CM2003: the convolutions of VGG16, flattened at 224 px, and a dense layer of 128."""
    config = small_config(
        model="vgg16", image_size_px=224, pooling="flatten", dense_widths=(128,), dropout=0.5, unfrozen_layers=0
    )
    assert network_size(config, channels=3, classes=2) == (3_211_521, 3_211_521 + 14_714_688)


@pytest.mark.parametrize("model", ["mobilenetv2_035", "resnet18", "vit_tiny_patch16_224"])
def test_flattened_features_are_the_whole_map(model):
    config = small_config(model=model, image_size_px=64, pooling="flatten", dense_widths=(), unfrozen_layers=2)
    flattened = network(config).eval()
    parts = cut(flattened.body, (3, 64, 64))
    assert parts is not None
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        linear = flattened.head[-1]
        expected = linear(flattened.body.forward_features(images).flatten(1))
        assert flattened(images).equal(expected)
        assert flattened.head(parts[1](parts[0](images))).equal(expected)


def test_the_last_dropout_belongs_to_the_last_dense_layer():
    with pytest.raises(InputError, match=r"last_dropout=0\.1: must be None without dense_widths"):
        small_config(dense_widths=(), last_dropout=0.1)
    usual = build_head(small_config(dense_widths=(8, 8), dropout=0.3), 9, 2, seed=0)
    assert [layer.p for layer in usual if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_the_head_has_the_asked_for_layers():
    head = build_head(small_config(dense_widths=(64, 32), dense_batch_norm=True, dropout=0.3), 100, 5, seed=0)
    assert [type(layer).__name__ for layer in head] == [*["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2, "Linear"]
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [64, 32, 5]
    assert [type(layer).__name__ for layer in build_head(small_config(dense_widths=()), 9, 2, seed=0)] == [
        "Dropout",
        "Linear",
    ]


def test_bodies_and_heads_are_reproducible_and_do_not_touch_the_global_generator():
    config = small_config(**MOBILENET)
    state = torch.get_rng_state()
    first, again = network(config), network(config)
    assert torch.get_rng_state().equal(state)
    assert weights_digest(first.state_dict()) == weights_digest(again.state_dict())
    first.body.conv_stem.weight.data += 1
    assert weights_digest(first.state_dict()) != weights_digest(network(config).state_dict()), (
        "the pristine body must not be shared"
    )


@pytest.mark.parametrize(("pooling", "reduced"), [("avg", torch.mean), ("max", torch.amax)])
def test_pooling_is_the_asked_for_one(pooling, reduced):
    body = pristine_body(small_config(**MOBILENET, pooling=pooling), 3, "none", 0).module.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(body(images), reduced(body.forward_features(images), dim=(2, 3)))


def test_a_backbone_sees_its_own_normalisation_and_not_pixels_from_0_to_1():
    """kamaneh2024 gave 0 to 1 to networks that expect something else: ResNet50 reached 28 %, MobileNet 95 %."""
    dataset = small_dataset(channels=3)
    for model in ("mobilenetv2_035", "inception_v3.tf_in1k", "vit_tiny_patch16_224.augreg_in21k", "efficientnet_b0"):
        published = timm.get_pretrained_cfg(model)
        body = build_body(model, 3, 96, "avg", "none")
        assert (body.mean, body.std) == (published.mean, published.std)
        shown = pixels(dataset, 16)
        seen, _ = pixel_fetch(shown, np.zeros(len(shown)), body, "cpu")(torch.arange(len(shown)))
        expected = (shown / 255 - published.mean) / published.std
        torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float32).permute(0, 3, 1, 2))


def test_backbones_are_normalised_as_their_own_configuration_says():
    imagenet = build_body("mobilenetv2_100", 3, 32, "avg", "none")
    assert (imagenet.mean, imagenet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    inception = build_body("inception_v3.tf_in1k", 3, 96, "avg", "none")
    assert (inception.mean, inception.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for channels in (1, 2):
        body = build_body("mobilenetv2_100", channels, 32, "avg", "none")
        assert body.mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
        assert body.module.eval()(torch.zeros(1, channels, 32, 32)).shape == (1, body.features)


def test_weights_come_from_a_file_and_must_fit(tmp_path):
    body = build_body("mobilenetv2_035", 3, 32, "avg", "none").module
    save_file(body.state_dict(), tmp_path / "right.safetensors")
    loaded = build_body("mobilenetv2_035", 3, 32, "avg", str(tmp_path / "right.safetensors")).module
    assert weights_digest(loaded.state_dict()) == weights_digest(body.state_dict())

    save_file({"other": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    (tmp_path / "no.safetensors").write_text("not one")
    for file, says in (
        ("wrong", "not the weights of mobilenetv2_035"),
        ("no", "not a safetensors file"),
        ("gone", "no such file"),
    ):
        with pytest.raises(InputError, match=says):
            build_body("mobilenetv2_035", 3, 32, "avg", str(tmp_path / f"{file}.safetensors"))


def test_weights_that_cannot_be_fetched_name_the_two_ways_on(monkeypatch):
    import timm

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"--weights FILE\.safetensors") as error:
        build_body("mobilenetv2_100", 3, 224, "avg", "imagenet")
    assert "--weights none" in str(error.value)


def test_unknown_models_and_images_that_vanish_are_refused():
    with pytest.raises(InputError, match="unknown model 'mobilnetv2_100'; did you mean 'mobilenetv2_100'"):
        build_body("mobilnetv2_100", 3, 224, "avg", "none")
    with pytest.raises(InputError, match="at least 70"):
        build_body("svendsen_cnn", 3, 69, "avg", "none")
    assert build_body("svendsen_cnn", 3, 70, "avg", "none").module(torch.zeros(1, 3, 70, 70)).shape == (1, 128)


def test_a_network_of_which_nothing_is_trained_stays_as_it_is():
    frozen = network(small_config(**MOBILENET, unfrozen_layers=0))
    frozen.requires_grad_(False)
    frozen.train()
    assert not any(layer.training for layer in frozen.body.modules())
