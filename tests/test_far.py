"""`--address ray://`: what is asked for, and what is refused at once. A search from afar is in test_two_raylets.py."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import search
from datasets import InputError
from search.far import SPACE, _there, check_far, is_far
from search.options import Options

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "ray://127.0.0.1:10001"


@pytest.mark.parametrize(
    ("address", "far"), [(None, False), ("auto", False), ("10.0.0.1:6379", False), (ADDRESS, True)]
)
def test_only_ray_client_is_far(address, far):
    assert is_far(address) is far


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "--results results: with ray:// it is a folder of the cluster; give an absolute one"),
        (
            {"data": "films", "results": Path("/shared")},
            "--data films: with ray:// it is a path of the cluster's nodes",
        ),
        ({"weights": "mine.safetensors", "results": Path("/shared")}, "--weights mine.safetensors: with ray://"),
        ({"table": Path("labels.csv"), "data": "/x", "results": Path("/shared")}, "--table labels.csv: with ray://"),
    ],
)
def test_what_would_be_lost_or_is_not_there_is_refused(options, says):
    with pytest.raises(InputError, match=says) as told:
        check_far(Options(task="images", address=ADDRESS, **options))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "options",
    [
        {"data": "/shared/films", "weights": "imagenet"},
        {"data": "s3://bucket/films", "table": Path("labels.csv")},
        {"demo": True, "weights": "/shared/mine.safetensors"},
    ],
)
def test_what_the_cluster_can_find_is_taken(options):
    check_far(Options(task="images", address=ADDRESS, results=Path("/shared/results"), **options))


@pytest.mark.parametrize("given", [["--address", ADDRESS], [f"--address={ADDRESS}"]])
@pytest.mark.parametrize("space", [["--space", "my/space.py"], ["--space=my/space.py"]])
def test_the_search_there_is_told_all_but_the_address_and_where_its_space_is(given, space):
    told = _there(["covid", *given, "--demo", *space, "--trials", "3"])
    assert told == ["covid", "--demo", "--space", SPACE, "--trials", "3"]


def test_a_mistake_is_told_at_once_by_the_command_line():
    asked = [sys.executable, "-m", "search", "digits", "--address", ADDRESS]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --results results: with ray://")


def test_where_nobody_listens_no_cluster_is_waited_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = ["digits", "--address", f"ray://127.0.0.1:{port}", "--results", "/tmp/none"]
    done = subprocess.run([sys.executable, "-m", "search", *asked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"--address ray://127.0.0.1:{port}: nobody listens there" in done.stderr


def test_from_python_the_command_line_is_pointed_to(tmp_path):
    with pytest.raises(InputError, match="use python -m search"):
        search.run("digits", address=ADDRESS, results=tmp_path)
