"""Everything that a GPU changes, on one GPU, in less than ten minutes.

    python -m benchmarks.gpu                    every part; --parts precision,oom for some of them
    python -m benchmarks.gpu --record           adds the rows to gpu.md
    python -m benchmarks.gpu --device cpu --quick    the same code on a CPU, tiny, to see that it works

Needs PyTorch, torchvision and timm. The parts that train with this program itself (`tuning`, `folds`) need polars and
kornia as well; what cannot be measured here is skipped, by its name. Without a GPU: "skipped: no GPU".
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.gpu_heads import heads, tails
from benchmarks.gpu_ours import folds, tuning
from benchmarks.gpu_setting import Row, Setting, Skipped, measured_step, peak_mb
from trainables.memory import Before, fitting

MOST_S = 540.0
"""No part begins after that."""


def loop(setting: Setting, bfloat16: bool = True, channels_last: bool = True) -> tuple[nn.Module, Callable[[], None]]:
    """A bare training loop over tensors on the device: the network, and one step of it."""
    torch.manual_seed(0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    network = timm.create_model(setting.model, num_classes=1).to(setting.device).to(memory_format=memory_format)
    side = setting.image_size_px
    images = torch.randn(setting.batch_size, 3, side, side, device=setting.device).to(memory_format=memory_format)
    truth = torch.randint(2, (setting.batch_size, 1), device=setting.device).float()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device, torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        F.binary_cross_entropy_with_logits(logits.float(), truth).backward()
        optimizer.step()

    return network, step


def precision(setting: Setting) -> Iterator[Row]:
    """A step of the bare loop in float32 and bfloat16, with the channels first and last."""
    for words, bfloat16, channels_last in (
        ("float32", False, False),
        ("float32, channels last", False, True),
        ("bfloat16", True, False),
        ("bfloat16, channels last", True, True),
    ):
        _, step = loop(setting, bfloat16, channels_last)
        yield Row(words, *measured_step(setting, step), "ms per step")


def compiled(setting: Setting) -> Iterator[Row]:
    """torch.compile, without and with CUDA graphs (`reduce-overhead`), and what it takes to compile."""
    _, step = loop(setting)
    yield Row("as it is", *measured_step(setting, step), "ms per step")
    kinds = {"compiled": {}, "compiled, CUDA graphs": {"mode": "reduce-overhead"}}
    for words, options in kinds.items() if setting.device == "cuda" else [("traced only", {"backend": "eager"})]:
        network, step = loop(setting)
        network.compile(**options)
        began = time.perf_counter()
        for _ in range(3):  # graphs are recorded in the second and third
            step()
        setting.wait()
        seconds = time.perf_counter() - began
        yield Row(words, *measured_step(setting, step), "ms per step", f"{seconds:.0f} s until the fourth step")


@torch.inference_mode()
def prefix(setting: Setting) -> Iterator[Row]:
    """A pass of a frozen network over images that lie in memory as bytes, and its features back."""
    network = timm.create_model(setting.model, num_classes=0).eval().to(setting.device)
    network.to(memory_format=torch.channels_last)
    pixels = torch.randint(256, (setting.images, setting.image_size_px, setting.image_size_px, 3), dtype=torch.uint8)

    def passed(batch_size: int) -> None:
        for rows in torch.arange(setting.images).split(batch_size):
            images = pixels.index_select(0, rows).to(setting.device, non_blocking=True).permute(0, 3, 1, 2)
            with torch.autocast(setting.device, torch.bfloat16):
                network.forward_features(images.float().div_(255)).cpu()

    for batch_size in setting.prefix_batches:
        ms, memory = measured_step(setting, partial(passed, batch_size), repeats=3)
        words = f"batches of {batch_size}"
        yield Row(words, ms / setting.images, memory, "ms per image", f"{setting.images / ms * 1000:.0f} images/s")


def copies(setting: Setting) -> Iterator[Row]:
    """One shuffled batch of pixels, from the host's memory to normalised floats on the device."""
    pixels = torch.randint(256, (setting.images, setting.image_size_px, setting.image_size_px, 3), dtype=torch.uint8)
    there = pixels.to(setting.device)
    staged = torch.empty((setting.batch_size, *pixels.shape[1:]), dtype=torch.uint8)
    staged = staged.pin_memory() if setting.device == "cuda" else staged

    def floats(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float().div_(255)

    def rows() -> torch.Tensor:
        return torch.randint(setting.images, (setting.batch_size,))

    def pinned() -> torch.Tensor:
        setting.wait()  # the batch before must have left
        torch.index_select(pixels, 0, rows(), out=staged)
        return floats(staged.to(setting.device, non_blocking=True))

    for words, copy in (
        ("pageable", lambda: floats(pixels.index_select(0, rows()).to(setting.device))),
        (
            "pageable, non-blocking",
            lambda: floats(pixels.index_select(0, rows()).to(setting.device, non_blocking=True)),
        ),
        ("through pinned memory", pinned),
        ("all on the device", lambda: floats(there.index_select(0, rows().to(setting.device, non_blocking=True)))),
    ):
        yield Row(words, *measured_step(setting, copy), "ms per batch")


def _tunes(setting: Setting, barrier: Any, times: Any) -> None:
    _, step = loop(setting)
    for _ in range(3):
        step()
    setting.wait()
    barrier.wait()
    began = time.perf_counter()
    for _ in range(setting.steps):
        step()
    setting.wait()
    times.put((time.perf_counter() - began, peak_mb(setting)))


def packing(setting: Setting) -> Iterator[Row]:
    """Full fine-tuning in one process, and in several that share the GPU; time per step of all of them together."""
    context = multiprocessing.get_context("spawn")
    for processes in setting.processes:
        barrier, times = context.Barrier(processes), context.Queue()
        members = [context.Process(target=_tunes, args=(setting, barrier, times)) for _ in range(processes)]
        for member in members:
            member.start()
        ended = [times.get(timeout=300) for _ in members]
        for member in members:
            member.join()
        ms = max(seconds for seconds, _ in ended) * 1000 / (setting.steps * processes)
        yield Row(f"{processes} side by side", ms, sum(memory for _, memory in ended), "ms per step")


def oom(setting: Setting) -> Iterator[Row]:
    """A batch for which the memory, cut short, does not suffice: smaller parts, and the gradient of the whole."""
    if setting.device != "cuda":
        raise Skipped("needs a GPU's allocator")
    network, _ = loop(setting, bfloat16=False)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # its statistics are those of a part, which is the one thing that may differ
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    side = setting.image_size_px
    images = torch.randn(4 * setting.batch_size, 3, side, side, device="cuda").to(memory_format=torch.channels_last)

    def gradient(parts: int) -> list[torch.Tensor]:
        network.zero_grad(set_to_none=True)
        for part in images.tensor_split(parts):
            (network(part).square().sum() / len(images)).backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    whole, memory = gradient(1), 0.0
    ms, memory = measured_step(setting, lambda: gradient(1), repeats=5)
    yield Row("whole batch", ms, memory, "ms per batch")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.4 * memory * 1e6 / total)
    try:
        halved, parts = fitting(gradient, 1, len(images), Before(network))
        ms, memory = measured_step(setting, lambda: gradient(parts), repeats=5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    error = max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(halved, whole, strict=True))
    yield Row(f"with 0.4 of that: {parts} parts", ms, memory, "ms per batch", f"gradients differ by {error:.0e}")


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    part.__name__: part for part in (tuning, precision, compiled, prefix, copies, folds, tails, heads, packing, oom)
}


