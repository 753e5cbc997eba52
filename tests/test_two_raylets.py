"""A search on a real Ray cluster of two nodes: two raylets of one CPU each on this machine, every listener on loopback,
each with a store of its own, and images in a bucket.
"""

import contextlib
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

import numpy as np
import pytest
import ray
from PIL import Image

from datasets.remote import RemoteFolder
from tests.s3_server import Bucket, bucket  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
START_S, SEARCH_S, STOP_S = 60, 240, 30
TRIALS = 4
SMALL = ["--folds", "2", "--max-epochs", "1", "--no-explain"]
HEAD_ONLY = """
from search_spaces import Experiment

EXPERIMENT = Experiment(metric="accuracy", folds=2, trials=2, max_epochs=1)


def search_space(trial):
    return {
        "model": "test_resnet",
        "image_size_px": 32,
        "batch_size": 8,
        "unfrozen_layers": 0,
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
    }
"""
"""One frozen prefix, whatever the configuration."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(START_S + SEARCH_S + STOP_S + 30)]


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
    client: str
    """Address for drivers that are no part of it."""

    @property
    def stores(self) -> dict[str, Path]:
        return {name: self.temp_dir / "stores" / name for name in ("head", "worker", "driver")}


@pytest.fixture(scope="module")
def two_raylets(bucket: Bucket) -> Iterator[TwoRaylets]:  # noqa: F811
    # Ray's socket names must stay below 107 characters, which pytest's own temporary folders would not leave.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))} | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # addresses of this machine are 127.0.0.1
            "RAY_TMPDIR": temp_dir,  # also for the file that tells `auto` which cluster is the latest
            "RAY_USAGE_STATS_ENABLED": "0",
            "IMAGE_SEARCH_STORE": f"{temp_dir}/stores/driver",
        }
        process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "two_raylets.py", f"{temp_dir}/stores"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            address, _, client_port = process.stdout.readline().strip().partition(" ")
            assert address.startswith("127.0.0.1:"), f"the cluster did not start: {address!r}"
            env["RAY_ADDRESS"] = address
            yield TwoRaylets(process.pid, Path(temp_dir), env, f"ray://127.0.0.1:{client_port}")
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
    stored: dict[str, set[tuple[str, int]]]
    """(name, inode) of all that was seen in each store meanwhile: what is computed again is another file."""

    def last_report(self, trial: str) -> dict[str, Any]:
        lines = (self.folder / "trials" / trial / "reports.jsonl").read_text().splitlines()
        return json.loads(lines[-1])


@pytest.fixture(scope="module")
def films(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
    """The URL of 24 images of two classes."""
    folder = tmp_path_factory.mktemp("films")
    drawn = np.random.default_rng(0)
    for number in range(24):
        file = folder / ("dark", "light")[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = drawn.integers(0, 100, (16, 16, 3)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    RemoteFolder(bucket.url("films")).send([str(file.relative_to(folder)) for file in folder.rglob("*.png")], folder)
    return bucket.url("films")


def stored(store: Path) -> set[tuple[str, int]]:
    found = set()
    for path in (*store.glob("*.npy"), *store.glob("data/*")):
        with contextlib.suppress(FileNotFoundError):  # just renamed
            found.add((path.name, path.stat().st_ino))
    return {(name, inode) for name, inode in found if not name.endswith(".part")}


@pytest.fixture(scope="module")
def search(two_raylets: TwoRaylets, films: str, tmp_path_factory: pytest.TempPathFactory) -> Search:
    results = tmp_path_factory.mktemp("results")
    (results / "space.py").write_text(HEAD_ONLY)
    options = ["--trials", str(TRIALS), *SMALL, "--results", str(results), "--space", str(results / "space.py")]
    with (results / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "search",
                "images",
                "--data",
                films,
                "--address",
                "auto",
                "--weights",
                "none",
                *options,
            ],
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
        seen: dict[str, set[tuple[str, int]]] = {name: set() for name in two_raylets.stores}
        deadline = time.monotonic() + SEARCH_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                of_driver |= listeners(family(process.pid))
                of_cluster |= listeners(family(two_raylets.pid))
                for name, store in two_raylets.stores.items():
                    seen[name] |= stored(store)
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            returncode = process.wait()
        output.seek(0)
        return Search(returncode, output.read(), results / "images", of_driver, of_cluster, seen)


def test_a_search_on_a_cluster_ends_well(search: Search) -> None:
    assert search.returncode == 0, search.output


@pytest.mark.parametrize("trial", range(TRIALS))
def test_each_trial_finishes(search: Search, trial: int) -> None:
    assert search.last_report(f"{trial:04}")["done"] is True


def test_both_nodes_work(search: Search) -> None:
    nodes = [search.last_report(f"{trial:04}")["node"] for trial in range(TRIALS)]
    assert len(set(nodes)) == 2, nodes
    for node in nodes:
        ray.NodeID.from_hex(node)


def test_the_code_is_shipped_to_the_workers(search: Search, two_raylets: TwoRaylets) -> None:
    shipped = two_raylets.temp_dir.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*")
    assert any((package / "trainables" / "cross_validation.py").is_file() for package in shipped)


@pytest.mark.parametrize("node", ["head", "worker"])
def test_each_node_fetches_decodes_and_computes_features_once_whatever_the_number_of_trials(
    search: Search, node: str
) -> None:
    kinds = sorted(name.partition("-")[0] for name, _ in search.stored[node] if "-" in name)
    assert kinds == ["features", "pixels", "rounding"], search.stored[node]
    (fetched,) = {name for name, _ in search.stored["driver"] if "-" not in name}
    assert [name for name, _ in search.stored[node] if "-" not in name] == [fetched]


def test_the_record_holds_no_secret(search: Search) -> None:
    record = json.loads((search.folder / "experiment.json").read_text())
    assert record["request"]["root"].startswith("s3://searches/films?endpoint_override=")


def called(two_raylets: TwoRaylets, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "search", *arguments, *SMALL],
        cwd=cwd,
        env=two_raylets.env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SEARCH_S,
    )


def test_results_that_another_node_does_not_see_are_refused(two_raylets: TwoRaylets, tmp_path: Path) -> None:
    elsewhere = "/proc/self/cwd/results"  # of a process: each has its own
    done = called(two_raylets, "digits", "--address", "auto", "--results", elsewhere, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"node 127.0.0.1 does not see --results {elsewhere}: give a folder that all nodes share" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def far_search(two_raylets: TwoRaylets, tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, Any]":
    results = tmp_path_factory.mktemp("far")
    space = results / "space.py"
    space.write_text((ROOT / "search_spaces" / "digits.py").read_text().replace('"patience": 9', '"patience": 7'))
    options = ["--results", str(results), "--trials", "2", "--space", str(space)]
    return results, called(two_raylets, "digits", "--address", two_raylets.client, *options)


def test_a_search_from_afar_says_here_what_it_says_there(far_search: "tuple[Path, Any]") -> None:
    results, done = far_search
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n2/2  trial" in done.stdout
    first = (results / "digits" / "trials" / "0000" / "reports.jsonl").read_text().splitlines()[-1]
    assert json.loads(first)["params"]["patience"] == 7, "not the space that lies here"
    assert (results / "digits" / "report.html").is_file()


def test_its_exit_status_is_that_of_the_search(two_raylets: TwoRaylets, far_search: "tuple[Path, Any]") -> None:
    again = called(two_raylets, "digits", "--address", two_raylets.client, "--results", str(far_search[0]))
    assert again.returncode == 2, again.stdout + again.stderr
    assert "error: experiment 'digits' exists" in again.stderr


def test_ctrl_c_from_afar_is_an_orderly_end_there(two_raylets: TwoRaylets, tmp_path: Path) -> None:
    options = ["--results", str(tmp_path), "--trials", "500", "--address", two_raylets.client]
    with subprocess.Popen(
        [sys.executable, "-m", "search", "digits", *options, *SMALL],
        cwd=ROOT,
        env=two_raylets.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as far:
        try:
            assert any(" 1/500  trial" in line for line in far.stdout)
            far.send_signal(signal.SIGINT)
            _, said = far.communicate(timeout=SEARCH_S)
        finally:
            far.kill()
    assert far.returncode == 130, said
    assert "Every finished trial is kept" in said
    assert (tmp_path / "digits" / "report.html").is_file()


def test_every_listener_is_on_loopback(search: Search) -> None:
    assert search.of_driver, "the driver was not looked at"
    assert {"gcs_server", "raylet"} <= {name for name, _ in search.of_cluster}
    assert {address for _, address in search.of_driver | search.of_cluster} <= LOOPBACK, search
