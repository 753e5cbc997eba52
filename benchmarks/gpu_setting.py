"""How large the parts of `benchmarks.gpu` are, and how one of their steps is timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch


class Skipped(Exception):
    """A part that cannot be measured here, and why."""


@dataclass(frozen=True)
class Row:
    what: str
    figure: float
    peak_mb: float
    """Of the device: what torch reserved at most. 0 on a CPU."""
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Setting:
    device: str
    model: str = "mobilenetv2_100"
    image_size_px: int = 224
    batch_size: int = 32
    steps: int = 30
    """Between two looks at the clock."""
    images: int = 2048
    phantoms: int = 324
    prefix_batches: tuple[int, ...] = (64, 256, 1024)
    processes: tuple[int, ...] = (1, 2, 4)
    features: int = 1280
    trials: int = 8

    @staticmethod
    def quick(device: str) -> "Setting":
        return Setting(
            device,
            model="test_resnet",
            image_size_px=32,
            batch_size=8,
            steps=1,
            images=16,
            phantoms=24,
            prefix_batches=(8, 16),
            processes=(1, 2),
            features=16,
            trials=2,
        )

    @property
    def words(self) -> str:
        name = torch.cuda.get_device_name(0) if self.device == "cuda" else "CPU"
        return f"{name}, torch {torch.__version__}, {self.model}, {self.image_size_px} px, batches of {self.batch_size}"

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def measured_step(setting: Setting, step: Callable[[], Any], repeats: int | None = None) -> tuple[float, float]:
    """Milliseconds of a step and the device's peak memory in MB: the median of five series of `setting.steps` steps,
    or of `repeats` single ones, after a warm-up."""
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    series, steps = (repeats, 1) if repeats is not None else (5, setting.steps)
    series = min(series, 1) if setting.steps == 1 else series
    for _ in range(1 if repeats is not None else min(3, setting.steps)):
        step()
    times = []
    for _ in range(series):
        setting.wait()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        setting.wait()
        times.append((time.perf_counter() - began) * 1000 / steps)
    return median(times), peak_mb(setting)


def peak_mb(setting: Setting) -> float:
    return torch.cuda.max_memory_reserved() / 1e6 if setting.device == "cuda" else 0.0
