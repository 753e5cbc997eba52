"""Models: exact sizes, what they leave open, and that each can be trained."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import trainables.models
from datasets import InputError
from tests.small import small_config, small_dataset, small_folds, small_protocol, small_segmentation
from trainables.config import TrialConfig
from trainables.cutting import cut
from trainables.lockstep import Lockstep
from trainables.models import OPTIONS, build_body, options_of
from trainables.models.residual import BasicBlock
from trainables.network import Network, build_head, frozen_body, network_size, parameter_counts, pristine_body

OWN = sorted(file.stem for file in Path(trainables.models.__file__).parent.glob("[a-z]*.py"))
DENSE = ("encoder_decoder", "unet")
KTH = {"model": "kth_alexnet", "image_size_px": 128, "dense_widths": (64, 64)}
VGG = {"model": "kth_vgg", "image_size_px": 128, "dense_widths": (64, 64, 64)}
MNIST = {"model": "tsouderos_cnn", "image_size_px": 28, "dense_widths": ()}
UNET = {"image_size_px": 32, "dense_widths": ()}


@pytest.mark.parametrize(
    ("params", "channels", "outputs", "total"),
    [
        ({"model": "mlp", "image_size_px": 28, "dense_widths": (256, 128)}, 1, 10, 235_146),
        ({"model": "mlp", "image_size_px": 28, "dense_widths": (100,)}, 1, 10, 79_510),
        (MNIST, 1, 10, 21_578),
        ({**MNIST, "batch_norm": True}, 1, 10, 21_690),
        ({**MNIST, "batch_norm": True, "pool_first": True, "activation": "sigmoid"}, 1, 10, 21_690),
        ({"model": "asproudis_cnn", "image_size_px": 32, "dense_widths": (256,)}, 3, 10, 666_986),
        ({"model": "asproudis_mura_cnn", "image_size_px": 224, "dense_widths": (128,)}, 3, 1 + 8, 12_940_041),
        (KTH, 1, 1, 286_193),
        ({**KTH, "batch_norm": True}, 1, 1, 286_401),
        ({**KTH, "width": 16}, 1, 1, 607_265),
        ({**KTH, "width": 16, "batch_norm": True}, 1, 1, 607_681),
        ({**KTH, "width": 32}, 1, 1, 1_366_913),
        ({**KTH, "width": 32, "batch_norm": True, "body_dropout": 0.1}, 1, 1, 1_367_745),
        ({**KTH, "width": 64}, 1, 1, 3_356_225),
        ({**KTH, "width": 64, "batch_norm": True}, 1, 1, 3_357_889),
        ({**KTH, "width": 64, "dense_widths": (128, 64)}, 1, 1, 5_457_537),
        ({**KTH, "width": 64, "dense_widths": (128, 64), "batch_norm": True}, 1, 1, 5_459_201),
        ({**KTH, "width": 64, "dense_widths": (128, 64)}, 3, 1, 5_458_689),
        ({**KTH, "width": 64, "dense_widths": (128, 64), "batch_norm": True}, 3, 1, 5_460_353),
        (VGG, 1, 1, 304_409),
        ({**VGG, "width": 16}, 1, 1, 1_060_017),
        ({**VGG, "width": 64}, 1, 1, 15_246_273),
        (VGG, 3, 2, 304_618),
        ({"model": "residual", "image_size_px": 32, "dense_widths": ()}, 3, 10, 272_474),
        ({"model": "unet_classifier", **UNET}, 3, 8, 31_032_200),
        ({"model": "unet", **UNET}, 1, 1, 31_030_593),
    ],
)
def test_models_have_the_published_sizes(params, channels, outputs, total):
    config = small_config(**params)
    body = pristine_body(config, channels, weights="none", seed=0)
    head = build_head(config, body.features, outputs, seed=0, dense=body.dense)
    assert parameter_counts(Network(body.module, head)) == (total, total)


@pytest.mark.parametrize(
    ("params", "channels", "outputs", "total"),
    [
        ({**KTH, "batch_norm": True}, 1, 1, 286_609),
        ({**KTH, "batch_norm": True, "width": 16}, 1, 1, 608_097),
        ({**KTH, "batch_norm": True, "width": 32}, 1, 1, 1_368_577),
        ({**KTH, "batch_norm": True, "width": 64}, 1, 1, 3_359_553),
        ({**KTH, "batch_norm": True, "width": 64, "dense_widths": (128, 64)}, 1, 1, 5_460_865),
        ({"model": "asproudis_cnn", "image_size_px": 32, "dense_widths": (256,)}, 3, 10, 667_434),
        ({"model": "mobilenetv2_100", "image_size_px": 224, "dense_widths": (128,)}, 3, 1, 2_422_081),
        (
            {
                "model": "mobilenetv1_100",
                "image_size_px": 96,
                "dense_widths": (832, 320),
                "dense_batch_norm": True,
                "defaults": "keras",
            },
            3,
            8,
            4_355_400,
        ),
    ],
)
def test_with_running_statistics_models_have_the_total_that_keras_prints(params, channels, outputs, total):
    config = small_config(**params)
    body = pristine_body(config, channels, weights="none", seed=0)
    network = Network(body.module, build_head(config, body.features, outputs, seed=0))
    statistics = sum(values.numel() for name, values in network.named_buffers() if ".running_" in name)
    assert parameter_counts(network)[1] + statistics == total


def test_the_mura_network_of_two_targets_has_the_published_size():
    config = small_config(model="asproudis_mura_cnn", image_size_px=224, dense_widths=(128,))
    assert network_size(config, channels=3, classes=2, further=(8,)) == (12_940_041, 12_940_041)


@pytest.mark.parametrize("unfrozen_layers", [None, 0, 1, 4])
@pytest.mark.parametrize("model", OWN)
def test_prefix_and_tail_compute_what_an_own_body_does(model, unfrozen_layers):
    size = 96 if model == "svendsen_cnn" else 32
    body = frozen_body(small_config(model=model, image_size_px=size, unfrozen_layers=unfrozen_layers), 2, "none", 0)
    images = torch.randn(2, 2, size, size)
    with torch.no_grad():
        features = body.module.eval()(images)
        assert features.shape == (2, body.features, *((size, size) if model in DENSE else ()))
        parts = cut(body.module, (2, size, size))
        if all(parameter.requires_grad for parameter in body.module.parameters()):
            assert parts is None
            assert unfrozen_layers in (None, 4) or model == "mlp"
        else:
            assert parts is not None
            torch.testing.assert_close(parts[1](parts[0](images)), features)


@pytest.mark.parametrize("model", OWN)
def test_every_own_model_trains(model):
    size = {"svendsen_cnn": 72, "kth_vgg": 32}.get(model, 16)
    dataset = small_segmentation(18) if model in DENSE else small_dataset(18)
    width = {"width": 4} if "width" in options_of(model) else {}
    config = small_config(model=model, image_size_px=size, **width)
    protocol = small_protocol(metric="dice" if model in DENSE else "accuracy")
    lockstep = Lockstep(config, dataset, small_folds(dataset, 2), protocol)
    lockstep.advance()
    assert len(lockstep.curve) == 2
    assert all(torch.isfinite(torch.tensor(entry["train_loss"])) for entry in lockstep.curve)


SWITCHED_ON = {
    "batch_norm": True,
    "width": 12,
    "depth": 2,
    "body_dropout": 0.4,
    "activation": "sigmoid",
    "pool_first": True,
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("model", [*OWN, "mobilenetv2_035"])
def test_an_option_changes_a_body_or_is_refused(model, option):
    """And at its default it is always accepted."""
    size = 96 if model == "svendsen_cnn" else 32
    usual = build_body(model, 3, size, "avg", "none", **{name: getattr(TrialConfig, name) for name in OPTIONS})
    given = {option: SWITCHED_ON[option]}
    if option in options_of(model):
        assert str(build_body(model, 3, size, "avg", "none", **given).module) != str(usual.module)
    else:
        with pytest.raises(InputError, match=rf"{option}=.*: {model} does not leave it open .*must be"):
            build_body(model, 3, size, "avg", "none", **given)


@pytest.mark.parametrize("pooling", ["max", "flatten"])
@pytest.mark.parametrize("model", OWN)
def test_a_pooling_that_would_change_nothing_is_refused(model, pooling):
    with pytest.raises(InputError, match=f"pooling='{pooling}': {model} pools as it does; it must be 'avg'"):
        build_body(model, 3, 96, pooling, "none")


def test_a_configuration_names_the_option_that_its_model_does_not_take():
    with pytest.raises(InputError, match=r"depth=3: kth_alexnet does not leave it open \(it has batch_norm, width, "):
        network_size(small_config(**KTH, depth=3), channels=1, classes=2)


def layers_of(**params) -> list[nn.Module]:
    """Without containers."""
    module = pristine_body(small_config(**params), 1, "none", 0).module
    return [layer for layer in module.modules() if not list(layer.children())]


def names_of(layers: list[nn.Module]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_pooling_comes_before_the_activation_where_asked():
    block = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert names_of(layers_of(**MNIST, batch_norm=True))[:4] == block
    block = ["Conv2d", "MaxPool2d", "Sigmoid"]
    assert names_of(layers_of(**MNIST, pool_first=True, activation="sigmoid"))[:3] == block


def test_relu_and_max_pooling_commute():
    """So the exercises 1.2 and 1.3a of tsouderos2024 differ by chance alone."""
    first, second = (
        pristine_body(small_config(**MNIST, pool_first=pool_first), 1, "none", 0).module for pool_first in (False, True)
    )
    images = torch.randn(4, 1, 28, 28)
    assert first(images).equal(second(images))


def test_dropout_stands_where_the_reports_have_it():
    shares = [layer.p for layer in layers_of(model="asproudis_cnn", body_dropout=0.4) if isinstance(layer, nn.Dropout)]
    assert shares == [0.25, 0.25, 0.4]
    alexnet = layers_of(**KTH, batch_norm=True, body_dropout=0.1)
    assert names_of(alexnet)[:5] == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "MaxPool2d"]
    assert [layer.p for layer in alexnet if isinstance(layer, nn.Dropout2d)] == [0.1] * 5
    assert names_of(layers_of(model="asproudis_mura_cnn", body_dropout=0.4))[-2:] == ["Flatten", "Dropout"]


def test_a_network_of_dense_layers_alone_can_be_trained_in_two_phases():
    """It has no body that could be frozen."""
    dataset = small_dataset(18)
    config = small_config(model="mlp", dense_widths=(8,), unfrozen_layers=0, head_epochs=1, body_rate=0.1)
    lockstep = Lockstep(config, dataset, small_folds(dataset, 2), small_protocol())
    while not lockstep.finished:
        lockstep.advance()
    assert lockstep.epoch == 4


def test_dropout_among_frozen_layers_is_switched_off():
    """So that it makes no difference whether the frozen part is computed once or in every epoch."""
    body = frozen_body(small_config(model="asproudis_cnn", body_dropout=0.4, unfrozen_layers=1), 3, "none", 0)
    shares = [layer.p for layer in body.module.modules() if isinstance(layer, nn.Dropout)]
    assert shares == [0.0, 0.0, 0.4]


def test_a_residual_network_has_as_many_layers_as_its_depth_says():
    """6 n + 2, the first convolution and the output among them (He et al. 2016, section 4.2)."""
    for depth in (1, 3):
        layers = [layer for layer in layers_of(model="residual", depth=depth) if isinstance(layer, nn.Conv2d)]
        assert sum(layer.kernel_size == (3, 3) for layer in layers) + 1 == 6 * depth + 2


@pytest.mark.parametrize("size", [16, 17, 50, 128])
def test_a_residual_network_takes_any_size(size):
    body = build_body("residual", 3, size, "avg", "none", width=4, depth=1)
    assert body.module(torch.zeros(2, 3, size, size)).shape == (2, body.features) == (2, 16)


def test_a_unet_sees_far_and_near():
    """A changed pixel reaches the whole map of a small image, and its neighbourhood at full resolution."""
    torch.manual_seed(0)
    body = build_body("unet", 1, 32, "avg", "none", width=4, depth=3).module.eval()
    images = torch.rand(1, 1, 32, 32, requires_grad=True)
    body(images)[0, :, 16, 16].sum().backward()
    seen = images.grad[0, 0].abs()
    assert seen[0, 0] > 0
    assert seen[16, 16] > 10 * seen[0, 0]


@pytest.mark.parametrize(
    ("model", "size", "says"),
    [
        ("digits_cnn", 1, "at least 2"),
        ("tsouderos_cnn", 3, "at least 4"),
        ("asproudis_cnn", 7, "at least 8"),
        ("asproudis_mura_cnn", 7, "at least 8"),
        ("kth_alexnet", 7, "at least 8"),
        ("kth_vgg", 31, "at least 32"),
        ("residual", 15, "at least 16"),
        ("unet", 100, "multiple of 16, such as 96"),
        ("unet_classifier", 100, "multiple of 16, such as 96"),
    ],
)
def test_images_that_a_model_cannot_take_are_refused(model, size, says):
    with pytest.raises(InputError, match=f"image_size_px={size}: {model} needs .*{says}"):
        build_body(model, 3, size, "avg", "none")


def test_keras_defaults_begin_as_keras_does():
    """Glorot's bound is sqrt(6 / (fan in + fan out)), with kernels counted in both."""
    config = small_config(**KTH, batch_norm=True, defaults="keras", dense_batch_norm=True)
    body = pristine_body(config, 1, "none", 0)
    network = Network(body.module, build_head(config, body.features, 1, seed=0))
    convolution = network.body[5]  # of the second block
    assert convolution.weight.abs().max().item() == pytest.approx((6 / (9 * (8 + 16))) ** 0.5, rel=0.01)
    dense = network.head[0]
    assert dense.weight.abs().max().item() == pytest.approx((6 / (4096 + 64)) ** 0.5, rel=0.01)
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    assert len(norms) == 5 + 2


