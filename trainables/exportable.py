"""An ensemble as one module of tensors: what other programs can hold."""

from collections.abc import Iterable

import torch
from torch import nn

from trainables.ensemble import Ensemble


class Exportable(nn.Module):
    """Images (B, channels, size, size), 0 to 255, of any type, to probabilities (B, C), of masks (B, C, size, size):
    the mean over some networks of an ensemble, whose parameters then ask for no gradients any more. What their bodies
    share is computed once."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, ensemble: Ensemble, folds: Iterable[int]):
        super().__init__()
        chosen = list(folds)
        prefix, tails = ensemble.parts
        self.prefix = nn.Identity() if prefix is None else prefix
        self.networks = nn.ModuleList(nn.Sequential(tails[fold], ensemble.networks[fold].head) for fold in chosen)
        for name, values in (("mean", ensemble.description.mean), ("std", ensemble.description.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))
        self._probabilities = ensemble.probabilities
        self.requires_grad_(False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features = self.prefix((images_BCHW.float() / 255 - self.mean) / self.std)
        of_networks = [self._probabilities(network(features)) for network in self.networks]
        return torch.stack(of_networks).mean(0)
