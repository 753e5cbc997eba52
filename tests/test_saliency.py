"""Grad-CAM: where a network sees a class, on any body that keeps places."""

import numpy as np
import pytest
import torch
from torch import nn

from datasets import InputError
from trainables.models import build_body
from trainables.network import Network
from trainables.saliency import last_map, saliency


class Spots(nn.Module):
    """Three maps of features, each half as large as the image: what is bright in each channel."""

    def __init__(self, channels_last: bool = False):
        super().__init__()
        self.bright = nn.Sequential(nn.AvgPool2d(2), nn.ReLU())
        self.channels_last = channels_last
        if channels_last:
            self.output_fmt = "NHWC"
            self.turned = Turned()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        found = self.bright(x_BCHW)
        return self.turned(found).mean((1, 2)) if self.channels_last else found.mean((2, 3))


class Turned(nn.Module):
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.permute(0, 2, 3, 1)


def spotted(outputs: int, channels_last: bool = False) -> tuple[Network, torch.Tensor]:
    """A network whose class is the channel that is bright, and an image whose channel 1 is, in one place."""
    head = nn.Linear(3, outputs, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3)[:outputs] if outputs > 1 else torch.tensor([[0.0, 1.0, 0.0]]))
    image = torch.zeros(1, 3, 16, 16)
    image[0, 1, 4:6, 10:12] = 1
    return Network(Spots(channels_last), head).eval(), image


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_speaks_for_a_class_is_found_where_it_is(channels_last):
    network, image = spotted(3, channels_last)
    (found,) = saliency(network, image, torch.tensor([1]))
    assert found.shape == (16, 16)
    assert found.dtype == np.float32
    assert np.unravel_index(found.argmax(), found.shape) in {(y, x) for y in (4, 5) for x in (10, 11)}
    assert found[8:].max() == 0
    assert found[:, :6].max() == 0
    assert saliency(network, image, torch.tensor([0])).max() == 0


def test_one_logit_speaks_for_the_second_of_two_classes_and_against_the_first():
    network, image = spotted(1)
    for_second, for_first = saliency(network, image.repeat(2, 1, 1, 1), torch.tensor([1, 0]))
    assert for_second.max() > 0
    assert for_first.max() == 0


def test_of_several_targets_the_chosen_logits_count():
    network, image = spotted(3)
    assert saliency(network, image, torch.tensor([0]), slice(1, 3)).max() > 0
    assert saliency(network, image, torch.tensor([1]), slice(1, 3)).max() == 0


def test_it_is_gradcam_as_published():
    """Selvaraju et al. 2017, equations 1 and 2: channels weighted by their mean gradient, then ReLU."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    rest = nn.Sequential(nn.Conv2d(4, 5, 8), nn.Flatten(), nn.Tanh(), nn.Linear(5, 3))
    network = Network(layer, rest).eval()
    images, classes = torch.randn(40, 1, 8, 8), torch.arange(40) % 3  # more than go through at once
    maps = layer(images).detach().requires_grad_()
    evidence = rest(maps).gather(1, classes[:, None]).sum()
    weights = torch.autograd.grad(evidence, maps)[0].mean((2, 3), keepdim=True)
    expected = (weights * maps).sum(1).relu().detach()
    np.testing.assert_allclose(saliency(network, images, classes), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "size_px", "layer", "side"),
    [
        ("digits_cnn", 16, "body.9", 8),
        ("residual", 32, "body.11", 8),
        ("test_resnet", 64, "body.layer4", 2),
        ("test_vit", 64, "body.norm", 4),
    ],
)
def test_the_last_map_of_convolutional_and_of_transformer_bodies_is_found(model, size_px, layer, side):
    body = build_body(model, 3, size_px, "avg", "none")
    network = Network(body.module, nn.Linear(body.features, 3)).eval()
    images = torch.randn(2, 3, size_px, size_px)
    place = last_map(network, images[:1])
    assert (place.name, place.side) == (layer, side)
    before, trained = network(images), [parameter.requires_grad for parameter in network.parameters()]
    found = saliency(network, images, torch.tensor([0, 2]))
    assert found.shape == (2, size_px, size_px)
    assert found.min() >= 0
    assert np.isfinite(found).all()
    assert found.max() > 0
    assert torch.equal(network(images), before), "the network is as it was"
    assert [parameter.requires_grad for parameter in network.parameters()] == trained


def test_a_network_without_places_is_refused():
    body = build_body("mlp", 1, 16, "avg", "none")
    with pytest.raises(InputError, match="keeps no map"):
        saliency(Network(body.module, nn.Linear(body.features, 1)).eval(), torch.zeros(1, 1, 16, 16), torch.tensor([1]))
