"""`python -m search.export NAME --format onnx --out FILE`: a model as one file for other programs.

It takes images (B, channels, size, size) of numbers from 0 to 255, already squeezed to that square, normalises them,
and gives probabilities (B, C), of masks (B, C, size, size): the mean over the networks, or those of one. Any number of
images will do. The file is read again at once, and what it says of images compared with what the model says.

`torch-export` is PyTorch's own format; `torchscript` is the one before it, which PyTorch calls deprecated and which
older programs read.
"""

import contextlib
import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
import typer

from datasets import InputError, interruption
from datasets.pixels import squeezed
from search.predict import model_folder
from search.reopened import reopened

if TYPE_CHECKING:  # takes seconds
    import torch

    from trainables.exportable import Exportable

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Format = Literal["torchscript", "onnx", "torch-export"]
Number = Literal["uint8", "float32"]
Call = Callable[[np.ndarray], np.ndarray]
"""Images (B, channels, size, size) to probabilities."""

BATCHES = (1, 2, 5)
"""Numbers of images that are asked about: none of them that the file was made with."""
TOLERANCE = 1e-4
"""Other programs add up in another order. Probabilities that differ by more are of another network."""
LARGE_BYTES = 1_500_000_000
"""From here on the numbers of an ONNX model lie in a file beside it, as one file of its format holds 2 GB."""


class Disagrees(Exception):
    """The exported file says something else than the model, or cannot be made."""


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="An experiment, or a folder with model.json.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    to: Annotated[str, typer.Option("--format", help="torchscript, onnx or torch-export.")] = "onnx",
    fold: Annotated[str, typer.Option(help="Number of one network, or ensemble: the mean of all.")] = "ensemble",
    number: Annotated[str, typer.Option("--input", help="Type of the images: uint8 or float32.")] = "uint8",
    results: Annotated[str, typer.Option(help="Where the experiments are; may be a URL.")] = "results",
) -> None:
    """Write a model as one file for other programs, and check that it says the same."""
    try:
        interruption.started()
        for option, value, known in (("--format", to, get_args(Format)), ("--input", number, get_args(Number))):
            if value not in known:
                raise InputError(f"{option} {value}: choose one of {', '.join(known)}")
        said = export(model_folder(name, results), out, to, fold, number)  # type: ignore[arg-type]
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except Disagrees as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nInterrupted: nothing was written.", err=True)
        raise typer.Exit(130) from None
    typer.echo(said)


def export(folder: Path, out: Path, to: Format, fold: str = "ensemble", number: Number = "uint8") -> str:
    """Writes the file, and says how far it differs from the model in `folder`. Raises `InputError` for what the user
    can put right, and `Disagrees`; then nothing is written."""
    if to == "onnx" and not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        raise InputError("--format onnx: install onnx, onnxscript and onnxruntime, or choose another")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    import torch

    from trainables.ensemble import Ensemble
    from trainables.exportable import Exportable

    ensemble = Ensemble.load(folder)
    description = ensemble.description
    if fold != "ensemble" and (not fold.isdecimal() or int(fold) >= len(ensemble)):
        raise InputError(f"--fold {fold}: choose from 0 to {len(ensemble) - 1}, or ensemble")
    chosen = slice(None) if fold == "ensemble" else slice(int(fold), int(fold) + 1)
    module = Exportable(ensemble, range(len(ensemble))[chosen]).eval()
    size_px = description.config.image_size_px
    example = torch.zeros(3, description.channels, size_px, size_px, dtype=getattr(torch, number))
    facts = {
        "columns": json.dumps(description.columns, ensure_ascii=False),
        "input": f"{number} (B, {description.channels}, {size_px}, {size_px}), 0 to 255, {description.interpolation}",
        "demonstration": json.dumps(description.demonstration),
    }
    images, what = _images(folder, max(BATCHES), size_px, description.channels, description.interpolation)
    expected = ensemble.predict(images)[chosen].mean(0)
    with _folder_beside(out) as temporary:
        file = Path(temporary) / out.name
        try:
            with _quiet(), torch.inference_mode(False), torch.no_grad():
                call = WRITERS[to](module, example, file, facts)
                given = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(number)
                found = [call(given[:count]) for count in BATCHES]
        except Exception as error:  # whatever a network does that the format has no word for
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            raise Disagrees(
                f"{description.config.model} cannot be written as {to}: {type(error).__name__}: {reason}"
            ) from error
        differences = [np.abs(got - expected[:count]).max() for got, count in zip(found, BATCHES, strict=True)]
        largest = float(np.max(differences))  # NaN stays
        if not largest <= TOLERANCE:
            raise Disagrees(
                f"{to}: probabilities of {what} differ by {largest:.2g}, more than {TOLERANCE}; not written"
            )
        for written in Path(temporary).iterdir():
            written.replace(out.parent / written.name)
    of_what = f"mean of {len(ensemble)} networks" if fold == "ensemble" else f"network {fold} of {len(ensemble)}"
    return (
        f"{out}: {to}, {of_what}, {out.stat().st_size / 1e6:.3g} MB, images {facts['input']}; probabilities of {what} "
        f"differ by {largest:.2g} at most"
    )


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[str]:
    """A temporary one; an `InputError` where nothing can be written there."""
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; name the file")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from None


def _torchscript(module: "Exportable", example: "torch.Tensor", file: Path, facts: dict[str, str]) -> Call:
    import torch

    traced = torch.jit.trace(module, (example,), check_trace=False)
    torch.jit.save(traced, str(file), _extra_files=dict(facts))
    loaded = torch.jit.load(str(file))
    return lambda images: loaded(torch.from_numpy(images)).numpy()


def _torch_export(module: "Exportable", example: "torch.Tensor", file: Path, facts: dict[str, str]) -> Call:
    import torch

    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, file, extra_files=dict(facts))
    loaded = torch.export.load(file).module()
    return lambda images: loaded(torch.from_numpy(images)).numpy()


def _onnx(module: "Exportable", example: "torch.Tensor", file: Path, facts: dict[str, str]) -> Call:
    import onnxruntime
    import torch

    program = torch.onnx.export(
        module,
        (example,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(facts)
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    program.save(str(file), external_data=numbers > LARGE_BYTES)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


WRITERS = {"torchscript": _torchscript, "torch-export": _torch_export, "onnx": _onnx}
"""Write the file, read it again, and give what it computes."""


def _images(folder: Path, count: int, size_px: int, channels: int, interpolation: str) -> tuple[np.ndarray, str]:
    """Squares, uint8 (count, size, size, channels), and what they are: images of the experiment that the model lies in,
    where they are still there, else noise."""
    try:
        dataset = reopened(folder.parent).dataset
        rows = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
        squares = [squeezed(dataset.decode(row), size_px, interpolation) for row in rows]  # type: ignore[arg-type]
        return np.stack(squares), f"{count} {'phantoms' if dataset.demonstration else 'of its images'}"
    except InputError:
        noise = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, channels))
        return noise.astype(np.uint8), f"{count} images of noise"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of exporters on how they work, which nobody can act on."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


if __name__ == "__main__":
    app(prog_name="python -m search.export")
