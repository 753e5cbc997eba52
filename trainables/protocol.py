"""`Protocol`: how every trial of an experiment is judged, the same for all of them."""

from dataclasses import dataclass
from typing import Literal

from datasets.pixels import Interpolation

Precision = Literal["auto", "float32", "bfloat16"]
Mode = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    metric: str
    """A key of `trainables.metrics.METRICS`: the score that is searched for."""
    max_epochs: int
    seed: int
    """Of the initial weights, the order of the images and everything drawn while training."""
    weights: str = "none"
    """Of timm backbones: `imagenet`, `none` (random, from `seed`) or the path of a safetensors file."""
    interpolation: Interpolation = "bilinear"
    """How images are resized for networks that were not trained on resized ones before."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the hardware computes in it."""
    device: Literal["cpu", "cuda"] = "cpu"
    compile: bool = False
    """Whether what is trained of a network goes through `torch.compile` first, a minute for every shape."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial reports and may be stopped: 1, 3, 9, … and the last."""
        powers: list[int] = []
        while (rung := 3 ** len(powers)) < self.max_epochs:
            powers.append(rung)
        return (*powers, self.max_epochs)
