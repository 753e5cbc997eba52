"""Phases, optimizers and learning rates, against torch's own where it has them."""

import pytest
import torch
from torch import nn

from datasets import InputError
from tests.small import small_config
from trainables.optimisation import layer_shares, learning_rate_factor, optimizer, phases, plateau_decays


def one_weight() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize("decay_epochs", [1, 2, 3])
def test_plateau_decays_when_torchs_scheduler_does(decay_epochs):
    losses = [1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.93, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    sgd = one_weight()
    # torch counts the bad epochs it tolerates, we the one that is too much
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, factor=0.3, patience=decay_epochs - 1, threshold=0, eps=0)
    for epoch, loss in enumerate(losses, 1):
        oracle.step(loss)
        config = small_config(schedule="plateau", gamma=0.3, decay_epochs=decay_epochs)
        decays = plateau_decays(losses[:epoch], decay_epochs)
        assert learning_rate_factor(config, epoch, 14, decays) == pytest.approx(sgd.param_groups[0]["lr"])
    assert decays >= 2


def test_step_is_torchs_step_lr():
    config = small_config(schedule="step", gamma=0.2, decay_epochs=5)
    sgd = one_weight()
    oracle = torch.optim.lr_scheduler.StepLR(sgd, step_size=5, gamma=0.2)
    for epoch in range(20):
        for fraction in (0.0, 0.5, 0.99):
            factor = learning_rate_factor(config, epoch + fraction, 20)
            assert factor == pytest.approx(sgd.param_groups[0]["lr"]), epoch
        sgd.step()
        oracle.step()


def test_steps_are_counted_from_the_end_of_the_warm_up():
    config = small_config(schedule="step", gamma=0.5, decay_epochs=2, warmup_epochs=1.0)
    assert [learning_rate_factor(config, epochs, 9) for epochs in (0.5, 1.0, 2.9, 3.0, 5.0)] == [0.5, 1, 1, 0.5, 0.25]


def test_cosine_warms_up_and_decays_to_zero():
    config = small_config(schedule="cosine", warmup_epochs=2.0)
    factors = [learning_rate_factor(config, epochs, 10) for epochs in (0.0, 1.0, 2.0, 6.0, 10.0)]
    assert factors == pytest.approx([0.005, 0.5, 1.0, 0.5, 0.0])
    assert learning_rate_factor(small_config(warmup_epochs=0.002), 0.0, 10) == 1, "never above the peak"
    assert learning_rate_factor(small_config(), 7.0, 10) == 1.0


def test_a_trial_is_one_phase_or_two_that_make_up_all_epochs():
    (only,) = phases(small_config(), 9)
    assert (only.head_only, only.after, only.epochs) == (False, 0, 9)
    config = small_config(head_epochs=3, head_learning_rate=0.1, head_batch_size=4)
    head, both = phases(config, 9)
    assert (head.head_only, head.first_epoch, head.epochs, head.learning_rate, head.batch_size) == (True, 1, 3, 0.1, 4)
    assert (both.head_only, both.first_epoch, both.epochs) == (False, 4, 6)
    assert (both.learning_rate, both.batch_size) == (config.learning_rate, config.batch_size)
    head, both = phases(config, 2)
    assert (head.epochs, both.epochs) == (1, 1), "the last epoch is for all that is unfrozen"
    (both,) = phases(config, 1)
    assert (both.head_only, both.epochs) == (False, 1)
    head, _ = phases(small_config(head_epochs=1), 2)
    assert (head.learning_rate, head.batch_size) == (config.learning_rate, config.batch_size)


def test_what_is_asked_of_an_optimizer_is_what_it_gets():
    network = nn.Linear(2, 2)
    sgd = optimizer(small_config(optimizer="sgd", momentum=0.3, weight_decay=0.1), 0.5, network.named_parameters(), {})
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.param_groups[0][name] for name in ("lr", "momentum", "weight_decay")] == [0.5, 0.3, 0.1]
    for defaults, epsilon in (("torch", 1e-8), ("keras", 1e-7)):
        for kind in ("adam", "adamw"):
            adam = optimizer(small_config(optimizer=kind, defaults=defaults), 0.5, network.named_parameters(), {})
            assert adam.param_groups[0]["eps"] == epsilon
    network.bias.requires_grad_(False)
    (group,) = optimizer(small_config(), 0.5, network.named_parameters(), {}).param_groups
    assert [parameter is network.weight for parameter in group["params"]] == [True]


class Backwards(nn.Module):
    """Executes its layers in the opposite order of their definition."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.frozen, self.first = (nn.Linear(2, 2) for _ in range(4))
        self.frozen.requires_grad_(False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.frozen(self.first(values))))


def test_layers_have_learning_rates_evenly_spaced_in_the_order_of_execution():
    shares = layer_shares(Backwards(), torch.zeros(1, 2), 0.001)
    assert shares.keys() == {f"{layer}.{name}" for layer in ("first", "middle", "last") for name in ("weight", "bias")}
    assert [shares[f"{layer}.bias"] for layer in ("first", "middle", "last")] == pytest.approx([1e-3, 1e-2, 1e-1])
    assert layer_shares(Backwards(), torch.zeros(1, 2), 1.0) == {}


def test_a_parameter_outside_any_layer_is_of_the_first():
    class Embedded(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2))
            self.position = nn.Parameter(torch.zeros(2))

    shares = layer_shares(Embedded(), torch.zeros(1, 2), 0.01)
    assert shares == pytest.approx({"position": 0.01, "0.weight": 0.1, "0.bias": 0.1})


def test_every_parameter_is_optimised_once_with_its_share():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = optimizer(small_config(), 0.5, network.named_parameters(), {"0.weight": 0.1, "0.bias": 0.1}).param_groups
    found = {id(parameter): group["share"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == 4
    expected = {id(parameter): 0.1 if name[0] == "0" else 1.0 for name, parameter in network.named_parameters()}
    assert found == expected


@pytest.mark.parametrize("given", [{"accumulate": 8}, {"head_batch_size": 1}])
def test_batch_norm_is_not_given_single_images(given):
    with pytest.raises(InputError, match="dense_batch_norm=True: must be False with parts of one image"):
        small_config(dense_batch_norm=True, **given)
