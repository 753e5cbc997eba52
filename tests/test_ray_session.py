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
from search.ray_session import ROOT, Share, _excludes, check_listening, share_of


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


def test_trials_take_the_processes_that_ray_has_started_with_itself(ray_on_loopback):
    """Tune's own way is an environment of its own for every actor, and so a process that has to be started first."""
    from ray.tune.execution import class_cache, tune_controller

    from search.ray_session import take_started_workers

    class Trainable:
        pass

    cache = tune_controller._ActorClassCache
    try:
        of_tune = class_cache._ActorClassCache().get(Trainable)
        assert of_tune._default_options["runtime_env"], "else there is nothing to do"
        take_started_workers()
        classes = tune_controller._ActorClassCache()
        assert classes.get(Trainable) is classes.get(Trainable)
        assert not classes.get(Trainable)._default_options.get("runtime_env")
    finally:
        tune_controller._ActorClassCache = cache


def test_the_driver_trains_nothing_and_does_without_torch():
    check = "import sys, search.tuning; print(sorted({'torch', 'timm', 'plotly'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