def test_defaults_leave_a_backbone_as_timm_has_it_but_not_its_head():
    config = small_config(model="mobilenetv2_035", image_size_px=32, dense_batch_norm=True)
    keras = small_config(**config.params() | {"defaults": "keras"})
    for parameter, as_keras in zip(
        pristine_body(config, 3, "none", 0).module.state_dict().values(),
        pristine_body(keras, 3, "none", 0).module.state_dict().values(),
        strict=True,
    ):
        assert parameter.equal(as_keras)
    assert not any(
        layer.eps == 1e-3 for layer in pristine_body(keras, 3, "none", 0).module.modules() if hasattr(layer, "eps")
    )
    assert build_head(keras, 100, 2, seed=0)[1].eps == 1e-3
    assert build_head(config, 100, 2, seed=0)[1].eps == 1e-5


def test_torch_and_keras_defaults_differ_and_do_not_touch_the_global_generator():
    state = torch.get_rng_state()
    torchs, kerass = (
        pristine_body(small_config(**MNIST, defaults=defaults), 1, "none", 0).module for defaults in ("torch", "keras")
    )
    assert torch.get_rng_state().equal(state)
    assert torchs[0].bias.any()
    assert not kerass[0].bias.any()


def test_a_narrow_residual_network_survives_its_gradient():
    """A 1 x 1 convolution with a stride did not: it ended the process, so it is tried in one of its own."""
    program = """if True:
        import torch
        from trainables.models import build_body
        torch.set_num_threads(1)
        for width in (8, 12):
            body = build_body("residual", 3, 128, "avg", "none", width=width, depth=1).module
            body.to(memory_format=torch.channels_last)
            images = torch.randn(20, 3, 128, 128).contiguous(memory_format=torch.channels_last)
            for _ in range(4):
                body(images).sum().backward()
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_residual_network_halves_as_a_strided_shortcut_would():
    torch.manual_seed(0)
    block = BasicBlock(4, 8, stride=2).eval()
    images = torch.randn(2, 4, 9, 9)
    strided = nn.functional.conv2d(images, block.shortcut[0].weight, stride=2)
    expected = torch.relu(block.shortcut[1](strided) + block.residual(images))
    torch.testing.assert_close(block(images), expected)
