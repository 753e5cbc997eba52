"""What a trial takes of a machine, and how Ray is reached."""

import os
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from datasets import InputError
from search.options import Options
from search.ray_session import ROOT, Share, _excludes, _join, share_of


def share(resources: dict[str, float], **options: object) -> Share:
    return share_of(Options(task="digits", **options), resources)


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"CPU": 2.0}, {}, Share(1, 0.0, 2)),
        ({"CPU": 8.0}, {"cpus_per_trial": 4}, Share(4, 0.0, 2)),
        ({"CPU": 16.0, "GPU": 4.0}, {}, Share(4, 1.0, 4)),
        ({"CPU": 16.0, "GPU": 4.0}, {"gpus_per_trial": 0.5}, Share(2, 0.5, 8)),
        ({"CPU": 16.0, "GPU": 4.0}, {"gpus_per_trial": 0.0}, Share(1, 0.0, 16)),
        ({"CPU": 2.0, "GPU": 4.0}, {}, Share(1, 1.0, 2)),
        ({"CPU": 2.0}, {"concurrent": 1}, Share(1, 0.0, 1)),
        # A cluster that is still empty says nothing of what it can grow to.
        ({}, {"address": "auto", "gpus_per_trial": 1.0, "concurrent": 8}, Share(1, 1.0, 8)),
        ({}, {"address": "auto"}, Share(1, 0.0, 1)),
    ],
)
def test_a_trial_takes_its_part_of_what_there_is(resources, options, expected):
    assert share(resources, **options) == expected


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
        _join(f"127.0.0.1:{port}", {})


def test_data_and_results_inside_the_checkout_are_not_shipped(tmp_path):
    assert _excludes((ROOT / "mine" / "films", tmp_path, ROOT)) == [".git", "/.venv", "/mine/films"]


def test_ray_on_this_machine_listens_on_loopback_only(ray_on_loopback):
    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_rays_token_is_for_its_owner_only(tmp_path):
    start = "from search.ray_session import *; set_environment(None)\nwith ray_session(None): pass"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run([sys.executable, "-c", start], cwd=ROOT, env=environment | {"HOME": str(tmp_path)}, check=True)
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
