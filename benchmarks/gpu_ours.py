"""The parts of `benchmarks.gpu` that train with this program itself."""

import os
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch.nn import functional as F

from benchmarks.gpu_setting import Row, Setting, Skipped, measured_step


def _lockstep(setting: Setting, k: int, fused: bool = True, **config: Any) -> Any:
    try:
        import datasets
        from datasets.folds import make_folds
        from trainables import fold_group, lockstep
        from trainables.config import TrialConfig
        from trainables.protocol import Protocol
    except ModuleNotFoundError as missing:
        raise Skipped(f"{missing.name} is not installed") from None
    os.environ.setdefault("IMAGE_SEARCH_STORE", tempfile.mkdtemp())
    request = datasets.Request(demonstration=True, images=setting.phantoms)
    dataset = datasets.load("covid", request=request, drop=()).part("development")
    common = {"model": setting.model, "image_size_px": setting.image_size_px, "learning_rate": 1e-3}
    protocol = Protocol(metric="log_loss", max_epochs=10**6, seed=0, precision="bfloat16", device=setting.device)
    params = common | {"batch_size": setting.batch_size} | config
    with patch.object(fold_group, "can_be_fused", fold_group.can_be_fused if fused else lambda *_: False):
        return lockstep.Lockstep(TrialConfig.of(params), dataset, make_folds(dataset, k, seed=0), protocol)


def tuning(setting: Setting) -> Iterator[Row]:
    """An epoch of full fine-tuning, two folds with validation: a bare loop over the same images, and ours."""
    lockstep = _lockstep(setting, 2)
    sizes = [setting.phantoms - setting.phantoms // 2, setting.phantoms // 2]
    side, generator = setting.image_size_px, torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (setting.phantoms, side, side, 3), dtype=torch.uint8, generator=generator)
    networks = [
        timm.create_model(setting.model, num_classes=1).to(setting.device).to(memory_format=torch.channels_last)
        for _ in sizes
    ]
    optimizers = [torch.optim.Adam(network.parameters(), 1e-3) for network in networks]
    truth = torch.randint(2, (setting.phantoms, 1)).float()

    def batch(rows: torch.Tensor) -> torch.Tensor:
        images = pixels.index_select(0, rows).to(setting.device, non_blocking=True).permute(0, 3, 1, 2)
        return (images.float().div_(255) - 0.45) / 0.22

    def epoch() -> None:
        for network, optimizer, size in zip(networks, optimizers, sizes, strict=True):
            network.train()
            for rows in torch.randperm(size).split(setting.batch_size):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(setting.device, torch.bfloat16):
                    logits = network(batch(rows))
                wanted = truth[rows].to(setting.device, non_blocking=True)
                F.binary_cross_entropy_with_logits(logits.float(), wanted).backward()
                optimizer.step()
            network.eval()
            with torch.inference_mode(), torch.autocast(setting.device, torch.bfloat16):
                torch.cat([network(batch(rows)) for rows in torch.arange(setting.phantoms - size).split(64)]).cpu()

    yield Row("a bare loop", *measured_step(setting, epoch, repeats=5), "ms per epoch")
    yield Row("ours", *measured_step(setting, lockstep.advance, repeats=5), "ms per epoch")


def folds(setting: Setting) -> Iterator[Row]:
    """An epoch of k heads on stored features, in turn and as one."""
    for k in (3, 5, 10):
        for words, fused in (("in turn", False), ("fused", True)):
            lockstep = _lockstep(setting, k, fused, unfrozen_layers=0, dense_widths=(128,), dropout=0.2)
            yield Row(f"k = {k}, {words}", *measured_step(setting, lockstep.advance, repeats=5), "ms per epoch")
