"""How processes that train together find each other.

Those of one machine by a file, where torch's own way (`TCPStore`) listens on every interface of the machine, and asks
nobody who he is. Those of a cluster in torch's way, and on the interface by which Ray reaches their node: gloo would
take that to which the name of the host leads, often loopback, and NCCL the first one, often that of containers.

Imports Ray.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.torch import TorchConfig
from torch import distributed

OfTorch: Any = TorchConfig().backend_cls
JOINED_WITHIN_S = 600
"""All workers of a cluster have begun by then: one that still does not answer cannot be reached."""


@dataclass
class OnThisMachine(TorchConfig):
    """As `TorchConfig`, of which `backend` must be given."""

    @property
    def backend_cls(self) -> type:
        return _ByFile


class _ByFile(OfTorch):
    """Ray Train has one of it for a training: workers that begin anew start and end again."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def on_start(self, worker_group: Any, backend_config: OnThisMachine) -> None:
        self._remove()
        # It stays as long as the group: NCCL looks into it when workers first add something up.
        self._folder = tempfile.TemporaryDirectory()
        count, told, folder = len(worker_group), backend_config, self._folder.name
        joined = [
            worker_group.execute_single_async(place, _join, told.backend, folder, count, place, told.timeout_s)
            for place in range(count)
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: OnThisMachine) -> None:
        try:
            super().on_shutdown(worker_group, backend_config)
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


@dataclass
class AcrossNodes(TorchConfig):
    """As `TorchConfig`; `timeout_s` is that of what is computed together."""

    @property
    def backend_cls(self) -> type:
        return _ByAddress


class _ByAddress(OfTorch):
    def on_start(self, worker_group: Any, backend_config: AcrossNodes) -> None:
        worker_group.execute(_take_interface)
        super().on_start(worker_group, AcrossNodes(backend=backend_config.backend, timeout_s=JOINED_WITHIN_S))
        worker_group.execute(_wait_at_most, backend_config.timeout_s)


def _take_interface() -> None:
    """What the user has set for a node stays."""
    if name := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # and not all whose names begin so


def interface_of(address: str) -> str | None:
    """The name of the network interface that has this address, on this machine."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    interfaces = psutil.net_if_addrs().items()
    return next((name for name, given in interfaces if address in (each.address for each in given)), None)


def _wait_at_most(seconds: float) -> None:
    distributed.set_timeout(timedelta(seconds=seconds))


def _join(backend: str, folder: str, count: int, place: int, timeout_s: float) -> None:
    distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/rendezvous",
        timeout=timedelta(seconds=timeout_s),
        world_size=count,
        rank=place,
    )
