"""The pixel store against torchvision's ImageFolder and a DataLoader: ten epochs over 5,000 JPEGs of 512 px.

    python -m benchmarks.decode            about four minutes on two cores; --images 500 --epochs 10 for a first look
    python -m benchmarks.decode --record   adds the row to decode.md

Both sides give the same: shuffled batches of 32 images of 224 px, uint8, for a device that makes floats of them. Ours
does what a search does: reads, hashes and examines the folder for what cannot be right, decodes it once into an empty
store, and reads ten epochs from there. Theirs has one worker process per core. Drawing and writing the JPEGs is not
counted.
"""

import argparse
import functools
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision.datasets
from PIL import Image
from torchvision import transforms

import datasets
from benchmarks.measurement import measured, record, show
from datasets.phantoms.chest import chest_film
from datasets.pixels import pixels
from datasets.remedies import remedied
from trainables.images import shared

SIZE_PX, BATCH = 224, 32
DRAWN_PX = 128


def write_films(folder: Path, images: int) -> None:
    """Two class folders of JPEGs of 512 px, every one another film: phantoms, drawn small, enlarged and made grainy."""
    with ProcessPoolExecutor() as processes:
        list(processes.map(functools.partial(_write_film, folder), range(images), chunksize=50))


def _write_film(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    small = Image.fromarray(chest_film(rng, DRAWN_PX, opacities=bool(number % 2)))
    film = np.asarray(small.resize((512, 512), Image.Resampling.BICUBIC)) + rng.normal(0, 2, (512, 512))
    target = folder / "ab"[number % 2] / f"{number:05d}.jpg"
    target.parent.mkdir(exist_ok=True)
    gray = Image.fromarray(film.clip(0, 255).astype(np.uint8))
    gray.convert("RGB").save(target, quality=90)


def theirs(folder: Path, epochs: int) -> np.ndarray:
    """Returns the first image of the folder as it was delivered."""
    prepare = transforms.Compose([transforms.Resize((SIZE_PX, SIZE_PX)), transforms.PILToTensor()])
    images = torchvision.datasets.ImageFolder(str(folder), prepare)
    workers = len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        images, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    seen = sum(len(batch) for _ in range(epochs) for batch, _ in loader)
    assert seen == epochs * len(images)
    return images[0][0].numpy()


def ours(folder: Path, epochs: int) -> np.ndarray:
    dataset = remedied(datasets.load_all("images", datasets.Request(root=folder)), size_px=SIZE_PX)
    images_NHWC = shared(pixels(dataset, SIZE_PX))
    seen = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(dataset)).split(BATCH):
            seen += len(images_NHWC.index_select(0, rows))
    assert seen == epochs * len(list(folder.rglob("*.jpg"))), "some were left out"
    return images_NHWC[0].permute(2, 0, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "films")
        folder.mkdir()
        write_films(folder, options.images)
        os.environ["IMAGE_SEARCH_STORE"] = str(Path(temporary, "store"))
        by_us = measured(ours, folder, options.epochs)
        by_them = measured(theirs, folder, options.epochs)
    difference = np.abs(by_us.result.astype(float) - by_them.result).mean()
    row = {
        "images": options.images,
        "epochs": options.epochs,
        "theirs_s": round(by_them.seconds, 1),
        "ours_s": round(by_us.seconds, 1),
        "ratio": f"{by_them.seconds / by_us.seconds:.1f}",
        "theirs_private_MB": by_them.private_bytes // 10**6,
        "ours_private_MB": by_us.private_bytes // 10**6,
        "ours_mapped_MB": by_us.mapped_bytes // 10**6,
        "difference_gray_values": f"{difference:.2f}",
    }
    show(row)
    if options.record:
        record("decode", row)


if __name__ == "__main__":
    main()
