"""How processes of one machine that train together find each other."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

import search.rendezvous
from search.rendezvous import AcrossNodes, OnThisMachine, _ByFile, interface_of


class Workers:
    """A group of one, which is this process; Ray's own answers are references."""

    def __len__(self) -> int:
        return 1

    def execute_single_async(self, place: int, do: Any, *given: Any) -> Any:
        return do(*given)

    def execute(self, do: Any, *given: Any) -> list[Any]:
        return [do(*given)]

    def execute_async(self, *_: Any, **__: Any) -> list[Any]:
        distributed.destroy_process_group()
        return []


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where the files are by which workers meet."""
    monkeypatch.setattr(search.rendezvous.ray, "get", lambda answers, **_: answers)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_workers_can_meet_as_long_as_they_train_together_and_nothing_stays_behind(folders):
    """NCCL does so at its first sum, long after the start."""
    backend, told = _ByFile(), OnThisMachine(backend="gloo", timeout_s=5)
    for _ in range(2):  # the second time after a worker has died
        backend.on_start(Workers(), told)
        store = distributed.distributed_c10d._get_default_store()
        store.set_timeout(timedelta(seconds=1))
        store.set("identity", "of NCCL")
        assert store.get("identity") == b"of NCCL"
        backend.on_shutdown(Workers(), told)
        assert list(folders.iterdir()) == []


def test_workers_of_a_cluster_join_within_minutes_and_then_wait_for_each_other_for_hours(folders, monkeypatch):
    joined: list[float] = []

    def join(_: Any, workers: Any, told: AcrossNodes) -> None:
        joined.append(told.timeout_s)
        search.rendezvous._join(told.backend, str(folders), 1, 0, told.timeout_s)

    monkeypatch.setattr(search.rendezvous.OfTorch, "on_start", join)
    monkeypatch.setattr(search.rendezvous.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    for library in ("GLOO", "NCCL"):
        monkeypatch.setenv(f"{library}_SOCKET_IFNAME", "")  # restored afterwards
        monkeypatch.delenv(f"{library}_SOCKET_IFNAME")
    AcrossNodes().backend_cls().on_start(Workers(), AcrossNodes(backend="gloo", timeout_s=7200))
    assert joined == [search.rendezvous.JOINED_WITHIN_S]
    backend = distributed.group.WORLD._get_backend(torch.device("cpu"))
    assert backend.options._timeout == timedelta(hours=2)
    assert [os.environ[f"{library}_SOCKET_IFNAME"] for library in ("GLOO", "NCCL")] == ["lo", "=lo"]


def test_an_address_that_no_interface_has_leaves_the_choice_to_gloo_and_nccl():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_nothing_stays_behind_of_workers_that_cannot_say_goodbye(folders):
    class Dead(Workers):
        def execute_async(self, *_: Any, **__: Any) -> list[Any]:
            raise search.rendezvous.ray.exceptions.RayActorError

    backend, told = _ByFile(), OnThisMachine(backend="gloo", timeout_s=5)
    backend.on_start(Workers(), told)
    with pytest.raises(search.rendezvous.ray.exceptions.RayActorError):
        backend.on_shutdown(Dead(), told)
    assert list(folders.iterdir()) == []
