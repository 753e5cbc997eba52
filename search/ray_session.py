"""Ray, for as long as one search takes: started here on loopback, or a running cluster joined.

Ray reads its settings when it is imported, so nothing that imports Ray may be imported before `set_environment`.
"""

import contextlib
import dataclasses
import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import InputError
from search.options import Options
from search.ray_start import groups_of_their_own, secrets_kept, umask

ROOT = Path(__file__).parent.parent
ROOMS = ("analysis", "datasets", "search", "search_spaces", "trainables")
"""What of it is shipped to the workers of a cluster: some megabytes. Whatever else lies there stays behind, as the
results of other searches, and what Ray finds named in `.gitignore`."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Threads of a trial that wait for each other sleep: spinning, they hold up everybody where a core is wanted twice.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Our records survive a crash at any moment and Ray's snapshots are not read: as few of them as it allows.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # Of a process that was lost, `search.callbacks` says it in one line.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # `search.farewell` ends a search, and has trials save before.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Of trials that wait for their process: as many as may run, which is up to `search.farewell.Room`.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
ON_THIS_MACHINE = {
    # Puts every listener on loopback; on one machine with Linux it has no other effect.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}
ON_A_CLUSTER = {
    # Ray leaves these two out unasked, and says so at length each time; `excludes` leaves them out.
    "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",
}
CONNECTION_S = 10.0
Nodes = Sequence[dict[str, float]]
"""What each has of Ray's resources, `{"CPU": 2.0, "GPU": 1.0, …}`."""
SAID = 300
"""Characters that are shown of an error of Ray."""


def set_environment(address: str | None) -> None:
    """To be called before Ray is imported; what the user has set stays."""
    for name, value in (SETTINGS | (ON_THIS_MACHINE if address is None else ON_A_CLUSTER)).items():
        os.environ.setdefault(name, value)
    if store := os.environ.get("IMAGE_SEARCH_STORE"):
        os.environ["IMAGE_SEARCH_STORE"] = str(Path(store).absolute())  # workers have working folders of their own


