"""Cutting: in every family of backbones a prefix and the tail after it compute, and train, what the whole body does."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.cutting import between, cut, places
from trainables.models import build_body
from trainables.network import Network, execution_order, freeze, parameter_counts
from trainables.tracing import trace

FAMILIES = {
    "eva02_tiny_patch14_224": 28,
    "mobilenetv1_100": 32,
    "mobilenetv2_035": 32,
    "mobilenetv3_small_050": 32,
    "mobilenetv4_conv_small": 32,
    "mnasnet_050": 32,
    "ghostnet_050": 32,
    "lcnet_035": 32,
    "test_efficientnet": 32,
    "tf_efficientnetv2_b0": 32,
    "efficientnet_lite0": 32,
    "vgg11_bn": 32,
    "test_resnet": 32,
    "resnetv2_18": 32,
    "legacy_seresnet18": 32,
    "regnety_002": 32,
    "densenet121": 32,
    "dpn48b": 32,
    "dla46_c": 32,
    "hrnet_w18_small": 32,
    "test_nfnet": 32,
    "repvgg_a0": 32,
    "test_convnext": 32,
    "test_convnext2": 32,
    "test_mambaout": 32,
    "poolformer_s12": 32,
    "starnet_s050": 32,
    "test_vit": 32,
    "deit_tiny_patch16_224": 32,
    "swin_tiny_patch4_window7_224": 32,
    "xcit_nano_12_p16_224": 32,
    "pvt_v2_b0": 32,
    "visformer_tiny": 32,
    "efficientvit_b0": 32,
    "tiny_vit_5m_224": 32,
    "mobilevit_xxs": 32,
    "edgenext_xx_small": 32,
    "test_coatnet": 64,
    "test_maxvit": 64,
    "efficientvit_m0": 64,
    "resnext26ts": 64,
    "inception_v3": 75,
    "levit_128s": 224,
    "mixer_s32_224": 224,
}
"""The smallest of each family, and an image size that it takes."""
QUICK = (
    "mobilenetv2_035",
    "test_efficientnet",
    "test_resnet",
    "densenet121",
    "test_convnext",
    "test_vit",
    "test_maxvit",
)


def learned(body: nn.Module, network: nn.Module, inputs: torch.Tensor) -> dict[str, Any]:
    """What a step in training mode gives: features, gradients of the body's parameters, and its running statistics,
    which are then as they were."""
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    features = Network(network, nn.Identity()).train()(inputs)
    (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    found = {name: parameter.grad for name, parameter in body.named_parameters() if parameter.grad is not None}
    found |= {f"{name} after": tensor.clone() for name, tensor in body.named_buffers()}
    body.zero_grad()
    body.load_state_dict(before)
    body.eval()
    return found | {"features": features.detach()}


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=[pytest.mark.slow] * (model not in QUICK)) for model in FAMILIES]
)
def test_prefix_and_tail_are_the_whole(model):
    """Exactly in evaluation, for any number of images; up to rounding in training."""
    shape = (3, FAMILIES[model], FAMILIES[model])
    body = build_body(model, *shape[:2], "avg", "none").module
    graph = trace(body, shape)
    images = torch.randn(3, *shape)
    layers = sum(any(True for _ in layer.parameters(recurse=False)) for layer in execution_order(body, images[:1]))
    with torch.no_grad():
        one, three = body(images[:1]), body(images)
    ends = []
    for unfrozen_layers in (0, 2, layers // 2):
        freeze(body, unfrozen_layers, shape)
        found = places(body, shape, graph)
        ends.append(found[-1])
        prefix, tail = between(body, None, found[-1]), between(body, found[-1], None)
        assert parameter_counts(prefix)[0] == 0
        assert parameter_counts(tail)[0] == parameter_counts(body)[0]
        with torch.no_grad():
            features = prefix(images)
            assert features.shape[1:] == found[-1].shape
            assert tail(features).equal(three)
        if unfrozen_layers:
            torch.testing.assert_close(learned(body, tail, features), learned(body, body, images))
    assert ends[1] != ends[0], "a head alone is cut at the end"
    with torch.no_grad():
        assert tail(prefix(images[:1])).equal(one)
        nearer = found[len(found) // 2]
        assert between(body, nearer, found[-1])(between(body, None, nearer)(images)).equal(features)


class Steps(nn.Module):
    """A convolution, what is given, and a linear layer."""

    def __init__(self, between: nn.Module):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.between = between
        self.last = nn.LazyLinear(2)

    def forward(self, images):
        return self.last(self.between(self.first(images)).flatten(1))


class Counting(nn.Module):
    """Its sizes have the number of images in them, in all the ways in which networks of timm come to it."""

    def forward(self, maps):
        number, channels, height, width = maps.shape
        tokens = maps.reshape(number, channels, height * width).mT
        tokens = torch.cat([torch.ones(1, 1, channels, device=maps.device).expand(number, -1, -1), tokens], 1)
        heads = tokens.reshape(2 * number, -1, 2) + torch.zeros(2 * len(maps), 1, 1, device=maps.device)
        windows = heads.view(heads.shape[0] // 2, -1, channels)
        first, *_ = windows.transpose(0, 1)
        return windows + first[:, None]


class InPlace(nn.Module):
    """Changes what it was given and what it made, through views as well."""

    def forward(self, maps):
        mask = torch.zeros(maps.shape[-2:], device=maps.device)
        mask[1:, ::2] = 2
        shortcut = maps
        maps = F.relu(maps * mask)
        maps += shortcut
        maps.flatten(2)[:, 0].mul_(3)
        return maps


class AskingForTheType(nn.Module):
    def forward(self, maps):
        return maps.float().exp().to(maps.dtype)


class WithoutMixedPrecision(nn.Module):
    def forward(self, maps):
        with torch.autocast("cpu", enabled=False):
            return maps.float() @ maps.float().mT


class DecidingOnValues(nn.Module):
    def forward(self, maps):
        maps.mul_(3)
        return maps if maps.sum() > 0 else -maps


MODULES = [Counting(), InPlace(), AskingForTheType(), WithoutMixedPrecision(), DecidingOnValues()]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_whatever_python_does_with_sizes_and_values_is_traced_or_one_step(module):
    body = Steps(module).eval()
    body(torch.zeros(1, 3, 6, 6))
    images = torch.randn(3, 3, 6, 6)
    freeze(body, 1, (3, 6, 6))
    place = places(body, (3, 6, 6))[-1]
    assert place.name.startswith("flatten")
    with torch.no_grad():
        assert between(body, place, None)(between(body, None, place)(images)).equal(body(images))
        with torch.autocast("cpu", torch.bfloat16):
            assert between(body, place, None)(between(body, None, place)(images)).equal(body(images))


@pytest.mark.parametrize(
    ("module", "one_step"),
    [(module, index > 1) for index, module in enumerate(MODULES)],
    ids=lambda given: type(given).__name__,
)
def test_only_what_cannot_be_traced_further_is_one_step(module, one_step):
    body = Steps(module).eval()
    body(torch.zeros(1, 3, 6, 6))
    assert ("between" in {node.target for node in trace(body, (3, 6, 6)).nodes}) == one_step


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_there_is_no_place_whose_features_a_later_step_would_change(activation):
    """They may lie in a store."""
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3), activation(inplace=True), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    freeze(body, 1, (3, 6, 6))
    assert [place.name for place in places(body, (3, 6, 6))] == ["_1", "_2", "_3"]


def test_a_parameter_that_is_trained_outside_of_any_layer_is_behind_the_cut():
    body = build_body("test_vit", 3, 32, "avg", "none").module.requires_grad_(False)
    body.pos_embed.requires_grad_(True)
    prefix, tail, _ = cut(body, (3, 32, 32))
    assert "patch_embed.proj.weight" in dict(prefix.named_parameters())
    assert "pos_embed" not in dict(prefix.named_parameters())
    assert parameter_counts(tail)[0] == body.pos_embed.numel()


class DropsOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, features):
        return self.dropout(features) + 10 * features


def test_dropout_is_of_its_own_input_only():
    """In evaluation, in which a body is traced, what it gives is what it is given."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Linear(8, 8), DropsOut())
    freeze(body, 1, (3, 2, 2))
    parts = cut(body, (3, 2, 2))
    assert parts is not None
    features = torch.randn(4, 8)
    whole, tail = body[2:].train(), parts[1].train()
    torch.manual_seed(0)
    expected = whole(features)
    torch.manual_seed(0)
    assert tail(features).equal(expected)