def measured_parts(setting: Setting, names: list[str]) -> Iterator[tuple[str, Row]]:
    """What each part gives; those that are skipped are said by their name."""
    began = time.perf_counter()
    for name in names:
        if time.perf_counter() - began > MOST_S:
            print(f"{name}: skipped: {MOST_S:.0f} s are over")
            continue
        try:
            for row in PARTS[name](setting):
                print(f"{name:<10}{row.what:<30}{row.figure:>10.3f} {row.unit:<14}{row.peak_mb:>8.0f} MB  {row.note}")
                yield name, row
        except Skipped as reason:
            print(f"{name}: skipped: {reason}")
        if setting.device == "cuda":
            torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them: a,b")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it works")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    names = options.parts.split(",")
    if unknown := set(names) - PARTS.keys():
        parser.error(f"--parts {','.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no GPU")
        return
    setting = Setting.quick(options.device) if options.quick else Setting(options.device)
    rows = list(measured_parts(setting, names))
    if options.record:
        from benchmarks.measurement import record

        first: dict[tuple[str, str], float] = {}
        for name, row in rows:
            against = first.setdefault((name, row.unit), row.figure)
            figures = {"part": name, "what": row.what, "figure": f"{row.figure:.3g}", "unit": row.unit}
            compared = {"times_the_first": f"{row.figure / against:.2f}", "peak_MB": round(row.peak_mb)}
            record("gpu", figures | compared, "; ".join(filter(None, (setting.words, row.note))))


if __name__ == "__main__":
    main()
