"""One fold: a network trained on some images of the data set and asked about the others.

Shapes: B images of a batch, T targets, V validation images, P columns of predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainables.balance import classes_of, divisor, epoch_order, loss_weights
from trainables.config import TrialConfig
from trainables.distributed import added_up, division, processes
from trainables.images import AS_IT_IS, EVALUATION_BATCH, Fetch
from trainables.memory import Before, MicroBatch, evaluated
from trainables.mixing import mixed
from trainables.network import Network, copied
from trainables.objectives import Objective
from trainables.optimisation import Phase, average_share, optimizer, set_learning_rate
from trainables.protocol import Protocol
from trainables.seeding import epoch_seed, generator_states, seed_generators, set_generator_states


@dataclass(frozen=True)
class Epoch:
    """What a fold is trained on in an epoch, in this order."""

    rows: torch.Tensor
    """int64 (n,)"""
    views: torch.Tensor
    """Which augmented view of each image, int64 (n,); `AS_IT_IS` for none."""
    weights: torch.Tensor
    """float32 (n, T)"""


@dataclass(frozen=True)
class Underway:
    """How far an epoch has come."""

    epoch: int
    step: int
    """Batches that are done."""
    loss_sum: torch.Tensor
    """Over the images of these, ()."""
    generators: list[torch.Tensor]
    """See `generator_states`; none are needed once all batches are done."""


class Fold:
    """Trains epoch by epoch, once a phase has begun. Its state is its network, the average of its weights and its
    optimizer: everything random in an epoch is drawn from (seed, fold, epoch), so going on from a checkpoint is exact.
    In the middle of an epoch that of the generators is added (`Underway`)."""

    def __init__(
        self,
        index: int,
        network: Network,
        train_rows: np.ndarray,
        validation_rows: np.ndarray,
        objective: Objective,
        config: TrialConfig,
        protocol: Protocol,
        micro_batch: MicroBatch,
    ):
        self.validation_rows = torch.from_numpy(validation_rows)
        self.network = network
        self.objective = objective
        self.device = protocol.device
        self.shares = torch.tensor(objective.shares, device=protocol.device)
        """What each target's loss counts, (T,)."""
        self._average = copied(network) if config.ema else None
        """What is validated and kept in place of the network."""
        self._index = index
        self._train_rows = torch.from_numpy(train_rows)
        self._train_classes = classes_of(objective.labels[train_rows])
        self._weights = loss_weights(config, objective.labels, train_rows)
        self._config = config
        self._protocol = protocol
        self._micro_batch = micro_batch
        self._underway: Underway | None = None

    def begin(self, phase: Phase, frozen: nn.Module | None, layer_shares: dict[str, float]) -> None:
        """A new phase, with a new optimizer.

        frozen: what the head alone is trained on, in place of the network's body; None: the whole network is trained.
        layer_shares: of the learning rate, by the names of the body's parameters; 1 where they have none.
        """
        kept = self._average or self.network
        self.phase = phase
        self._trained = self.network if frozen is None else Network(frozen, self.network.head)
        self._validated = kept if frozen is None else Network(frozen, kept.head)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self._trained
        if self._protocol.compile and not self.only_head_learns:
            self._forward = torch.compile(self._trained)
        shares = {f"body.{name}": share for name, share in layer_shares.items()}
        self.optimizer = optimizer(self._config, phase.learning_rate, self._trained.named_parameters(), shares)
        self._averaged: list[list[torch.Tensor]] = []
        if self._average is not None:
            pair = (self._average, self.network) if frozen is None else (self._average.head, self.network.head)
            self._averaged = [_moving(module) for module in pair]

    @property
    def body(self) -> nn.Module:
        """What the head is trained on in this phase."""
        return self._trained.body

    @property
    def head(self) -> nn.Sequential:
        head = self.network.head
        assert isinstance(head, nn.Sequential)
        return head

    @property
    def only_head_learns(self) -> bool:
        """Whether the body has no parameters, not even frozen ones: its features are stored, or it only flattens."""
        return next(self.body.parameters(), None) is None

    def epoch(self, number: int) -> Epoch:
        """Seeds torch's generator, and draws from it the order of the images."""
        seed_generators(epoch_seed(self._protocol.seed, self._index, number), self.device)
        rows, augmented = epoch_order(self._config, self._train_rows, self._train_classes)
        if len(rows) % self.phase.batch_size == 1 and 1 < self.phase.batch_size < len(rows):
            rows, augmented = rows[:-1], augmented[:-1]  # batch norm cannot learn from one image
        views = torch.full_like(rows, AS_IT_IS)
        if self._config.augmented:
            views = ((number - 1 + _occurrences(rows)) % max(1, self._config.views)).where(augmented, AS_IT_IS)
        return Epoch(rows, views, self._weights[rows])

    def train(self, epoch: int, fetch: Fetch, decays: int, halting: Callable[[], bool] = lambda: False) -> float | None:
        """Train one epoch, counted from 1, or what is left of it. Returns the mean loss, not finite when training has
        diverged; None where `halting`, which is asked after every batch but the last, was true.

        decays: how often the plateau schedule has lowered the rate before this epoch.
        """
        config, drawn = self._config, self.epoch(epoch)
        so_far = self._underway
        if so_far is None or so_far.epoch != epoch:
            so_far = Underway(epoch, 0, torch.zeros((), device=self.device), [])
        set_generator_states(so_far.generators)
        self._trained.train()
        before = Before(self._trained)
        batches = [each.split(self.phase.batch_size) for each in (drawn.rows, drawn.views)]
        weights = drawn.weights.to(self.device)  # once: a copy in every step would hold up a GPU
        batches.append(weights.split(self.phase.batch_size))
        steps = len(batches[0])
        most_parts = max(1, config.batch_size // 2)
        if processes() > 1:
            most_parts = self._micro_batch.parts  # the others are in the midst of theirs
        loss_sum = so_far.loss_sum
        for step, (rows, views, weights_BT) in islice(enumerate(zip(*batches, strict=True)), so_far.step, None):
            epochs_done = epoch - self.phase.first_epoch + step / steps
            set_learning_rate(self.optimizer, config, self.phase, epochs_done, decays)
            inputs, targets = fetch(rows, views)
            inputs, share = mixed(config, inputs)
            labels = [(share, targets, weights_BT)]
            if share < 1:
                labels.append((1 - share, targets.flip(0), weights_BT.flip(0)))
            loss_sum = loss_sum + len(rows) * self._micro_batch.fitting(
                partial(self._gradients, inputs, labels), most_parts, before
            )
            self.optimizer.step()
            self.follow((epoch - self.phase.first_epoch) * steps + step)
            if step + 1 < steps and halting():
                self._underway = Underway(epoch, step + 1, loss_sum, generator_states(self.device))
                return None
        self._underway = Underway(epoch, steps, loss_sum, [])
        return float(loss_sum) / len(drawn.rows)

    def _gradients(
        self, inputs: torch.Tensor, labels: list[tuple[float, torch.Tensor, torch.Tensor]], parts: int
    ) -> torch.Tensor:
        """Of a batch, in so many parts, for the optimizer; returns the loss.

        labels: what each labelling of the batch counts, its targets and their weights (B, T).
        """
        divided_by = divisor(self._config, labels[0][2], len(inputs))
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for part in self._parts(len(inputs), parts):
            own = division(part)
            with own.of_whole:
                logits = self._logits(self._forward, inputs[own.rows])
            losses_T = torch.zeros_like(self.shares)
            for counted, truth, weights_BT in labels:
                losses_BT = self.objective.losses(logits, truth[own.rows], self._config.label_smoothing)
                losses_T = losses_T + counted * (losses_BT * weights_BT[own.rows]).sum(0)
            loss = (losses_T / (divided_by * own.times)) @ self.shares
            loss.backward()
            total += loss.detach()
        return added_up(total, self._trained.parameters())

    def follow(self, steps: int) -> None:
        """The average, if there is one, moves towards the network; `steps`: of this phase, before this one."""
        if self._averaged:
            get_ema_multi_avg_fn(average_share(self._config.ema, steps))(*self._averaged, None)

    def _logits(self, network: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """float32. A head alone also computes in it: it is small, and to convert its weights each time takes longer."""
        if self.only_head_learns:
            return network(inputs.float())
        with autocast(self._protocol):
            return network(inputs).float()

    def _parts(self, images: int, parts: int) -> list[slice]:
        """A batch in equal parts, none larger than one of so many of a whole batch of `batch_size`; but rather one
        image more in a part than one alone, from which batch norm cannot learn."""
        if parts == 1:
            return [slice(0, images)]
        size = -(-self._config.batch_size // parts)
        parts = min(-(-images // size), max(1, images // min(size, 2)))
        ends = [images * part // parts for part in range(parts + 1)]
        return [slice(start, end) for start, end in pairwise(ends)]

    @torch.inference_mode()
    def predict(self, fetch: Fetch) -> np.ndarray:
        """What the objective keeps of the validation images, float32 (V, P)."""
        self._validated.eval()

        def predicted(rows: torch.Tensor) -> torch.Tensor:
            inputs, targets = fetch(rows)
            return self.objective.predictions(self._logits(self._validated, inputs), targets).cpu()

        return torch.cat([part for _, part in evaluated(predicted, self.validation_rows, EVALUATION_BATCH)]).numpy()

    @property
    def learning_rate(self) -> float:
        """Of the head."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the parameters and statistics that are validated, on the CPU. In every phase of the whole network,
        so that best weights of any phase can be used alike."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in (self._average or self.network).state_dict().items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self._average and self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "underway": self._underway and vars(self._underway),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a fold that is in the same phase."""
        self.network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        underway = state["underway"]
        self._underway = underway and Underway(**underway | {"loss_sum": underway["loss_sum"].to(self.device)})


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


def _occurrences(rows: torch.Tensor) -> torch.Tensor:
    """How often each row came before, int64 (n,): 0 where none is repeated."""
    ordered, order = rows.sort(stable=True)
    place = torch.arange(len(rows))
    first = torch.cat([ordered[:1] >= 0, ordered[1:] != ordered[:-1]])
    started = place.where(first, 0).cummax(0).values
    return torch.empty_like(rows).scatter_(0, order, place - started)


def _moving(module: nn.Module) -> list[torch.Tensor]:
    """What training changes: trained parameters and running statistics, but no counts."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [*trained, *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
