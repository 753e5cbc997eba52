"""One fold: a network trained on some images of the data set and asked about the others.

Shapes: B images of a batch, T targets, V validation images, P columns of predictions.
"""

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainables.balance import classes_of, divisor, epoch_order, loss_weights
from trainables.config import TrialConfig
from trainables.images import EVALUATION_BATCH, Fetch
from trainables.mixing import mixed
from trainables.network import Network
from trainables.objectives import Objective
from trainables.optimisation import Phase, average_share, learning_rate_factor, optimizer
from trainables.protocol import Protocol


class Fold:
    """Trains epoch by epoch, once a phase has begun. Its state after an epoch is its network, the average of its
    weights and its optimizer: everything random in an epoch is drawn from (seed, fold, epoch), so going on from a
    checkpoint is exact."""

    def __init__(
        self,
        index: int,
        network: Network,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        objective: Objective,
        config: TrialConfig,
        protocol: Protocol,
    ):
        self.validation_rows = torch.from_numpy(validation_rows)
        self._network = network
        self._average = copy.deepcopy(network) if config.ema else None
        """What is validated and kept in place of the network."""
        self._index = index
        self._train_rows = torch.from_numpy(train_rows)
        self._train_classes = classes_of(objective.labels[train_rows])
        self._weights = loss_weights(config, objective.labels, train_rows)
        self._shares = torch.tensor(objective.shares, device=protocol.device)
        self._objective = objective
        self._config = config
        self._protocol = protocol

    def begin(self, phase: Phase, frozen: nn.Module | None, layer_shares: dict[str, float]) -> None:
        """A new phase, with a new optimizer.

        frozen: what the head alone is trained on, in place of the network's body; None: the whole network is trained.
        layer_shares: of the learning rate, by the names of the body's parameters; 1 where they have none.
        """
        kept = self._average or self._network
        self._phase = phase
        self._trained = self._network if frozen is None else Network(frozen, self._network.head)
        self._validated = kept if frozen is None else Network(frozen, kept.head)
        shares = {f"body.{name}": share for name, share in layer_shares.items()}
        self._optimizer = optimizer(self._config, phase.learning_rate, self._trained, shares)
        self._averaged: list[list[torch.Tensor]] = []
        if self._average is not None:
            pair = (self._average, self._network) if frozen is None else (self._average.head, self._network.head)
            self._averaged = [_moving(module) for module in pair]

    def train(self, epoch: int, fetch: Fetch, decays: int) -> float:
        """Train one epoch, counted from 1. Returns the mean loss; not finite when training has diverged.

        decays: how often the plateau schedule has lowered the rate before this epoch.
        """
        config, batch_size = self._config, self._phase.batch_size
        torch.manual_seed(epoch_seed(self._protocol.seed, self._index, epoch))
        self._trained.train()
        order, augmented = epoch_order(config, self._train_rows, self._train_classes)
        weights = self._weights[order].to(self._shares.device)  # once: a copy in every step would hold up a GPU
        batches = list(zip(*(each.split(batch_size) for each in (order, augmented, weights)), strict=True))
        if batch_size > 1 and len(batches) > 1 and len(batches[-1][0]) == 1:
            batches.pop()  # batch norm cannot learn from one image
        loss_sum = torch.zeros((), device=weights.device)
        for step, (rows, to_augment, weights_BT) in enumerate(batches):
            self._set_learning_rate(epoch - self._phase.first_epoch + step / len(batches), decays)
            inputs, targets = fetch(rows, to_augment)
            inputs, share = mixed(config, inputs)
            labels = [(share, targets, weights_BT)]
            if share < 1:
                labels.append((1 - share, targets.flip(0), weights_BT.flip(0)))
            divided_by = divisor(config, weights_BT)
            self._optimizer.zero_grad(set_to_none=True)
            for part in self._parts(len(rows)):
                with autocast(self._protocol):
                    logits = self._trained(inputs[part]).float()
                losses_T = torch.zeros_like(self._shares)
                for counted, truth, weighed_BT in labels:
                    losses_BT = self._objective.losses(logits, truth[part], config.label_smoothing)
                    losses_T = losses_T + counted * (losses_BT * weighed_BT[part]).sum(0)
                loss = (losses_T / divided_by) @ self._shares
                loss.backward()
                loss_sum += loss.detach() * len(rows)
            self._optimizer.step()
            if self._averaged:
                steps = (epoch - self._phase.first_epoch) * len(batches) + step
                get_ema_multi_avg_fn(average_share(config.ema, steps))(*self._averaged, None)
        return float(loss_sum) / sum(len(rows) for rows, *_ in batches)

    def _parts(self, images: int) -> list[slice]:
        """A batch in equal parts, none larger than those of a whole batch of `batch_size`; but rather one image more in
        a part than one alone, from which batch norm cannot learn."""
        size = -(-self._config.batch_size // self._config.accumulate)
        parts = min(-(-images // size), max(1, images // min(size, 2)))
        ends = [images * part // parts for part in range(parts + 1)]
        return [slice(start, end) for start, end in pairwise(ends)]

    @torch.inference_mode()
    def predict(self, fetch: Fetch) -> np.ndarray:
        """What the objective keeps of the validation images, float32 (V, P)."""
        self._validated.eval()
        predictions = []
        for rows in self.validation_rows.split(EVALUATION_BATCH):
            inputs, targets = fetch(rows)
            with autocast(self._protocol):
                logits = self._validated(inputs)
            predictions.append(self._objective.predictions(logits.float(), targets).cpu())
        return torch.cat(predictions).numpy()

    @property
    def learning_rate(self) -> float:
        """Of the head."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the parameters and statistics that are validated, on the CPU. In every phase of the whole network,
        so that best weights of any phase can be used alike."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in (self._average or self._network).state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "average": self._average and self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a fold that is in the same phase."""
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _set_learning_rate(self, epochs_done: float, decays: int) -> None:
        factor = learning_rate_factor(self._config, epochs_done, self._phase.epochs, decays)
        for group in self._optimizer.param_groups:
            group["lr"] = self._phase.learning_rate * factor * group["share"]


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


def _moving(module: nn.Module) -> list[torch.Tensor]:
    """What training changes: trained parameters and running statistics, but no counts."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [*trained, *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
