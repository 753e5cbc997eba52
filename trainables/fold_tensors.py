"""The tensors of several networks in one safetensors file: `fold<i>.<name>`, and `shared.<name>` for what is the same
in all of them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from datasets import InputError

SHARED = "shared."
"""Before the name of a tensor that is the same in all networks; else `fold<i>.`."""
_TYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL", torch.int32: "I32", torch.uint8: "U8"}
"""What safetensors calls the types that networks have."""


def by_fold(tensors: dict[str, torch.Tensor], networks: int) -> list[dict[str, torch.Tensor]]:
    """`fold<i>.<name>` to the tensors of each network by name."""
    by_fold: list[dict[str, torch.Tensor]] = [{} for _ in range(networks)]
    for key, tensor in tensors.items():
        fold, _, name = key.partition(".")
        number = fold.removeprefix("fold")
        if not number.isdecimal() or int(number) >= networks:
            raise InputError(f"tensor {key!r}: there are {networks} networks, fold0 to fold{networks - 1}")
        by_fold[int(number)][name] = tensor
    return by_fold


def alike(tensors: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """The same, with one tensor in place of those that are equal in all."""
    first, *others = tensors
    equal = [name for name in first if others and all(torch.equal(first[name], other[name]) for other in others)]
    return [of_one | {name: first[name] for name in equal} for of_one in tensors]


def check_tensors(tensors: list[dict[str, torch.Tensor]], expected: dict[str, torch.Tensor], where: Path) -> None:
    """Raises `InputError` where a network has other tensors than these, or of another shape or type."""
    for index, of_one in enumerate(tensors):
        odd = sorted(of_one.keys() ^ expected.keys())
        if odd:
            raise InputError(f"{where}: fold {index} has {len(odd)} tensors too many or too few, {odd[0]} for one")
        for name, tensor in of_one.items():
            if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
                raise InputError(_unlike(where, f"fold{index}.{name}", tensor.shape, expected[name].shape))


def check_header(file: Path, expected: dict[str, torch.Tensor], networks: int) -> None:
    """Raises `InputError` where a file does not hold, for every network, these tensors exactly; reads none of them."""
    try:
        with safe_open(file, "pt") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            types = {key: opened.get_slice(key).get_dtype() for key in shapes}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    wanted: dict[str, torch.Tensor] = {}
    for name, tensor in expected.items():
        shared = f"{SHARED}{name}" in shapes
        keys = [f"{SHARED}{name}"] if shared else [f"fold{index}.{name}" for index in range(networks)]
        wanted |= dict.fromkeys(keys, tensor)
    odd = sorted(wanted.keys() ^ shapes.keys())
    if odd:
        raise InputError(f"{file}: {len(odd)} tensors too many or too few for model.json, {odd[0]} for one")
    for key, tensor in wanted.items():
        if shapes[key] != tuple(tensor.shape) or types[key] != _TYPES[tensor.dtype]:
            raise InputError(_unlike(file, key, shapes[key], tensor.shape))


def _unlike(where: Path, name: str, found: Sequence[int], expected: Sequence[int]) -> str:
    return f"{where}: {name} has shape {tuple(found)}, or its type, unlike the network's {tuple(expected)}"
