"""Where random numbers come from: torch's generators, seeded anew for everything that is drawn."""

import numpy as np
import torch


def epoch_seed(seed: int, fold: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, fold, epoch]).generate_state(1)[0])


def seed_generators(seed: int, device: str = "cpu") -> None:
    """As `torch.manual_seed`, but of a GPU only where one is computed on: without, that takes a hundred times as long,
    as it notes every seed for a GPU that may yet come."""
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)


def generator_states(device: str) -> list[torch.Tensor]:
    """Of torch's own generators, on the CPU: of the CPU, and of a GPU where one is computed on."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]


def set_generator_states(states: list[torch.Tensor]) -> None:
    """What `generator_states` told; nothing where that is nothing."""
    for state, put in zip(states, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False):
        put(state)