@dataclass(frozen=True)
class Share:
    """What one trial takes of Ray's resources, and how many trials run side by side."""

    cpus: int
    gpus: float
    side_by_side: int
    folds: int = 0
    """That have a process each, with so many CPUs and GPUs; 0: one process trains all of a trial's."""

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What Ray keeps for a trial: for its process and, where they have their own, those of its folds."""
        one = {"CPU": float(self.cpus), "GPU": self.gpus}
        return [{"CPU": 1.0}, *[one] * self.folds] if self.folds else [one]

    def room(self, nodes: Nodes) -> int:
        """How many trials fit side by side, 1 at least."""
        return max(1, self.fitting(nodes))

    def fitting(self, nodes: Nodes) -> int:
        """As `room`, but 0 where none fits. A bundle lies on one node, those of a trial on any."""
        places = 0
        for node in nodes:
            by_cpus = int(node.get("CPU", 0)) // self.cpus
            places += min(by_cpus, _places(self.gpus, node.get("GPU", 0.0))) if self.gpus else by_cpus
        if not self.folds:
            return places
        # The CPU of a trial's own process is wherever one is left.
        return min(places // self.folds, _cpus(nodes) // (1 + self.folds * self.cpus))


def nodes_now() -> Nodes:
    """Of the cluster that Ray has, or this machine."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def share_of(options: Options, nodes: Nodes, per_gpu: int = 1, folds: int = 1) -> Share:
    """Unless told otherwise a trial takes a GPU where there are any, and its part of the CPUs; else one CPU, or more
    where `--concurrent` has fewer trials on this machine than it has CPUs. It has as many threads as CPUs, from its
    beginning to its end whoever else is at work: a sum over other parts rounds otherwise, and training amplifies that.

    nodes: that Ray has now. per_gpu: trials that share one with `--gpus-per-trial auto`. folds: of a trial; with
    `--spread-folds` each takes what else a trial does, and the trial one CPU more. Raises `InputError` where a trial
    would wait for ever: a cluster may grow, this machine will not.
    """
    all_cpus, all_gpus = _cpus(nodes), _gpus(nodes)
    if options.gpus_per_trial == "auto":
        gpus = 10_000 // per_gpu / 10_000 if all_gpus >= 1 else 0.0  # Ray counts in ten-thousandths
    elif options.gpus_per_trial is None:
        gpus = 1.0 if all_gpus >= 1 else 0.0
    else:
        gpus = float(options.gpus_per_trial)
    spread = folds if options.spread_folds else 0
    least = Share(1, gpus, side_by_side=1, folds=spread)
    most = least.room(nodes)
    if options.concurrent is not None and options.address is None:
        most = min(most, options.concurrent)
    # Its part of all of them may be more than as many nodes have for one.
    part = (all_cpus // most - 1) // spread if spread else all_cpus // most
    fewer = (n for n in range(part, 1, -1) if dataclasses.replace(least, cpus=n).fitting(nodes) >= most)
    cpus = options.cpus_per_trial or next(fewer, 1)
    if options.address is None and spread:
        _check_spread(Share(cpus, gpus, 1, spread), all_cpus, all_gpus)
    elif options.address is None:
        for option, wanted, there, unit in (
            ("--cpus-per-trial", cpus, all_cpus, "CPUs"),
            ("--gpus-per-trial", gpus, all_gpus, "GPUs"),
        ):
            if wanted > there:
                raise InputError(f"{option} {wanted:g}: this machine has {there:g} {unit}")
    share = Share(cpus, gpus, side_by_side=options.concurrent or 1, folds=spread)
    return share if options.concurrent else dataclasses.replace(share, side_by_side=share.room(nodes))


def waits(share: Share, nodes: Nodes) -> str | None:
    """What a cluster lacks for even one trial, in one line; None where there is room. It may come, from an autoscaler
    or by hand, so that nobody but who reads this can say that it will not."""
    if share.fitting(nodes):
        return None
    takes = f"{share.cpus} CPUs" + (f" and {share.gpus:g} GPUs" if share.gpus else "")
    each = f"each of its {share.folds} folds {takes} on one node" if share.folds else f"{takes} on one node"
    return (
        f"waiting for the cluster to grow: a trial takes {each}, and there are {_cpus(nodes)} CPUs and "
        f"{_gpus(nodes):g} GPUs on {len(nodes)} nodes"
    )


def _cpus(nodes: Nodes) -> int:
    return sum(int(node.get("CPU", 0)) for node in nodes)


def _gpus(nodes: Nodes) -> float:
    return sum(node.get("GPU", 0.0) for node in nodes)


def _places(gpus: float, all_gpus: float) -> int:
    """How many processes have such a part of a GPU each, or so many, on that many GPUs; a part lies on one of them."""
    return int(all_gpus) * int(1 / gpus) if gpus < 1 else int(all_gpus / gpus)


def _check_spread(share: Share, all_cpus: int, all_gpus: float) -> None:
    """Raises `InputError` where this machine has no room for one trial."""
    cpus = 1 + share.folds * share.cpus
    if cpus > all_cpus:
        raise InputError(
            f"--spread-folds: a trial of {share.folds} folds takes {cpus} CPUs, {share.cpus} for each fold and one "
            f"more: this machine has {all_cpus}; leave it out, or give fewer --folds or --cpus-per-trial"
        )
    if share.gpus and _places(share.gpus, all_gpus) < share.folds:
        raise InputError(
            f"--spread-folds: {share.folds} folds, each with {share.gpus:g} of a GPU, do not fit on the "
            f"{all_gpus:g} of this machine: give less to each with --gpus-per-trial, a fraction if need be"
        )


@contextlib.contextmanager
def ray_session(address: str | None, stay_behind: tuple[Path, ...] = ()) -> Iterator[dict[str, float]]:
    """Ray's resources while it is up. A session that the caller has already started is used, and left running.

    stay_behind: folders that are not shipped to the workers of a cluster, as those of data and results.
    """
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Ray makes its token file on first use, for everybody to read unless told otherwise.
        with umask(0o077), groups_of_their_own(), secrets_kept():
            ray.init(address="local", include_dashboard=False, **options)
    else:
        _join(address, options | {"runtime_env": {"working_dir": str(ROOT), "excludes": excludes(ROOT, stay_behind)}})
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    check_listening(address)
    try:
        with secrets_kept():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster could be joined ({one_line(error)}).\n"
            f"Where the cluster asks for a token, it must lie in ~/.ray/auth_token and RAY_AUTH_MODE=token be set.\n"
            f"Start a cluster with `ray up cluster.yaml`, or leave out --address to search on this machine."
        ) from error


def one_line(error: Exception) -> str:
    """What Ray says on several, often many."""
    said = str(error).strip()
    words = said.splitlines()[-1].strip() if "Traceback" in said else " ".join(said.split())
    words = words or type(error).__name__
    return words if len(words) <= SAID else f"{words[:SAID]} …"


def check_listening(address: str) -> None:
    """Ray tries for minutes where nobody listens; find out first. `auto` is for Ray to resolve."""
    given = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = given.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), CONNECTION_S).close()
    except OSError as error:
        raise InputError(
            f"--address {given}: nobody listens there ({error}); start a cluster with `ray up cluster.yaml`, "
            f"or leave out --address to search on this machine"
        ) from error


def excludes(root: Path, stay_behind: tuple[Path, ...]) -> list[str]:
    """Rules for what of a checkout is not shipped, as in `.gitignore`; anchored: a folder `data` in a room travels."""
    beside = [path for path in sorted(root.iterdir()) if path.name not in ROOMS]
    inside = [path for path in stay_behind if path.is_relative_to(root) and len(path.relative_to(root).parts) > 1]
    names = dict.fromkeys(path.relative_to(root).as_posix() for path in (*beside, *inside))
    return ["__pycache__", *(re.sub(r"([][*?\\])", r"\\\1", f"/{name}") for name in names)]
