"""What a GPU has used, as its driver counts it (NVML; NVIDIA's from Volta on)."""

from functools import cache
from typing import Any

import torch


def joules(device: str) -> float | None:
    """Since the driver was loaded, of all that is computed on this process's GPU; None of a CPU, and where the driver
    does not tell."""
    return _counted() if device == "cuda" else None


def _counted() -> float | None:
    handle = _handle()
    if handle is None:
        return None
    import pynvml

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None


@cache
def _handle() -> Any:
    """By its own name, for the numbers of NVML know nothing of `CUDA_VISIBLE_DEVICES`. None where NVML does not answer,
    or is not installed: `benchmarks/gpu.py` does without."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
    except pynvml.NVMLError:
        return None
