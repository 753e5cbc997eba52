"""How processes of one machine that train together find each other: by a file, where torch's own way (`TCPStore`)
listens on every interface of the machine, and asks nobody who he is.

Imports Ray.
"""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.torch import TorchConfig
from torch import distributed

OfTorch: Any = TorchConfig().backend_cls


@dataclass
class OnThisMachine(TorchConfig):
    """As `TorchConfig`, of which `backend` must be given."""

    @property
    def backend_cls(self) -> type:
        return _ByFile


class _ByFile(OfTorch):
    def on_start(self, worker_group: Any, backend_config: OnThisMachine) -> None:
        count, told = len(worker_group), backend_config
        with tempfile.TemporaryDirectory() as folder:
            joined = [
                worker_group.execute_single_async(place, _join, told.backend, folder, count, place, told.timeout_s)
                for place in range(count)
            ]
            ray.get(joined)


def _join(backend: str, folder: str, count: int, place: int, timeout_s: float) -> None:
    distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/rendezvous",
        timeout=timedelta(seconds=timeout_s),
        world_size=count,
        rank=place,
    )
