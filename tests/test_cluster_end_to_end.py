"""`cluster.yaml` on machines of one's own, from `ray up` to `ray down`: two nodes that are namespaces of this machine,
each with its own network, processes and sshd, and a third from which they are started. Nothing outside them is reached,
seen or ended by it: `ray stop`, which the launcher calls, ends every Ray process that it sees.

Run as a program, this file is the first process of the third namespace. When it ends, so does all that is in the three.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_rules import ROOT, on_own_machines

TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "ss", "nsenter", "mount", "mountpoint")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
PATH_OF_NODES = "/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = "10.201.77."
IP_OF = {"laptop": NETWORK + "1", "head": NETWORK + "2", "worker": NETWORK + "3"}
NODES = ("head", "worker")
USER = "ubuntu"
TRIALS = ("0000", "0001")
UP_S, SEARCH_S, DOWN_S = 180, 240, 90
ALONE_S = 60
GCS_PORT, DASHBOARD_PORT, FIRST_FREE_PORT = 6379, 8265, 10002

SSHD = """\
ListenAddress {ip}:22
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {keys}
PasswordAuthentication no
StrictModes no
# What a node lacks is not fetched from anywhere. A worker waits less long for a head that is gone: else it is a minute.
SetEnv RAY_gcs_rpc_server_reconnect_timeout_s=10 PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore PATH={path}
"""


def obstacle() -> str | None:
    """Why no namespaces can be made here, if so."""
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces and sshd for another user need root"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "ip", "link", "add", "br0", "type", "bridge"],
        capture_output=True,
        text=True,
    )
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else None


OBSTACLE = obstacle()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(UP_S + SEARCH_S + DOWN_S + ALONE_S + 60),
    pytest.mark.skipif(OBSTACLE is not None, reason=f"no cluster on this machine: {OBSTACLE}"),
]


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def hold_machines(folder: Path) -> None:
    """Two nodes behind a bridge, until standard input ends. The namespaces that it runs in are its own already."""
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")  # names of networks, and a folder that sshd wants
    Path("/run/sshd").mkdir(mode=0o755)
    run("mount", "--bind", str(folder / "laptop" / "ray"), "/tmp/ray")
    hostname = folder.name.replace("_", "0")
    run("hostname", f"laptop-{hostname}")  # the names of ssh's control sockets are made of it
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", IP_OF["laptop"] + "/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    for node in NODES:
        run("ip", "netns", "add", node)
        run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
        run("ip", "link", "set", f"to-{node}", "master", "br0", "up")
        for command in (
            ["link", "set", "lo", "up"],
            ["address", "add", IP_OF[node] + "/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", IP_OF["laptop"]],  # Ray asks it for the address of this node
        ):
            run("ip", "-n", node, *command)
        inside = (
            f"mount --bind {folder / node / 'ray'} /tmp/ray && mount --bind {folder / 'passwd'} /etc/passwd && "
            f"mount --bind {folder / node / 'home'} {folder / 'home'} && "
            f"mount --bind {folder / 'shared'} {folder / 'home' / 'shared'} && hostname {node}-{hostname} && "
            f"{{ {shutil.which('sshd', path=PATH)} -D -e -f {folder / node / 'sshd_config'} & wait; }}"
        )
        namespaces = ["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        with (folder / node / "sshd.log").open("w") as log:
            subprocess.Popen(
                ["ip", "netns", "exec", node, "unshare", *namespaces, "bash", "-c", inside], stdout=log, stderr=log
            )
    for node in NODES:
        _wait_for_port(IP_OF[node], 22)
    print("up", flush=True)  # noqa: T201
    sys.stdin.read()


def _wait_for_port(ip: str, port: int, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((ip, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def prepare(folder: Path) -> None:
    """Homes, keys and accounts of the nodes and of the laptop; the environment is the one of this test."""
    Path("/tmp/ray").mkdir(exist_ok=True)  # something to mount upon
    for name in ("laptop", *NODES):
        (folder / name / "ray").mkdir(parents=True)
        (folder / name / "home").mkdir()
    (folder / "shared").mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "laptop" / "key"], check=True)
    (folder / "home").mkdir()  # each node sees its own there
    # Of the two names of user 0 the first counts: ssh looks there for what `~` is.
    accounts = [
        f"{USER}:*:0:0::{folder / 'home'}:/bin/bash",
        *(line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(("sshd:", USER))),
        "sshd:*:65533:65534::/run/sshd:/usr/sbin/nologin",
    ]
    (folder / "passwd").write_text("\n".join([*accounts, ""]))
    for node in NODES:
        home = folder / node / "home"
        (home / "shared").mkdir()
        (home / "venv").symlink_to(sys.prefix)
        (home / ".bashrc").touch()
        config = SSHD.format(
            ip=IP_OF[node], folder=folder / node, keys=folder / "laptop" / "key.pub", path=PATH_OF_NODES
        )
        (folder / node / "sshd_config").write_text(config)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / node / "host_key"], check=True)


@dataclass(frozen=True)
class Machines:
    folder: Path
    first_pid: int
    """Of the laptop's namespaces."""

    def run(self, *command: str, within_s: float, **env: str) -> subprocess.CompletedProcess[str]:
        """The command on the laptop, in the checkout. Its output is in a file: what it leaves behind holds no pipe."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
        env = clean | {"HOME": str(self.folder / "laptop" / "home"), "PATH": PATH, "RAY_USAGE_STATS_ENABLED": "0"} | env
        enter = ["nsenter", "--target", str(self.first_pid), "--net", "--mount", "--pid", "--uts", f"--wd={ROOT}"]
        with tempfile.TemporaryFile("w+", dir=self.folder) as output:
            process = subprocess.Popen(
                [*enter, *command], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                returncode = process.wait(within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                returncode = process.wait()
            output.seek(0)
            return subprocess.CompletedProcess(command, returncode, output.read())

    def ray(self, subcommand: str, *arguments: str, within_s: float) -> subprocess.CompletedProcess[str]:
        file = str(self.folder / "cluster.yaml")
        return self.run("ray", subcommand, file, *arguments, within_s=within_s)

    def processes_of_ray(self, node: str) -> set[str]:
        """Names of those that are on the node."""
        network = self.run("ip", "netns", "pids", node, within_s=10).stdout.split()
        found = self.run("ps", "-o", "comm=", "-p", ",".join(network), within_s=10).stdout.split()
        return {name for name in found if name in ("gcs_server", "raylet")}


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    import psutil

    with tempfile.TemporaryDirectory(prefix="up-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        prepare(folder)
        key = str(folder / "laptop" / "key")
        cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        cluster = on_own_machines(cluster, IP_OF["head"], [IP_OF["worker"]]) | {
            "auth": {"ssh_user": USER, "ssh_private_key": key}
        }
        (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster))
        namespaces = ["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, "-m", "tests.test_cluster_end_to_end", str(folder)],
            cwd=ROOT,
            env=os.environ | {"PATH": PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout.readline() == "up\n", "no machines: the reason is in standard error"
            [first] = psutil.Process(process.pid).children()
            yield Machines(folder, first.pid)
        finally:
            process.kill()  # and with it the first process of the namespaces, and with that all others
            process.wait()
            process.stdin.close()
            process.stdout.close()


BOTH_NODES = """\
import time, ray
ray.init('auto', log_to_driver=False)
while len(ray.nodes()) < 2:
    time.sleep(0.5)"""


@dataclass(frozen=True)
class Cluster:
    machines: Machines
    up: subprocess.CompletedProcess[str]
    grown: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def cluster(machines: Machines) -> Cluster:
    token = machines.run(
        "bash", "-c", "umask 077; ray get-auth-token --generate > /dev/null; chmod 700 ~/.ray", within_s=60
    )
    assert token.returncode == 0, token.stdout
    up = machines.ray("up", "--yes", "--no-config-cache", within_s=UP_S)
    assert up.returncode == 0, up.stdout
    return Cluster(machines, up, machines.ray("exec", f'timeout 120 python -c "{BOTH_NODES}"', within_s=130))


@dataclass(frozen=True)
class Search:
    done: subprocess.CompletedProcess[str]
    home: Path
    """Of the results, once they have been fetched."""

    def last_report(self, trial: str) -> dict[str, Any]:
        lines = (self.home / "covid-demo" / "trials" / trial / "reports.jsonl").read_text().splitlines()
        return json.loads(lines[-1])


@pytest.fixture(scope="module")
def search(cluster: Cluster) -> Search:
    from ray._private.utils import get_num_cpus

    # A trial takes the processors of a whole node, so that two at a time need both.
    size = f"--trials {len(TRIALS)} --folds 2 --max-epochs 1 --images 24"
    share = f"--concurrent 2 --cpus-per-trial {get_num_cpus()}"
    tiny = "--models svendsen_cnn --set image_size_px=70 --no-explain --results ~/shared/results"
    done = cluster.machines.ray(
        "exec",
        f"cd ~/image-search && python -m search covid --demo --address auto {size} {share} {tiny}",
        within_s=SEARCH_S,
    )
    home = cluster.machines.folder / "laptop" / "results"
    assert done.returncode == 0, done.stdout
    fetched = cluster.machines.ray("rsync-down", "~/shared/results/", f"{home}/", within_s=60)
    assert fetched.returncode == 0, fetched.stdout
    return Search(done, home)


def test_the_cluster_gets_its_worker(cluster: Cluster) -> None:
    assert cluster.grown.returncode == 0, cluster.grown.stdout + cluster.up.stdout


def test_the_dashboard_is_not_on_the_network(cluster: Cluster) -> None:
    def open_to_laptop(port: int) -> bool:
        connect = f"import socket; socket.create_connection(('{IP_OF['head']}', {port}), 5)"
        return cluster.machines.run(sys.executable, "-c", connect, within_s=30).returncode == 0

    assert open_to_laptop(GCS_PORT), "the network is not what it should be"
    assert not open_to_laptop(DASHBOARD_PORT)


def test_the_ports_are_those_of_the_documentation(cluster: Cluster) -> None:
    table = re.findall(
        r"^\| (\d+) \| (.*?) \| .* \| (.*?) \|$", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE
    )
    documented = {int(port): on_loopback == "loopback" for port, node, on_loopback in table if node != "EFS"}
    sockets = cluster.machines.run("ip", "netns", "exec", "head", "ss", "-Hltn", within_s=10).stdout.splitlines()
    seen: dict[int, set[str]] = defaultdict(set)
    for line in sockets:
        address, port = line.split()[3].rsplit(":", 1)
        seen[int(port)].add(address)
    assert documented.keys() <= seen.keys()
    assert {port for port in seen if port < FIRST_FREE_PORT} <= documented.keys()
    assert {port for port in documented if seen[port] == {"127.0.0.1"}} == {
        port for port, on_loopback in documented.items() if on_loopback
    }


@pytest.mark.parametrize("has_token", [True, False])
def test_who_has_no_token_is_refused(cluster: Cluster, has_token: bool) -> None:
    stranger = {} if has_token else {"HOME": "/nonexistent", "RAY_AUTH_TOKEN": "0" * 64}
    address = f"{IP_OF['head']}:{GCS_PORT}"
    asked = cluster.machines.run("ray", "status", "--address", address, within_s=60, RAY_AUTH_MODE="token", **stranger)
    assert ("Active:" in asked.stdout) is has_token, asked.stdout
    assert (asked.returncode == 0) is has_token, asked.stdout


def test_a_search_ends_well(search: Search) -> None:
    assert search.done.returncode == 0, search.done.stdout


def test_its_results_come_home(search: Search) -> None:
    assert (search.home / "covid-demo" / "report.html").is_file()
    for trial in TRIALS:
        assert search.last_report(trial)["done"]
        [checkpoint] = (search.home / "covid-demo" / "trials" / trial).glob("checkpoint*")
        assert (checkpoint / "model.safetensors").is_file(), "what the worker writes is not what the head reads"
        assert not (checkpoint.parent / "error.txt").exists()


def test_both_nodes_have_worked(search: Search) -> None:
    assert len({search.last_report(trial)["node"] for trial in TRIALS}) == 2


def test_nothing_is_left_after_down(search: Search, machines: Machines) -> None:
    before = {node: machines.processes_of_ray(node) for node in NODES}
    assert before == {"head": {"gcs_server", "raylet"}, "worker": {"raylet"}}
    down = machines.ray("down", "--yes", within_s=DOWN_S)
    assert down.returncode == 0, down.stdout
    assert machines.processes_of_ray("head") == set()
    # On machines of one's own the launcher speaks to the head only.
    deadline = time.monotonic() + ALONE_S
    while (left := machines.processes_of_ray("worker")) and time.monotonic() < deadline:
        time.sleep(1)
    assert left == set()


if __name__ == "__main__":
    hold_machines(Path(sys.argv[1]))
