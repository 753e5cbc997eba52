"""`TrialConfig`: one configuration, everything that may differ between the trials of an experiment."""

import dataclasses
import types
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datasets import InputError, nearest

Balance = Literal["none", "class_weights", "sample_weights", "oversample", "augmented_oversample"]

USUAL_AUGMENTATION: dict[str, Any] = {"flip": True, "rotation_deg": 36.0, "zoom": 0.1, "contrast": 0.1}
"""That of svendsen2025: Keras' rotation and zoom of 0.1 are 36 degrees and 10 %."""
AUGMENTATIONS = (
    "flip",
    "vertical_flip",
    "rotation_deg",
    "zoom",
    "brightness",
    "contrast",
    "noise",
    "intensity_percentile",
)
"""All of them."""


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
    """Images between two steps of the optimizer."""
    accumulate: int = 1
    """Parts into which a batch is divided, one after the other, where it would not fit into memory. The gradient is
    that of the whole batch, but for batch norm, which knows a part only. Batches of another size (`head_batch_size`)
    have as many as make parts of the same size."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "plateau", "step"] = "constant"
    """Cosine decays to zero at the last epoch, and in `head_epochs` at their last; step multiplies the
    rate by `gamma` after every `decay_epochs` epochs; plateau does after as many without a lower mean validation
    loss."""
    gamma: float = 0.5
    decay_epochs: int = 3
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, before the schedule."""
    epochs: int | None = None
    """Epochs after which it ends; None: the experiment's, which are the most in any case."""
    patience: int = 30
    """Epochs without a better one (mean validation score; of equal ones the lower mean loss), after which it ends."""

    head_epochs: int = 0
    """Epochs in which the head alone is trained, on the frozen body, before the layers that `unfrozen_layers` leaves
    open join it. The optimizer, warm-up, schedule and patience begin anew then."""
    head_learning_rate: float | None = None
    """In these epochs; None: as later."""
    head_batch_size: int | None = None
    """In these epochs; None: as later."""
    body_rate: float = 1.0
    """Learning rate of the first trained layer of the body, as a share of the head's; those of the layers between are
    spaced evenly on a logarithmic scale (discriminative rates: Howard and Ruder 2018)."""
    label_smoothing: float = 0.0
    """Share of the truth that is spread evenly over the classes (Szegedy et al. 2016)."""
    mixup: float = 0.0
    """Two images are blended by a share drawn from Beta(mixup, mixup) (Zhang et al. 2018); 0: never."""
    cutmix: float = 0.0
    """A rectangle of an image, whose share is drawn from Beta(cutmix, cutmix), is another's (Yun et al. 2019); 0:
    never. With mixup as well, one of the two is drawn for each batch."""
    ema: float = 0.0
    """Weights are validated and kept as their exponential moving average over steps, of which this share is kept at
    each, and less in the first steps of a phase (`average_share`); 0: as they are."""

    dense_widths: tuple[int, ...] = ()
    """Widths of the dense layers between the features and the output layer, first to last."""
    dense_batch_norm: bool = False
    dropout: float = 0.0
    """After every dense layer; straight on the features where there is no dense layer."""
    last_dropout: float | None = None
    """After the last dense layer; None: as after the others."""
    pooling: Literal["avg", "max", "flatten"] = "avg"
    """How the feature map of a timm backbone becomes a vector: its mean or maximum per channel, or all of it. Bodies of
    `trainables/models/` pool as they do, and refuse what is not the default."""
    unfrozen_layers: int | None = None
    """The last n parametrised layers (convolution, linear, normalisation) of the body, in the order of execution, are
    trained with the head; 0: the head only; None: the whole network."""
    batch_norm: bool = False
    """Batch normalisation in the body. This and the following five are for bodies of `trainables/models/` that leave
    them open; any other refuses what is not the default."""
    width: int | None = None
    """Channels of the first stage of the body, of which those of the others are multiples; None: the model's own."""
    depth: int | None = None
    """How many layers or blocks the body has, as the model counts them; None: the model's own."""
    body_dropout: float = 0.0
    """Dropout inside the body: of single values or of whole channels (spatial), as the model says."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """Of the body."""
    pool_first: bool = False
    """Whether the body pools before its activation and not after it."""
    defaults: Literal["torch", "keras"] = "torch"
    """Whose defaults hold for the head and for bodies of `trainables/models/`; backbones of timm keep theirs. Keras':
    weights drawn from Glorot's uniform distribution, biases of zero at first (and one before batch norm as well), batch
    norm that keeps 0.99 of its statistics, with epsilon 1e-3; and Adam's epsilon of 1e-7."""

    flip: bool = False
    """Augmentation: mirror left to right with probability one half."""
    vertical_flip: bool = False
    """Augmentation: mirror top to bottom with probability one half."""
    rotation_deg: float = 0.0
    """Augmentation: rotate by an angle drawn from [-rotation_deg, rotation_deg]."""
    zoom: float = 0.0
    """Augmentation: scale by a factor drawn from [1 - zoom, 1 + zoom]."""
    brightness: float = 0.0
    """Augmentation: multiply by a factor drawn from [1 - brightness, 1 + brightness]."""
    contrast: float = 0.0
    """Augmentation: change the contrast by a factor drawn from [1 - contrast, 1 + contrast]."""
    noise: float = 0.0
    """Augmentation: add Gaussian noise whose standard deviation is drawn from [0, noise]; white is 1."""
    intensity_percentile: float = 0.0
    """Augmentation: with probability one half, stretch the gray values so that this percentile becomes black and 100
    minus it white."""
    views: int = 8
    """Augmented views of each image, where a part of the body is frozen: what that part gives for each of them is
    computed once, and the epochs take one after the other, so that after so many the first comes again. 0: every batch
    is augmented anew and goes through the whole network. Without a frozen part it always does."""

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
            ("accumulate", 1 <= self.accumulate <= self.batch_size, "from 1 to batch_size"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("gamma", 0 < self.gamma <= 1, "in (0, 1]"),
            ("decay_epochs", self.decay_epochs >= 1, "at least 1"),
            ("head_epochs", self.head_epochs >= 0, "at least 0"),
            ("head_learning_rate", self.head_learning_rate is None or self.head_learning_rate > 0, "above 0, or None"),
            ("head_batch_size", self.head_batch_size is None or self.head_batch_size >= 1, "at least 1, or None"),
            ("body_rate", 0 < self.body_rate <= 1, "in (0, 1]"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("mixup", 0 <= self.mixup < float("inf"), "at least 0"),
            ("cutmix", 0 <= self.cutmix < float("inf"), "at least 0"),
            ("mixup", not (self.mixup and self.batch_size == 1), "0 with batch_size=1: there is no other image"),
            ("cutmix", not (self.cutmix and self.batch_size == 1), "0 with batch_size=1: there is no other image"),
            ("ema", 0 <= self.ema < 1, "in [0, 1)"),
            ("width", self.width is None or self.width >= 1, "at least 1, or None"),
            ("depth", self.depth is None or self.depth >= 1, "at least 1, or None"),
            ("body_dropout", 0 <= self.body_dropout < 1, "in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("warmup_epochs", self.warmup_epochs >= 0, "at least 0"),
            ("epochs", self.epochs is None or self.epochs >= 1, "at least 1, or None"),
            ("patience", self.patience >= 1, "at least 1"),
            ("dense_widths", all(width >= 1 for width in self.dense_widths), "widths of at least 1"),
            ("dense_batch_norm", not (self.dense_batch_norm and self.batch_size == 1), "False with batch_size=1"),
            (
                "dense_batch_norm",
                not (self.dense_batch_norm and (self.accumulate == self.batch_size or self.head_batch_size == 1)),
                "False with parts of one image: accumulate at most batch_size / 2, head_batch_size at least 2",
            ),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("last_dropout", 0 <= (self.last_dropout or 0) < 1, "in [0, 1), or None"),
            ("last_dropout", self.last_dropout is None or bool(self.dense_widths), "None without dense_widths"),
            ("unfrozen_layers", (self.unfrozen_layers or 0) >= 0, "at least 0, or None for all"),
            ("rotation_deg", 0 <= self.rotation_deg <= 180, "in [0, 180]"),
            ("zoom", 0 <= self.zoom < 1, "in [0, 1)"),
            ("brightness", 0 <= self.brightness < 1, "in [0, 1)"),
            ("contrast", 0 <= self.contrast < 1, "in [0, 1)"),
            ("noise", 0 <= self.noise < 1, "in [0, 1)"),
            ("intensity_percentile", 0 <= self.intensity_percentile < 50, "in [0, 50)"),
            ("views", self.views >= 0, "at least 0"),
            ("oversample_to", self.oversample_to is None or self.oversample_to >= 1, "at least 1, or None"),
            (
                "oversample_to",
                self.oversample_to is None or "oversample" in self.balance,
                f"None with balance={self.balance!r}: it belongs to 'oversample' and 'augmented_oversample'",
            ),
            (
                "balance",
                self.balance != "augmented_oversample" or self.augmented,
                f"used with an augmentation, for its repeats: give one of {', '.join(AUGMENTATIONS)}",
            ),
            ("auxiliary_weight", 0 <= self.auxiliary_weight < float("inf"), "at least 0"),
        ):
            if not valid:
                raise InputError(f"{name}={getattr(self, name)!r}: must be {rule}")

    @property
    def augmented(self) -> bool:
        """Whether any augmentation is asked for."""
        return any(getattr(self, name) for name in AUGMENTATIONS)

    @property
    def mixed(self) -> bool:
        """Whether the images of a batch are mixed with each other."""
        return bool(self.mixup or self.cutmix)

    @staticmethod
    def of(params: dict[str, Any]) -> "TrialConfig":
        """`TrialConfig(**params)`, with an `InputError` that suggests the nearest name for an unknown one, or names one
        that is missing."""
        fields = dataclasses.fields(TrialConfig)
        known = [field.name for field in fields]
        for name in params:
            if name not in known:
                raise InputError(f"unknown parameter {name!r}{nearest(name, known)} Known: {', '.join(known)}")
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in params:
                raise InputError(f"parameter {field.name!r} is missing")
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