def test_tracing_leaves_the_body_as_it_was():
    body = build_body("mobilenetv2_035", 3, 32, "avg", "none").module
    before = {name: (id(tensor), tensor.clone()) for name, tensor in body.state_dict(keep_vars=True).items()}
    trace(body, (3, 32, 32))
    for name, tensor in body.state_dict(keep_vars=True).items():
        assert (id(tensor), tensor.device.type) == (before[name][0], "cpu")
        assert tensor.equal(before[name][1])
    assert not any("forward" in vars(module) or module._forward_hooks for module in body.modules())


class Undecided(nn.Module):
    """Its own Python decides on values, so there is nothing that can be one step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        features = self.layer(images).mean((2, 3))
        return features if features.sum() > 0 else -features


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images):
        return self.last(self.one(images)) + self.other(images)


@pytest.mark.parametrize("body", [Undecided(), TwoBranches()], ids=lambda body: type(body).__name__)
def test_why_a_body_is_trained_whole_is_said_once(body, caplog):
    freeze(body, 1 if isinstance(body, TwoBranches) else 0, (3, 8, 8))
    with caplog.at_level(logging.WARNING):
        assert places(body, (3, 8, 8)) == places(body, (3, 8, 8)) == []
    (said,) = caplog.messages
    assert said.startswith(f"{type(body).__name__} cannot be cut (")


def test_nothing_frozen_means_nothing_to_cut(caplog):
    assert places(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), (3, 8, 8)) == []
    assert caplog.messages == []


def test_modules_are_in_the_order_of_their_first_calls():
    shared = nn.ReLU()
    body = nn.Sequential(nn.Linear(3, 3), nn.Sequential(shared, nn.Dropout(), shared), nn.Linear(3, 2))
    inner = body[1]
    assert execution_order(body, torch.zeros(1, 3)) == [body, body[0], inner, shared, inner[1], body[2]]
    assert not any(module._forward_pre_hooks for module in body.modules())
