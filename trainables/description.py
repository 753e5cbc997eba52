"""`model.json`: what a saved model is, in names and numbers, read as strictly as what a stranger has sent."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from datasets import InputError, Target
from datasets.dataset import Kind
from datasets.pixels import Interpolation
from trainables.config import TrialConfig

FORMAT = 1
"""Raised when a file of before can no longer be read as it is."""
MOST = {
    "image_size_px": 4096,
    "width": 4096,
    "depth": 1000,
    "dense_widths": 65_536,
    "classes": 10_000,
    "networks": 2000,
}
"""What is built without a question: nobody's file is to fill the memory."""
LONGEST_BYTES = 10_000_000
LARGEST = 1e12
"""Of all other numbers, which fit into float32 then."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """How pixels become what the networks take, and what the networks say of them."""

    task: str
    kind: Kind
    targets: tuple[Target, ...]
    """What is asked, the first one first; of masks one, whose classes are those of a pixel."""
    channels: int
    config: TrialConfig
    interpolation: Interpolation
    """With which images are squeezed to a square of `config.image_size_px`."""
    mean: tuple[float, ...]
    """Per channel (or one for all), subtracted from pixels in [0, 1]."""
    std: tuple[float, ...]
    networks: int = 1
    thresholds: dict[str, float] = field(default_factory=dict)
    """By target of two classes: from which probability on the second one is decided for; 0.5 where it is not here."""
    about: dict[str, Any] = field(default_factory=dict)
    """What else is known of the model: its data, score, versions. Read by people and the model card, computed with by
    nobody."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What its probabilities are called: the classes; of several targets `target:class`."""
        if len(self.targets) == 1:
            return self.targets[0].classes
        return tuple(f"{target.name}:{name}" for target in self.targets for name in target.classes)

    @property
    def demonstration(self) -> bool:
        """Whether it was trained on phantoms."""
        return bool(self.about.get("demonstration"))

    def threshold(self, target: Target) -> float:
        return self.thresholds.get(target.name, 0.5)

    def write(self, file: Path) -> None:
        told = {
            "format": FORMAT,
            **{each.name: getattr(self, each.name) for each in dataclasses.fields(self)},
            "targets": [dataclasses.asdict(target) for target in self.targets],
            "config": self.config.params(),
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(file)

    @staticmethod
    def read(file: Path) -> "Description":
        """Raises `InputError` where the file is missing, damaged, of another format, or asks for what cannot be."""
        try:
            if file.stat().st_size > LONGEST_BYTES:
                raise InputError(f"{file}: {file.stat().st_size:,} bytes are too many for a description")
            told = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{file}: no such file; a model is a folder with model.json and model.safetensors"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from None
        try:
            return _checked(told)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None


def _checked(told: Any) -> Description:
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise InputError(f"format {found!r}: this program reads format {FORMAT}")
    names = {"format", *(each.name for each in dataclasses.fields(Description))}
    if odd := sorted(names ^ told.keys()):
        raise InputError(f"{odd[0]!r} is {'missing' if odd[0] in names else 'unknown'}")
    _expect(told, "task", str)
    _expect(told, "about", dict)
    if told["kind"] not in get_args(Kind):
        raise InputError(f"kind={told['kind']!r}: expected one of {', '.join(get_args(Kind))}")
    if told["interpolation"] not in get_args(Interpolation):
        raise InputError(
            f"interpolation={told['interpolation']!r}: expected one of {', '.join(get_args(Interpolation))}"
        )
    if told["channels"] not in (1, 2, 3):
        raise InputError(f"channels={told['channels']!r}: expected 1, 2 or 3")
    _expect(told, "networks", int)
    _at_most("networks", told["networks"])
    if not isinstance(told["config"], dict):
        raise InputError("config: expected an object")
    config = TrialConfig.of(told["config"])
    for name in ("image_size_px", "width", "depth"):
        if getattr(config, name) is not None:
            _at_most(name, getattr(config, name))
    for width in config.dense_widths:
        _at_most("dense_widths", width)
    targets = _targets(told["targets"], told["kind"])
    return Description(
        task=told["task"],
        kind=told["kind"],
        targets=targets,
        channels=told["channels"],
        config=config,
        interpolation=told["interpolation"],
        mean=_of_channels(told, "mean"),
        std=_of_channels(told, "std"),
        networks=told["networks"],
        thresholds=_thresholds(told["thresholds"], targets),
        about=told["about"],
    )


def _targets(told: Any, kind: Kind) -> tuple[Target, ...]:
    if not isinstance(told, list) or not told or not all(isinstance(each, dict) for each in told):
        raise InputError("targets: expected a list of objects")
    targets: list[Target] = []
    for each in told:
        if each.keys() != {"name", "classes", "scored"}:
            raise InputError(f"targets: expected name, classes and scored, not {', '.join(map(str, each))}")
        _expect(each, "name", str)
        _expect(each, "scored", bool)
        classes = each["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise InputError(f"target {each['name']!r}: classes must be a list of words")
        if not 2 <= len(set(classes)) == len(classes) <= MOST["classes"]:
            raise InputError(
                f"target {each['name']!r}: {len(classes)} classes; expected 2 to {MOST['classes']:,}, no two alike"
            )
        targets.append(Target(each["name"], tuple(classes), each["scored"]))
    if (len(targets) > 1) != (kind == "multitask"):
        raise InputError(f"{len(targets)} targets do not make a {kind} task")
    if kind in ("binary", "multiclass") and (len(targets[0].classes) == 2) != (kind == "binary"):
        raise InputError(f"{len(targets[0].classes)} classes do not make a {kind} task")
    return tuple(targets)


def _thresholds(told: Any, targets: tuple[Target, ...]) -> dict[str, float]:
    of_two = {target.name for target in targets if len(target.classes) == 2}
    if not isinstance(told, dict) or not told.keys() <= of_two:
        raise InputError(f"thresholds: expected numbers for {', '.join(sorted(of_two)) or 'no target'}")
    for name, value in told.items():
        if not _is_number(value) or not 0 <= value <= 1:
            raise InputError(f"threshold of {name!r}: {value!r}, expected 0 to 1")
    return {name: float(value) for name, value in told.items()}


def _of_channels(told: dict[str, Any], name: str) -> tuple[float, ...]:
    values = told[name]
    positive = name == "std"
    if not isinstance(values, list) or len(values) not in (1, told["channels"]):
        raise InputError(f"{name}={values!r}: expected one number, or one per channel")
    if not all(_is_number(value) and (value > 0 or not positive) for value in values):
        raise InputError(f"{name}={values!r}: expected numbers{' above 0' if positive else ''}")
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _at_most(name: str, value: int) -> None:
    if not 1 <= value <= MOST[name]:
        raise InputError(f"{name}={value!r}: expected 1 to {MOST[name]:,}")


def _expect(told: dict[str, Any], name: str, of_type: type) -> None:
    if not isinstance(told[name], of_type) or (of_type is int and isinstance(told[name], bool)):
        raise InputError(f"{name}={told[name]!r}: expected {of_type.__name__}")
