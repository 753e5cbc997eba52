"""`TrialConfig`: one configuration, everything that may differ between the trials of an experiment."""

import dataclasses
import types
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datasets import InputError, nearest

Balance = Literal["none", "class_weights", "sample_weights", "oversample", "augmented_oversample"]

USUAL_AUGMENTATION: dict[str, Any] = {"flip": True, "rotation_deg": 36.0, "zoom": 0.1, "contrast": 0.1}
"""That of svendsen2025: Keras' rotation and zoom of 0.1 are 36 degrees and 10 %."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """What a trial is trained with. An unknown, ill-typed or impossible parameter fails at once, with its name."""

    model: str
    """A file of `trainables/models/`, or any model of timm."""
    image_size_px: int
    """Images are squeezed to a square of this side."""

    learning_rate: float
    """Peak learning rate, after warm-up and before decay."""
    batch_size: int
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """Cosine decays to zero at the experiment's last epoch; plateau halves the rate after three epochs without a lower
    mean validation loss."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, before the schedule."""
    patience: int = 30
    """Epochs without a better one (mean validation score; of equal ones the lower mean loss), after which it ends."""

    dense_widths: tuple[int, ...] = ()
    """Widths of the dense layers between the features and the output layer, first to last."""
    dense_batch_norm: bool = False
    dropout: float = 0.0
    """After every dense layer; straight on the features where there is no dense layer."""
    pooling: Literal["avg", "max"] = "avg"
    """How the feature map of a timm backbone becomes a vector."""
    unfrozen_layers: int | None = None
    """The last n parametrised layers (convolution, linear, normalisation) of the body, in the order of execution, are
    trained with the head; 0: the head only; None: the whole network."""
    batch_norm: bool = False
    """Batch normalisation after every convolution of a body of `trainables/models/` that leaves it open."""

    flip: bool = False
    """Augmentation: mirror left to right with probability one half."""
    rotation_deg: float = 0.0
    """Augmentation: rotate by an angle drawn from [-rotation_deg, rotation_deg]."""
    zoom: float = 0.0
    """Augmentation: scale by a factor drawn from [1 - zoom, 1 + zoom]."""
    contrast: float = 0.0
    """Augmentation: change the contrast by a factor drawn from [1 - contrast, 1 + contrast]."""

    balance: Balance = "none"
    """What is done about classes of unequal size, in the training images of each fold only; see `balance.py`. With
    `augmented_oversample` the augmentation above is that of the repeats alone."""
    oversample_to: int | None = None
    """Images that every class has in an epoch when oversampled; classes that have more keep them all, and no image is
    drawn more than ten times. None: as many as the largest class of the fold."""
    auxiliary_weight: float = 1.0
    """What the mean loss of the targets that are not scored counts, beside that of those that are."""

    def __post_init__(self) -> None:
        if isinstance(self.dense_widths, list):  # JSON has no tuples
            object.__setattr__(self, "dense_widths", tuple(self.dense_widths))
        for name, expected in get_type_hints(TrialConfig).items():
            if not _is(getattr(self, name), expected):
                raise InputError(f"{name}={getattr(self, name)!r}: expected {_spelt(expected)}")
        for name, valid, rule in (
            ("image_size_px", self.image_size_px >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "above 0"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("warmup_epochs", self.warmup_epochs >= 0, "at least 0"),
            ("patience", self.patience >= 1, "at least 1"),
            ("dense_widths", all(width >= 1 for width in self.dense_widths), "widths of at least 1"),
            ("dense_batch_norm", not (self.dense_batch_norm and self.batch_size == 1), "False with batch_size=1"),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("unfrozen_layers", (self.unfrozen_layers or 0) >= 0, "at least 0, or None for all"),
            ("rotation_deg", 0 <= self.rotation_deg <= 180, "in [0, 180]"),
            ("zoom", 0 <= self.zoom < 1, "in [0, 1)"),
            ("contrast", 0 <= self.contrast < 1, "in [0, 1)"),
            ("oversample_to", self.oversample_to is None or self.oversample_to >= 1, "at least 1, or None"),
            (
                "oversample_to",
                self.oversample_to is None or "oversample" in self.balance,
                f"None with balance={self.balance!r}: it belongs to 'oversample' and 'augmented_oversample'",
            ),
            (
                "balance",
                self.balance != "augmented_oversample" or self.augmented,
                f"used with an augmentation, for its repeats: give one of {', '.join(USUAL_AUGMENTATION)}",
            ),
            ("auxiliary_weight", 0 <= self.auxiliary_weight < float("inf"), "at least 0"),
        ):
            if not valid:
                raise InputError(f"{name}={getattr(self, name)!r}: must be {rule}")

    @property
    def augmented(self) -> bool:
        """Whether any augmentation is asked for."""
        return any(getattr(self, name) for name in USUAL_AUGMENTATION)

    @staticmethod
    def of(params: dict[str, Any]) -> "TrialConfig":
        """`TrialConfig(**params)`, with an `InputError` that suggests the nearest name for an unknown one."""
        known = [field.name for field in dataclasses.fields(TrialConfig)]
        for name in params:
            if name not in known:
                raise InputError(f"unknown parameter {name!r}{nearest(name, known)} Known: {', '.join(known)}")
        return TrialConfig(**params)

    def params(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return dataclasses.asdict(self) | {"dense_widths": list(self.dense_widths)}


def _is(value: Any, expected: Any) -> bool:
    """Whether a value has the annotated type; an int is a float, a bool is not an int."""
    if get_origin(expected) is Literal:
        return value in get_args(expected)
    if get_origin(expected) is types.UnionType:
        return any(_is(value, option) for option in get_args(expected))
    if get_origin(expected) is tuple:
        return isinstance(value, tuple) and all(_is(item, get_args(expected)[0]) for item in value)
    if expected in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if expected is float else expected)


def _spelt(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(repr, get_args(expected)))
    return expected.__name__ if isinstance(expected, type) and get_origin(expected) is None else str(expected)
