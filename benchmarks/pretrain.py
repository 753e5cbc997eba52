"""Weights for demonstrations: a small backbone that has seen the phantoms of every task but the chest films.

    python -m benchmarks.pretrain     about ten minutes on one CPU core, three of them to draw; fetches nothing

writes `trainables/weights/test_resnet.safetensors`, which `--weights phantoms` starts from, and `test_resnet.md`: what
it was trained on and what it learned. What the weights are worth on the chest films, which they have not seen, is
measured by `python -m benchmarks.transfer`.

timm's `test_resnet` (372,688 parameters, 96 features) is trained on all tasks at once, with a linear head for each:
what kind an image is of, and of limbs also which part. Labels are what an image shows, not what its table says, which
phantoms contradict now and then. Images are drawn once, then zoomed, shifted, lightened and darkened anew every epoch.

Shapes: B images of a batch, C channels, H height, W width.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import datasets
from datasets.pixels import pixels

MODEL = "test_resnet"
WEIGHTS = Path(__file__).parents[1] / "trainables" / "weights"
IMAGES = {
    "mura": 9000,
    "bone": 4000,
    "skin": 4000,
    "blood": 4000,
    "warwick": 2000,
    "cifar10": 5000,
    "fashion_mnist": 2000,
    "mnist": 2000,
}
"""Phantoms of each task; `covid` is what the weights are tried on."""
HELD_OUT = 200
"""More of each, from another seed, to see what was learned."""
DRAWN_FROM = 20_251
"""Seed of the phantoms that are trained on: no demonstration begins with these, so that its images are new to them."""
DRAWN_PX, SIZE_PX, BATCH, EPOCHS, RATE, WEIGHT_DECAY = 128, 96, 64, 4, 3e-3, 0.05
SMALLEST_PART = 0.45
"""Of the side of an image that is shown enlarged: the network is used at 224 px, where everything is larger."""


@dataclass(frozen=True)
class Seen:
    """Images of all tasks in one array, and per head the class of each, -1 where the head is not for it."""

    pixels_NHWC: np.ndarray
    """uint8, three channels: gray is repeated, a third stain is absent."""
    labels: dict[str, torch.Tensor]
    classes: dict[str, int]


def seen(seed: int, images: dict[str, int]) -> Seen:
    """Draws, or takes from the pixel store, the phantoms of these tasks, so many of each (and their test parts)."""
    sets = [
        datasets.load_all(task, datasets.Request(demonstration=True, seed=seed, images=count))
        for task, count in images.items()
    ]
    ends = np.cumsum([len(dataset) for dataset in sets])
    pixels_NHWC = np.zeros((ends[-1], DRAWN_PX, DRAWN_PX, 3), np.uint8)
    labels, classes = {}, {}
    for dataset, end in zip(sets, ends, strict=True):
        rows = slice(end - len(dataset), end)
        pixels_NHWC[rows, ..., : 2 if dataset.channels == 2 else 3] = pixels(dataset, DRAWN_PX)
        columns = {dataset.name: "appearance"} | {f"{dataset.name}, {t.name}": t.column for t in dataset.further}
        for head, column in columns.items():
            of_task = torch.from_numpy(dataset.table[column].to_numpy().astype(np.int64))
            labels[head] = torch.full((len(pixels_NHWC),), -1)
            labels[head][rows] = of_task
            classes[head] = int(of_task.max()) + 1
    return Seen(pixels_NHWC, labels, classes)


def inputs(images: Seen, rows: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Normalised images (B, C, H, W), channels last in memory."""
    images_BCHW = torch.from_numpy(images.pixels_NHWC[rows.numpy()]).permute(0, 3, 1, 2).float().div_(255)
    return (images_BCHW - mean) / std


def moved(images_BCHW: torch.Tensor) -> torch.Tensor:
    """A part of each image in another light, from a little more than the whole to a much enlarged one."""
    of_image = (len(images_BCHW), 1, 1)
    scale = torch.exp(torch.empty(of_image).uniform_(float(np.log(SMALLEST_PART)), 0.1))
    place = torch.empty(len(images_BCHW), 2, 1).uniform_(-1, 1) * (1 - scale).clamp(min=0.1)
    affine = torch.cat([torch.eye(2) * scale, place], dim=2)
    grid = F.affine_grid(affine, [*images_BCHW.shape[:2], SIZE_PX, SIZE_PX], align_corners=False)
    parts_BCHW = F.grid_sample(images_BCHW, grid, padding_mode="reflection", align_corners=False)
    contrast, light = torch.empty(2, len(images_BCHW), 1, 1, 1).uniform_(-0.3, 0.3)
    return (parts_BCHW * (1 + contrast) + light).contiguous(memory_format=torch.channels_last)


