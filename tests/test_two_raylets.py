"""A search on a real Ray cluster of two nodes: two raylets of one CPU each on this machine, every listener on loopback.

Run as a program, this file holds such a cluster until its standard input ends, so that it cannot outlive the test.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
START_S, SEARCH_S, STOP_S = 60, 240, 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(START_S + SEARCH_S + STOP_S + 30)]


def hold_cluster() -> None:
    one_cpu = {"num_cpus": 1, "dashboard_agent_listen_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=one_cpu | {"include_dashboard": False})
    cluster.add_node(**one_cpu)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)  # noqa: T201
    sys.stdin.read()
    cluster.shutdown()


def family(pid: int) -> list[Any]:
    """The process and all that it started, as psutil.Process."""
    import psutil  # Ray brings it along, once it is imported

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def listeners(processes: list[Any]) -> set[tuple[str, str]]:
    """(process name, address) of each socket that waits for connections."""
    import psutil

    found = set()
    for process in processes:
        try:
            sockets = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            found |= {(process.name(), c.laddr.ip) for c in sockets}
        except psutil.Error:
            continue  # it has just ended
    return found


def end(process: subprocess.Popen[str]) -> None:
    """End the process and whatever it started; Ray's workers are in process groups of their own."""
    import psutil

    started = family(process.pid)
    process.stdin.close()
    _, alive = psutil.wait_procs(started, timeout=STOP_S)
    for left in alive:
        left.kill()
    process.wait()
    process.stdout.close()


@dataclass(frozen=True)
class TwoRaylets:
    pid: int
    temp_dir: Path
    env: dict[str, str]
    """What a driver needs to find the cluster."""


@pytest.fixture(scope="module")
def two_raylets() -> Iterator[TwoRaylets]:
    # Ray's socket names must stay below 107 characters, which pytest's own temporary folders would not leave.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))} | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # addresses of this machine are 127.0.0.1
            "RAY_TMPDIR": temp_dir,  # also for the file that tells `auto` which cluster is the latest
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        process = subprocess.Popen(
            [sys.executable, __file__],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("127.0.0.1:"), f"the cluster did not start: {address!r}"
            yield TwoRaylets(process.pid, Path(temp_dir), env | {"RAY_ADDRESS": address})
        finally:
            end(process)


@dataclass(frozen=True)
class Search:
    returncode: int
    output: str
    folder: Path
    """Of the experiment."""
    of_driver: set[tuple[str, str]]
    of_cluster: set[tuple[str, str]]
    """Listeners while it went on."""

    def last_report(self, trial: str) -> dict[str, Any]:
        lines = (self.folder / "trials" / trial / "reports.jsonl").read_text().splitlines()
        return json.loads(lines[-1])


@pytest.fixture(scope="module")
def search(two_raylets: TwoRaylets, tmp_path_factory: pytest.TempPathFactory) -> Search:
    results = tmp_path_factory.mktemp("results")
    options = ["--trials", "2", "--folds", "2", "--max-epochs", "1", "--no-explain", "--results", str(results)]
    with (results / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "search", "covid", "--demo", "--address", "auto", *options],
            cwd=ROOT,
            env=two_raylets.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        of_driver: set[tuple[str, str]] = set()
        of_cluster: set[tuple[str, str]] = set()
        deadline = time.monotonic() + SEARCH_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                of_driver |= listeners(family(process.pid))
                of_cluster |= listeners(family(two_raylets.pid))
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            returncode = process.wait()
        output.seek(0)
        return Search(returncode, output.read(), results / "covid-demo", of_driver, of_cluster)


def test_a_search_on_a_cluster_ends_well(search: Search) -> None:
    assert search.returncode == 0, search.output


@pytest.mark.parametrize("trial", ["0000", "0001"])
def test_each_trial_finishes(search: Search, trial: str) -> None:
    assert search.last_report(trial)["done"] is True


def test_both_nodes_work(search: Search) -> None:
    nodes = [search.last_report(trial)["node"] for trial in ("0000", "0001")]
    assert len(set(nodes)) == 2, nodes
    for node in nodes:
        ray.NodeID.from_hex(node)


def test_the_code_is_shipped_to_the_workers(search: Search, two_raylets: TwoRaylets) -> None:
    shipped = two_raylets.temp_dir.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*")
    assert any((package / "trainables" / "cross_validation.py").is_file() for package in shipped)


def test_every_listener_is_on_loopback(search: Search) -> None:
    assert search.of_driver, "the driver was not looked at"
    assert {"gcs_server", "raylet"} <= {name for name, _ in search.of_cluster}
    assert {address for _, address in search.of_driver | search.of_cluster} <= LOOPBACK, search


if __name__ == "__main__":
    hold_cluster()
