"""The pickled batches of CIFAR-10, read without trusting them.

A pickle is a program: opening one may do whatever its maker wants. What is needed here is little: a dict of lists,
texts and one array. The names that a genuine batch asks for (three of numpy, and one that turns text into bytes) are
answered with stand-ins that only keep what they are given; any other name ends the reading. So no code of numpy or
anything else is called by the file. Nor can a small file ask for much memory: Python's own unpickler reads it, not the
one in C, and what makes something large of a few bytes is refused.

A batch is a dict: `data` uint8 (10000, 3072), per row the red plane, the green and the blue one; `labels`, a list.
Python 2 wrote them, so that texts are bytes.
"""

import io
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl

from datasets.arrays import file_digest, row_digests
from datasets.dataset import ImageDataset, content_digest
from datasets.errors import InputError, UnreadableError
from datasets.folders import beside, groups
from datasets.stores import stored_array

SIZE_PX = 32
MOST_BYTES = 64 << 20
"""Of a batch: a genuine one has 31 MB, and half as much again where Python 3 wrote it for Python 2."""
ABOUT = ("batches.meta", "readme.html")
"""What the archive holds beside the batches: the names of the classes, and a link."""
_BYTES = 3 * SIZE_PX * SIZE_PX


def read_batches(name: str, folder: Path, classes: tuple[str, ...], root: Path) -> ImageDataset:
    """The images of data_batch_1, 2, … (development) and of test_batch (test).

    Raises `InputError` where a batch is missing, broken, not one of CIFAR-10, or asks for code.
    """
    batches = sorted(path for path in folder.glob("data_batch_*") if path.name[11:].isdigit())
    numbers = [int(path.name[11:]) for path in batches]
    missing = sorted(set(range(1, 6)) - set(numbers))
    if missing:
        raise InputError(f"{folder}: data_batch_{missing[0]} is missing; expected data_batch_1 to data_batch_5")
    tables = []
    files = (*batches, folder / "test_batch")
    for file in files:
        if not file.is_file():
            raise InputError(f"{folder}: {file.name} is missing; expected data_batch_1 to data_batch_5 and test_batch")
        pixels_NP, labels = _batch(file, len(classes))
        digest = file_digest(file)
        images = _stored(file, digest, len(labels), pixels_NP)
        tables.append(
            pl.DataFrame(
                {
                    "image_id": [f"{file.name}/{row:05d}" for row in range(len(labels))],
                    "target": labels,
                    "content": row_digests(images),
                    "split": ["test" if file.name == "test_batch" else "development"] * len(labels),
                    "batch_file": [str(file.absolute())] * len(labels),
                    "batch_digest": [digest] * len(labels),
                    "batch_images": [len(labels)] * len(labels),
                    "batch_row": range(len(labels)),
                }
            )
        )
    table = pl.concat(tables)
    return ImageDataset(
        name=name,
        table=table.with_columns(group=pl.Series(groups(table["image_id"], table["content"]))),
        classes=classes,
        decoder=decode_batch_row,
        channels=3,
        origin=str(root),
        skipped=tuple(beside(root, [*files, *(folder / name for name in ABOUT)])),
    )