def trained(images: Seen, seed: int = 0, epochs: int = EPOCHS) -> tuple[Any, nn.ModuleDict]:
    """timm's backbone, and the heads by name: AdamW, one cycle of the rate (Smith and Topin 2018)."""
    torch.manual_seed(seed)
    body: Any = timm.create_model(MODEL, num_classes=0).to(memory_format=torch.channels_last)
    heads = nn.ModuleDict({head: nn.Linear(body.num_features, count) for head, count in images.classes.items()})
    mean, std = body.pretrained_cfg["mean"][0], body.pretrained_cfg["std"][0]
    parameters = [*body.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=WEIGHT_DECAY)
    steps = len(images.pixels_NHWC) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        began, loss_sum = time.perf_counter(), 0.0
        body.train()
        for rows in torch.randperm(len(images.pixels_NHWC))[: steps * BATCH].split(BATCH):
            with _autocast():
                features = body(moved(inputs(images, rows, mean, std)))
            logits = {head: layer(features.float()) for head, layer in heads.items()}
            loss = loss_of(logits, images, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        print(f"epoch {epoch + 1}: loss {loss_sum / steps:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    return body, heads


def loss_of(logits: dict[str, torch.Tensor], images: Seen, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the heads that are for an image, its mean over the batch."""
    losses = [
        F.cross_entropy(logits[head], labels[rows], ignore_index=-1, reduction="sum")
        for head, labels in images.labels.items()
    ]
    return torch.stack(losses).sum() / len(rows)


@torch.inference_mode()
def accuracies(body: Any, heads: nn.ModuleDict, images: Seen) -> dict[str, float]:
    """Of every head, on its images."""
    mean, std = body.pretrained_cfg["mean"][0], body.pretrained_cfg["std"][0]
    body.eval()
    all_rows = torch.arange(len(images.pixels_NHWC))
    features = torch.cat([body(inputs(images, rows, mean, std)) for rows in all_rows.split(BATCH)])
    right = {}
    for head, layer in heads.items():
        of_head = images.labels[head] >= 0
        said = layer(features[of_head]).argmax(dim=1)
        right[head] = float((said == images.labels[head][of_head]).float().mean())
    return right


def _autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu.get_capabilities().get("avx512_bf16")))


def recipe(learned: dict[str, float]) -> str:
    """What goes with the weights, as Markdown."""
    drawn = ", ".join(f"{task} {count:,}" for task, count in IMAGES.items())
    heads = "\n".join(f"| {head} | {accuracy:.3f} |" for head, accuracy in learned.items())
    return f"""# {MODEL}.safetensors

Weights of timm's `{MODEL}` without its classifier, trained from random ones by `python -m benchmarks.pretrain`. They
have seen drawings only, no image of a patient and none of anybody's, and are under this project's licence. They are for
demonstrations of what pretrained weights do; for real images take ImageNet's.

| | |
| --- | --- |
| seen | phantoms of seed {DRAWN_FROM}, with the test parts that belong to so many: {drawn}; none of covid |
| shown | at {SIZE_PX} px, enlarged up to {1 / SMALLEST_PART:.1f} times, shifted, in other light; drawn at {DRAWN_PX} |
| trained | {EPOCHS} epochs, all tasks mixed, a linear head for each (left out here), batches of {BATCH} |
| optimizer | AdamW, weight decay {WEIGHT_DECAY}, one cycle of the rate, up to {RATE} |

Accuracy on {HELD_OUT} other phantoms of each task and their test parts, not enlarged; right is what an image shows:

| head | accuracy |
| --- | --- |
{heads}

What the weights are worth on chest films, which they have not seen: [transfer.md](../../benchmarks/transfer.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="a folder")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    images = seen(DRAWN_FROM, IMAGES)
    print(f"{len(images.pixels_NHWC)} images, {time.perf_counter() - began:.0f} s", flush=True)
    body, heads = trained(images, epochs=options.epochs)
    learned = accuracies(body, heads, seen(DRAWN_FROM + 1, dict.fromkeys(IMAGES, HELD_OUT)))
    save_file(
        {name: tensor.contiguous() for name, tensor in body.state_dict().items()},
        options.to / f"{MODEL}.safetensors",
    )
    text = recipe(learned)
    (options.to / f"{MODEL}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
