"""One fold: a network trained on some images of the data set and asked about the others.

Shapes: B images of a batch, T targets, V validation images, P columns of predictions.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from trainables.balance import classes_of, epoch_order, loss_weights, weighted_mean
from trainables.config import TrialConfig
from trainables.images import EVALUATION_BATCH, Fetch
from trainables.objectives import Objective
from trainables.protocol import Protocol

PLATEAU_EPOCHS = 3
"""Of no improvement, before the plateau schedule halves the rate."""


class Fold:
    """Trains epoch by epoch. Its state after an epoch is its network and its optimizer: everything random in an epoch
    is drawn from (seed, fold, epoch), so going on from a checkpoint is exact."""

    def __init__(
        self,
        index: int,
        network: nn.Module,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        objective: Objective,
        config: TrialConfig,
        protocol: Protocol,
    ):
        self.network = network
        self.validation_rows = torch.from_numpy(validation_rows)
        self._index = index
        self._train_rows = torch.from_numpy(train_rows)
        self._train_classes = classes_of(objective.labels[train_rows])
        self._weights = loss_weights(config, objective.labels, train_rows)
        self._shares = torch.tensor(objective.shares, device=protocol.device)
        self._objective = objective
        self._config = config
        self._protocol = protocol
        self._optimizer = _optimizer(config, network)

    def train(self, epoch: int, fetch: Fetch, halvings: int) -> float:
        """Train one epoch, counted from 1. Returns the mean loss; not finite when training has diverged.

        halvings: how often the plateau schedule has halved the rate before this epoch.
        """
        config = self._config
        torch.manual_seed(epoch_seed(self._protocol.seed, self._index, epoch))
        self.network.train()
        order, augmented = epoch_order(config, self._train_rows, self._train_classes)
        weights = self._weights[order].to(self._shares.device)  # once: a copy in every step would hold up a GPU
        batches = list(zip(*(each.split(config.batch_size) for each in (order, augmented, weights)), strict=True))
        if config.batch_size > 1 and len(batches) > 1 and len(batches[-1][0]) == 1:
            batches.pop()  # batch norm cannot learn from one image
        loss_sum = torch.zeros((), device=weights.device)
        for step, (rows, to_augment, weights_BT) in enumerate(batches):
            self._set_learning_rate(epoch - 1 + step / len(batches), halvings)
            inputs, targets = fetch(rows, to_augment)
            with autocast(self._protocol):
                logits = self.network(inputs)
            losses_BT = self._objective.losses(logits.float(), targets)
            loss = weighted_mean(config, losses_BT, weights_BT) @ self._shares
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            loss_sum += loss.detach() * len(rows)
        return float(loss_sum) / sum(len(rows) for rows, *_ in batches)

    @torch.inference_mode()
    def predict(self, fetch: Fetch) -> np.ndarray:
        """What the objective keeps of the validation images, float32 (V, P)."""
        self.network.eval()
        predictions = []
        for rows in self.validation_rows.split(EVALUATION_BATCH):
            inputs, targets = fetch(rows)
            with autocast(self._protocol):
                logits = self.network(inputs)
            predictions.append(self._objective.predictions(logits.float(), targets).cpu())
        return torch.cat(predictions).numpy()

    @property
    def learning_rate(self) -> float:
        return self._optimizer.param_groups[0]["lr"]

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the network's parameters and statistics, on the CPU."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _set_learning_rate(self, epochs_done: float, halvings: int) -> None:
        factor = learning_rate_factor(self._config, epochs_done, self._protocol.max_epochs) * 0.5**halvings
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * factor


def learning_rate_factor(config: TrialConfig, epochs_done: float, max_epochs: int) -> float:
    """Linear warm-up, then constant or a half cosine down to zero at the last epoch (Loshchilov and Hutter 2017, eq. 5,
    without restarts). `epochs_done` counts fractions of the running epoch."""
    if epochs_done < config.warmup_epochs:
        return max(epochs_done, 0.01) / config.warmup_epochs
    if config.schedule != "cosine":
        return 1.0
    progress = (epochs_done - config.warmup_epochs) / max(max_epochs - config.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def plateau_halvings(losses: list[float]) -> int:
    """How often a rate has been halved after these mean validation losses, one per epoch: once per `PLATEAU_EPOCHS`
    epochs in a row without a loss below the lowest so far."""
    halvings, waited, lowest = 0, 0, math.inf
    for loss in losses:
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        if waited == PLATEAU_EPOCHS:
            halvings, waited = halvings + 1, 0
    return halvings


def epoch_seed(seed: int, fold: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, fold, epoch]).generate_state(1)[0])


def compute_dtype(protocol: Protocol) -> torch.dtype:
    """bfloat16 where the protocol asks for it, or leaves it to hardware that computes in it; else float32."""
    if protocol.precision == "auto":
        if protocol.device == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if protocol.precision == "bfloat16" else torch.float32


def autocast(protocol: Protocol) -> torch.autocast:
    return torch.autocast(protocol.device, torch.bfloat16, enabled=compute_dtype(protocol) is torch.bfloat16)


def _optimizer(config: TrialConfig, network: nn.Module) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, config.learning_rate, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(trained, config.learning_rate, weight_decay=config.weight_decay)