def decode_batch_row(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(_mapped(row["batch_file"], row["batch_digest"], row["batch_images"])[row["batch_row"]])


@lru_cache(maxsize=16)
def _mapped(file: str, digest: str, images: int) -> np.ndarray:
    return _stored(Path(file), digest, images)


def _stored(file: Path, digest: str, images: int, pixels_NP: np.ndarray | None = None) -> np.ndarray:
    """uint8 (images, 32, 32, 3) of the batch with that digest, mapped from the store; read from the file where they are
    not there (any more)."""

    def fill(array: np.ndarray) -> None:
        planes = _batch(file)[0] if pixels_NP is None else pixels_NP
        if pixels_NP is None and file_digest(file) != digest:
            raise UnreadableError(f"{file}: has changed since its images were listed; call again")
        array[:] = planes.reshape(-1, 3, SIZE_PX, SIZE_PX).transpose(0, 2, 3, 1)

    key = content_digest(["batch", digest])
    return stored_array(f"batch-{key}", (images, SIZE_PX, SIZE_PX, 3), np.uint8, fill)


def _batch(file: Path, classes: int | None = None) -> tuple[np.ndarray, list[int]]:
    """Pixels uint8 (images, 3072) and labels of one batch."""
    try:
        with file.open("rb") as handle:
            data = handle.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError(f"more than {MOST_BYTES:,} bytes, which no batch of CIFAR-10 has")
        loaded = _Unpickler(data).load()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except Exception as error:  # a broken pickle makes Python raise nearly anything
        raise InputError(f"{file}: not a batch of CIFAR-10: {type(error).__name__}: {error}") from None
    batch = {_text(key): value for key, value in loaded.items()} if type(loaded) is dict else {}
    if "fine_labels" in batch:
        raise InputError(f"{file}: this is CIFAR-100, by its fine_labels; expected CIFAR-10")
    array, labels = batch.get("data"), batch.get("labels")
    if not isinstance(array, _Array) or type(labels) is not list:
        raise InputError(f"{file}: not a batch of CIFAR-10: expected an array `data` and a list `labels`")
    if any(type(label) is not int or not 0 <= label < (classes or 10) for label in labels):
        raise InputError(f"{file}: not a batch of CIFAR-10: expected labels 0 to 9")
    if array.shape != (len(labels), _BYTES) or array.code not in ("u1", "uint8", "B") or array.columns_first:
        raise InputError(
            f"{file}: not a batch of CIFAR-10: {len(labels)} labels, data {array.code} of shape {array.shape}; "
            f"expected u1 of shape ({len(labels)}, {_BYTES})"
        )
    raw = array.raw.encode("latin1") if type(array.raw) is str else array.raw
    if type(raw) is not bytes or len(raw) != len(labels) * _BYTES:
        size = len(raw) if type(raw) is bytes else 0
        raise InputError(f"{file}: {size:,} bytes of data; expected {len(labels) * _BYTES:,}")
    return np.frombuffer(raw, np.uint8).reshape(-1, _BYTES), labels


class _Array:
    """Stands in for numpy's array, and for what makes one: keeps what the pickle says of it."""

    def __init__(self, *_: Any) -> None:
        """Empty, as numpy's is at first."""

    shape: Any = None
    code: Any = None
    columns_first: bool = True
    raw: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, self.columns_first, self.raw = state
        self.code = dtype.code if isinstance(dtype, _Type) else None
        self.shape = self.shape if type(self.shape) is tuple else None


class _Type:
    """Stands in for numpy's dtype."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like: of bytes there is none."""


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}
_REFUSED = (
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),  # reserves what a number says
    *(pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX),
)
"""Opcodes that no batch has."""


class _Unpickler(pickle._Unpickler):
    """In Python: the one in C keeps a table of twice the largest index that the file names."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in {op[0] for op in _REFUSED}
    }

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in _STAND_INS:
            raise InputError(
                f"asks for {module}.{name}, which a batch of CIFAR-10 does not: it may be harmful, not opened"
            )
        return _STAND_INS[module, name]

    def _encode(self, text: Any, encoding: Any = None) -> bytes:
        """How Python 3 writes bytes for Python 2. All together they are no more than the file: a text may be named
        again in two bytes."""
        if type(text) is not str or encoding != "latin1":
            raise InputError("encodes something else than text as latin1; a batch of CIFAR-10 does not")
        self._left -= len(text)
        if self._left < 0:
            raise InputError("encodes more text than it holds; a batch of CIFAR-10 does not")
        return text.encode("latin1")

    def _build(self) -> None:
        """Of a function or a class, Python's own would set attributes."""
        if type(cast(Any, self).stack[-2]) not in (_Array, _Type):
            raise InputError("sets the state of something else than an array; a batch of CIFAR-10 does not")
        cast(Any, pickle._Unpickler).load_build(self)

    dispatch[pickle.BUILD[0]] = _build


def _text(key: Any) -> Any:
    return key.decode("latin1") if type(key) is bytes else key
