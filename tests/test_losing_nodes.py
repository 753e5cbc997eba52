"""Nodes that come and go while a search goes on, and at last the head with the driver: a real cluster on this machine.

Run as a program, this file holds such a cluster until its standard input ends; each line of it adds a node.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from analysis.happenings import happenings
from analysis.results import last_checkpoint
from tests.test_unbreakable import TRIALS, check_resumed, command, in_the_middle, told

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 400
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONGEST_S)]


def hold_cluster() -> None:
    """The head has no CPUs, as that of cluster.yaml: trials run on the others, of one CPU each."""
    free_port = {"dashboard_agent_listen_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=free_port | {"num_cpus": 0, "include_dashboard": False})
    print(cluster.address, flush=True)  # noqa: T201
    for _ in sys.stdin:
        node = cluster.add_node(num_cpus=1, **free_port)
        raylet = node.all_processes["raylet"][0].process.pid
        print(json.dumps({"node": node.node_id, "raylet": raylet}), flush=True)  # noqa: T201


@dataclass
class RunningCluster:
    address: str
    env: dict[str, str]
    process: subprocess.Popen[str]

    def add_node(self) -> tuple[str, int]:
        """Its number and the process of its raylet."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        added = json.loads(self.process.stdout.readline())
        return added["node"], added["raylet"]


def kill(processes: list[psutil.Process]) -> None:
    """All that they have started too, at once: the power goes off."""
    everything = {*processes}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            everything |= {*process.children(recursive=True)}
    for process in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(everything, timeout=30)


@contextlib.contextmanager
def running_cluster() -> Iterator[RunningCluster]:
    # Ray's socket names must stay below 107 characters, which pytest's own temporary folders would not leave.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))} | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # addresses of this machine are 127.0.0.1
            "RAY_TMPDIR": temp_dir,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
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
            yield RunningCluster(process.stdout.readline().strip(), env, process)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                kill([psutil.Process(process.pid)])
            process.wait()
            process.stdin.close()
            process.stdout.close()


@contextlib.contextmanager
def searching_on(cluster: RunningCluster, results: Path, *more: str) -> Iterator[subprocess.Popen]:
    with (results / "terminal.txt").open("a") as terminal:
        process = subprocess.Popen(
            [*command(results), "--max-epochs", "30", "--address", cluster.address, *more],
            cwd=ROOT,
            env=cluster.env,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill([psutil.Process(process.pid)])
        process.wait()


def wait_for(condition: Callable[[], object], process: subprocess.Popen, results: Path) -> None:
    until = time.monotonic() + LONGEST_S
    while not condition():
        assert process.poll() is None, (results / "terminal.txt").read_text()
        assert time.monotonic() < until, (results / "digits" / "happenings.jsonl").read_text()
        time.sleep(0.02)


def happened(results: Path, what: str) -> list[dict]:
    with contextlib.suppress(FileNotFoundError):
        lines = (results / "digits" / "happenings.jsonl").read_text().splitlines()
        return [told for told in map(json.loads, lines) if told["what"] == what]
    return []


def on_its_way(results: Path, node: str) -> list[int]:
    """Trials on that node that have reported and saved, and have not ended."""
    return [
        number
        for number, lines in told(results).items()
        if lines and lines[-1]["node"] == node and not lines[-1]["done"]
        if last_checkpoint(results / "digits" / "trials" / f"{number:04d}")
    ]


def test_nodes_come_and_go_the_head_is_lost_and_every_trial_ends_once(tmp_path):
    with running_cluster() as cluster:
        first, _ = cluster.add_node()
        with searching_on(cluster, tmp_path) as process:
            wait_for(lambda: on_its_way(tmp_path, first), process, tmp_path)
            second, raylet = cluster.add_node()
            wait_for(lambda: on_its_way(tmp_path, second), process, tmp_path)  # the new node is used
            (interrupted,) = on_its_way(tmp_path, second)
            kill([psutil.Process(raylet)])
            wait_for(lambda: happened(tmp_path, "node lost"), process, tmp_path)
            wait_for(lambda: happened(tmp_path, "went on"), process, tmp_path)
            wait_for(in_the_middle(tmp_path), process, tmp_path)
            kill([psutil.Process(cluster.process.pid), psutil.Process(process.pid)])
    before = told(tmp_path)
    assert [event["node"] for event in happened(tmp_path, "node joined")] == [second]
    assert [event["node"] for event in happened(tmp_path, "node lost")] == [second]
    assert [event["trial"] for event in happened(tmp_path, "process lost")] == [interrupted]
    assert [(event["trial"], event["epoch"] > 0) for event in happened(tmp_path, "went on")] == [(interrupted, True)]

    with running_cluster() as cluster:
        cluster.add_node()
        with searching_on(cluster, tmp_path, "--resume") as process:
            assert process.wait(LONGEST_S) == 0, (tmp_path / "terminal.txt").read_text()
    check_resumed(tmp_path, before)
    report = happenings(tmp_path / "digits")
    assert [session["words"].partition(",")[0].partition(";")[0] for session in report["sessions"]] == [
        "It was lost with its driver",
        "It came to its end",
    ]
    assert report["sessions"][1]["finished"] == TRIALS
    assert (report["nodes_joined"], report["nodes_lost"], report["processes_lost"]) == (1, 1, 1)
    assert {interrupted} < {*report["went_on"]}
    assert "What happened" in (tmp_path / "digits" / "report.md").read_text()


def test_sigterm_saves_what_is_running_and_says_how_to_go_on(tmp_path):
    with (tmp_path / "terminal.txt").open("w") as terminal:
        process = subprocess.Popen(
            [*command(tmp_path), "--max-epochs", "200"],
            cwd=ROOT,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: any(told(tmp_path).values()), process, tmp_path)
        running = [number for number, lines in told(tmp_path).items() if lines]
        os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
        assert process.wait(LONGEST_S) == 128 + signal.SIGTERM
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill([psutil.Process(process.pid)])
    said = (tmp_path / "terminal.txt").read_text()
    assert "SIGTERM" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert running
    for number in running:
        saved = last_checkpoint(tmp_path / "digits" / "trials" / f"{number:04d}")
        assert "_" in saved.name.removeprefix("checkpoint_"), "not at a rung, but when it was told"
        assert (saved / "state.pt").exists()
    assert (tmp_path / "digits" / "report.html").exists()


if __name__ == "__main__":
    hold_cluster()
