"""What a trial takes of a machine, and how Ray is reached."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import psutil
import pytest
from ray._private.runtime_env.packaging import create_package
from rich.console import Console

from datasets import InputError
from datasets.remote import RemoteFolder
from search import experiment
from search.ending import Ending
from search.nodes import missing
from search.options import Options
from search.ray_session import ROOMS, ROOT, Share, check_listening, excludes, share_of, waits


def share(*nodes: dict[str, float], **options: object) -> Share:
    return share_of(Options(task="digits", **options), nodes)


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"CPU": 2.0}, {}, Share(1, 0.0, 2)),
        ({"CPU": 8.0}, {"cpus_per_trial": 4}, Share(4, 0.0, 2)),
        ({"CPU": 16.0, "GPU": 4.0}, {}, Share(4, 1.0, 4)),
        ({"CPU": 16.0, "GPU": 4.0}, {"gpus_per_trial": 0.5}, Share(2, 0.5, 8)),
        ({"CPU": 16.0, "GPU": 4.0}, {"gpus_per_trial": 0.0}, Share(1, 0.0, 16)),
        ({"CPU": 2.0, "GPU": 4.0}, {}, Share(1, 1.0, 2)),
        ({"CPU": 2.0}, {"concurrent": 1}, Share(2, 0.0, 1)),
        ({"CPU": 2.0}, {"concurrent": 1, "cpus_per_trial": 1}, Share(1, 0.0, 1)),
        ({"CPU": 16.0}, {"concurrent": 5}, Share(3, 0.0, 5)),
        ({"CPU": 2.0}, {"concurrent": 8}, Share(1, 0.0, 8)),
        ({"CPU": 16.0, "GPU": 4.0}, {"concurrent": 2}, Share(8, 1.0, 2)),
        ({"CPU": 64.0}, {"address": "auto", "concurrent": 1}, Share(1, 0.0, 1)),
        # A cluster that is still empty says nothing of what it can grow to.
        ({}, {"address": "auto", "gpus_per_trial": 1.0, "concurrent": 8}, Share(1, 1.0, 8)),
        ({}, {"address": "auto"}, Share(1, 0.0, 1)),
    ],
)
def test_a_trial_takes_its_part_of_what_there_is(resources, options, expected):
    assert share(resources, **options) == expected


MACHINE, HEAD = {"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0}
LARGE = {"CPU": 48.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ((MACHINE, MACHINE), {}, Share(4, 1.0, 8)),
        ((HEAD, MACHINE), {}, Share(4, 1.0, 4)),  # not 8: the CPUs of a node without a GPU are of no use to it
        ((HEAD, HEAD, HEAD), {"cpus_per_trial": 12}, Share(12, 0.0, 3)),  # and not 4 of them
        ((MACHINE, {"CPU": 6.0, "GPU": 2.0}), {}, Share(3, 1.0, 6)),
        ((LARGE, LARGE), {"spread_folds": True}, Share(16, 1.0, 1, folds=5)),  # not 19: that were two on each
        ((HEAD, LARGE, LARGE), {"spread_folds": True}, Share(16, 1.0, 1, folds=5)),
        (({"CPU": 1.0}, {"CPU": 10.0}), {"spread_folds": True}, Share(2, 0.0, 1, folds=5)),
        ((HEAD, HEAD), {"cpus_per_trial": 24}, Share(24, 0.0, 1)),  # a larger node may come
    ],
)
def test_what_is_kept_for_a_trial_fits_on_the_nodes_of_a_cluster(nodes, options, expected):
    assert share_of(Options(task="digits", address="auto", **options), nodes, folds=5) == expected


@pytest.mark.parametrize(
    ("nodes", "options", "says"),
    [
        ((MACHINE,), {}, None),
        ((), {}, "a trial takes 1 CPUs on one node, and there are 0 CPUs and 0 GPUs on 0 nodes"),
        ((HEAD,), {"gpus_per_trial": 1.0}, "takes 1 CPUs and 1 GPUs on one node, and there are 16 CPUs and 0 GPUs"),
        ((HEAD, HEAD), {"cpus_per_trial": 24}, "a trial takes 24 CPUs on one node, and there are 32 CPUs"),
        ((MACHINE,), {"spread_folds": True}, "each of its 5 folds 1 CPUs and 1 GPUs on one node, and there are 16"),
    ],
)
def test_for_what_a_cluster_has_to_grow_is_said_in_one_line(nodes, options, says):
    taken = share_of(Options(task="digits", address="auto", **options), nodes, folds=5)
    told = waits(taken, nodes)
    assert told == says or (told.startswith("waiting for the cluster to grow: ") and says in told)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gpus_per_trial": 1.0}, "--gpus-per-trial 1: this machine has 0 GPUs"),
        ({"cpus_per_trial": 3}, "--cpus-per-trial 3: this machine has 2 CPUs"),
    ],
)
def test_what_this_machine_will_never_have_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        share({"CPU": 2.0}, **options)


def test_where_nobody_listens_no_cluster_is_waited_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=f"--address 127.0.0.1:{port}: nobody listens there"):
        check_listening(f"127.0.0.1:{port}")


def shipped(root: Path, *stay_behind: Path) -> set[str]:
    """The files that Ray sends to the nodes of a cluster."""
    package = root.parent / "package.zip"
    package.unlink(missing_ok=True)  # Ray takes one that is there for what it would make
    create_package(str(root), package, include_gitignore=True, excludes=excludes(root, stay_behind), logger=MagicMock())
    with zipfile.ZipFile(package) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in (
        *("search/__main__.py", "search/__pycache__/x.pyc", "trainables/weights/x.safetensors"),
        *("datasets/data/deep/table.csv", "datasets/mine/films/1.png", "trainables/[x]*/kept.py"),
        *("data/1.png", "results/covid/study.db", "results of May/x.db", "films [2]/*/1.png", ".git/config"),
        *("tests/test_x.py", "docs/x.png", ".venv/bin/python", "README.md", ".env"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".gitignore").write_text("/data/\n__pycache__/\n")
    return root


def test_code_is_shipped_and_nothing_else(checkout):
    files = {"search/__main__.py", "trainables/weights/x.safetensors", "datasets/data/deep/table.csv"}
    assert shipped(checkout, checkout / "datasets" / "mine", checkout, checkout.parent) == {
        *files,
        "trainables/[x]*/kept.py",
    }


def test_a_folder_of_odd_name_within_the_code_stays_behind_if_it_is_data(checkout):
    left = shipped(checkout) - shipped(checkout, checkout / "trainables" / "[x]*")
    assert left == {"trainables/[x]*/kept.py"}


def test_what_is_shipped_of_this_checkout_is_small(tmp_path):
    (tmp_path / "checkout").symlink_to(ROOT)
    files = shipped(tmp_path / "checkout")
    assert (tmp_path / "package.zip").stat().st_size < 20e6, "Ray refuses 512 MiB, and each node gets it"
    assert {name.partition("/")[0] for name in files} == set(ROOMS)
    assert {"search/__main__.py", "trainables/cross_validation.py", "datasets/fetching.py"} <= files


def test_a_node_says_what_it_does_not_see(tmp_path):
    token = tmp_path / "token"
    token.touch()
    assert missing(token, [tmp_path, RemoteFolder(tmp_path.as_uri())]) is None
    assert missing(None, [tmp_path / "films"]) == (
        f"does not see {tmp_path / 'films'}: put it on a folder that all nodes share, or give a URL"
    )
    assert "does not see file://" in missing(None, [RemoteFolder((tmp_path / "films").as_uri())])
    assert "cannot read nosuch://bucket" in missing(None, [RemoteFolder("nosuch://bucket/films")])


def test_results_that_are_not_there_are_waited_for_a_moment_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("search.nodes.SEEN_WITHIN_S", 0.1)
    assert missing(tmp_path / "results" / "token", []) == (
        f"does not see --results {tmp_path / 'results'}: give a folder that all nodes share, or --storage URL"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "images", "table": Path("/films/labels.csv")}, [Path("/films/labels.csv")]),
        ({"task": "images", "table": Path("labels.csv"), "data": Path("/films")}, [Path("/films")]),
        ({"task": "digits"}, []),
    ],
)
def test_every_node_is_asked_for_what_images_are_found_by(options, expected, monkeypatch):
    class Asked(Exception):
        pass

    def ask(results: Path | None, files: list[Path]) -> None:
        raise Asked(files)

    for name in ("set_environment", "leave_on_sigterm"):
        monkeypatch.setattr(experiment, name, lambda *_: None)
    monkeypatch.setattr(experiment, "ray_session", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(experiment, "check_nodes", ask)
    plan = SimpleNamespace(options=Options(address="auto", **options), weights="none")
    with pytest.raises(Asked) as asked, experiment._begun(plan, (), Ending(), Console(), None):
        pass
    assert asked.value.args == (expected,)


def test_ray_on_this_machine_listens_on_loopback_only(ray_on_loopback):
    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_rays_token_is_for_its_owner_only_and_what_it_tells_of_a_driver_has_no_secrets(tmp_path):
    start = "from search.ray_session import *; set_environment(None)\n"
    start += "with ray_session(None): import ray; print(ray._private.state.state.job_table()[0]['Entrypoint'])"
    secrets = ["--storage", "s3://key:hidden@bucket/x", "--study=postgresql://me:hidden@host/x", "--trials", "3"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", start, *secrets],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
    assert done.stdout.strip().endswith("--storage s3://bucket/x --study=postgresql://me@host/x --trials 3")


def test_the_driver_trains_nothing_and_does_without_torch():
    check = "import sys, search.tuning; print(sorted({'torch', 'timm', 'plotly'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
