"""The training of a refit on several processes, of this machine or of a Ray cluster, by Ray Train.

    python -m search.refit NAME --workers 4 --address auto

Every worker computes a share of each batch (`trainables/distributed.py`), on a GPU of its own where there are any. What
the first one tells and saves goes to the node of this command, through Ray: no other node needs to see the results.
When a worker dies, Ray Train begins the others again too, from the last checkpoint.
"""

import functools
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from analysis.results import last_checkpoint
from datasets import InputError
from search.explain import Say
from search.ray_session import check_listening, nodes_now, ray_session, set_environment
from search.refit_training import Diverged, Training, TrainingEnded, kept, train

TRIES = 3
"""How often the workers begin, unless it is the cloud that takes a node away: Ray Train counts those apart."""
SLOWEST_S = 6 * 3600
"""What workers wait for each other at most: a node may still compute features that another one has. That a worker has
died is noticed by Ray, at once."""
HEARD_EVERY_S = 0.3
NOTE = "checkpoint.json"
"""Of a checkpoint: written last."""


def trained_by_workers(
    training: Training,
    folder: Path,
    say: Say,
    saved_every_s: float,
    *,
    workers: int,
    gpus_per_worker: int | None,
    address: str | None,
    stay_behind: tuple[Path, ...] = (),
) -> None:
    """As `refit_training.trained_here`.

    gpus_per_worker: 0 or 1; None: 1 where there are any. address: of a running cluster; None: this machine.
    stay_behind: see `ray_session`. Raises `InputError` where this machine, or one of the cluster, cannot do it, and
    `TrainingEnded` where the workers have died too often.
    """
    if address is not None:
        if address.startswith("ray://"):
            raise InputError(
                f"--address {address}: a refit cannot be driven from outside of its cluster; call it on a machine of "
                f"the cluster with --address auto"
            )
        check_listening(address)
    set_environment(address)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths stay what they are
    if address is None:
        _keep_to_loopback()
    with ray_session(address, stay_behind):
        share = _share(workers, gpus_per_worker, address, say)
        # Processes of a cluster have working folders of their own.
        _train(training, folder.absolute(), say, saved_every_s, workers, share, across_nodes=address is not None)


def _keep_to_loopback() -> None:
    """To be called before Ray is started: its workers have the environment that it is started in."""
    if "lo" in (name for _, name in socket.if_nameindex()):  # on Linux
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")


def _share(workers: int, gpus_per_worker: int | None, address: str | None, say: Say) -> dict[str, float]:
    """What each worker takes of Ray's resources: a GPU, if any, and as many CPUs as all of them can have."""
    nodes = nodes_now()
    there = {name: sum(int(node.get(name, 0)) for node in nodes) for name in ("CPU", "GPU")}
    gpus = min(1, there["GPU"]) if gpus_per_worker is None else gpus_per_worker

    def room(cpus: int) -> int:
        """Workers of so many CPUs."""
        by_cpus = [int(node.get("CPU", 0)) // cpus for node in nodes]
        by_gpus = [int(node.get("GPU", 0)) // gpus if gpus else workers for node in nodes]
        return sum(map(min, by_cpus, by_gpus))

    most = max(1, there["CPU"] // workers)
    cpus = next((cpus for cpus in range(most, 0, -1) if room(cpus) >= workers), None)
    if cpus is None:
        has = f"{there['CPU']} CPUs and {there['GPU']} GPUs"
        each = f"each takes a CPU{' and a GPU' if gpus else ''}"
        if address is None:
            raise InputError(f"--workers {workers}: this machine has {has}, and {each}; {room(1)} are the most")
        if gpus_per_worker is None and not gpus:
            raise InputError(
                f"--workers {workers}: the cluster has {has} now; give --gpus-per-worker, 1 to wait for GPUs or 0 to "
                f"train on CPUs"
            )
        say(f"waiting for the cluster to grow: it has {has}, and of {workers} workers {each}")
    return {"CPU": cpus or 1, "GPU": gpus}


def _train(
    training: Training,
    folder: Path,
    say: Say,
    saved_every_s: float,
    workers: int,
    share: dict[str, float],
    across_nodes: bool,
) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from search.rendezvous import AcrossNodes, OnThisMachine

    here = ray.get_runtime_context().get_node_id()
    keeper = ray.remote(num_cpus=0, label_selector={"ray.io/node-id": here})(Keeper).remote(folder)
    with tempfile.TemporaryDirectory() as notes:  # of Ray Train: there is nothing in them that we need
        trainer = TorchTrainer(
            functools.partial(_work, ray.put(training), keeper, saved_every_s, bool(share["GPU"])),
            torch_config=(AcrossNodes if across_nodes else OnThisMachine)(
                backend="nccl" if share["GPU"] else "gloo", timeout_s=SLOWEST_S
            ),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(share["GPU"]), resources_per_worker=share),
            run_config=RunConfig(
                name="refit", storage_path=notes, failure_config=FailureConfig(max_failures=TRIES - 1)
            ),
        )
        ended: list[BaseException | None] = []

        def fit() -> None:
            """Waits, in a thread of its own: so Ctrl-C is heard as ever, and what the workers tell is passed on."""
            try:
                trainer.fit()
            except (Exception, SystemExit) as error:  # raised below; Ray exits where it is shut down meanwhile
                ended.append(error)
            else:
                ended.append(None)

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(HEARD_EVERY_S)
                texts, failure = ray.get(keeper.news.remote())
                for text in texts:
                    say(text)
                if failure is not None:
                    raise failure
        finally:
            ray.kill(keeper)  # nothing is written any more
    if ended[0] is not None:
        reason = next(iter(str(ended[0]).strip().splitlines()[::-1]), type(ended[0]).__name__)
        raise TrainingEnded(
            f"the workers could not begin, or have died {TRIES} times: {reason.strip()}\n"
            f"The same command goes on from the last checkpoint."
        ) from ended[0]


def _work(training: Any, keeper: Any, saved_every_s: float, on_gpu: bool) -> None:
    """What each worker does. training: a reference to it."""
    import ray

    from trainables.memory import is_out_of_memory

    if ray.get(keeper.has_failed.remote()):
        return  # it would be the same again
    is_first = ray.train.get_context().get_world_rank() == 0

    def say(text: str) -> None:
        if is_first:
            keeper.say.remote(text)

    def keep(lockstep: Any) -> None:
        if is_first:
            with tempfile.TemporaryDirectory() as folder:
                lockstep.save(Path(folder))
                files = {file.name: np.fromfile(file, np.uint8) for file in Path(folder).iterdir()}
            ray.get(keeper.keep.remote(lockstep.epoch, files))

    try:
        with tempfile.TemporaryDirectory() as folder:
            files = ray.get(keeper.latest.remote())
            write(files, Path(folder))
            asked: Training = ray.get(training).on("cuda" if on_gpu else "cpu")
            train(asked, Path(folder) if files else None, say, keep, saved_every_s)
    except (InputError, Diverged) as error:
        ray.get(keeper.fail.remote(error))
        raise
    except Exception as error:
        if is_out_of_memory(error):
            told = "memory does not suffice for a worker's share of a batch: give more --workers"
            ray.get(keeper.fail.remote(InputError(told)))
        raise


class Keeper:
    """An actor on the driver's node: hears what workers tell, and keeps what they save."""

    def __init__(self, folder: Path):
        self._folder, self._texts = folder, list[str]()
        self._failure: Exception | None = None

    def say(self, text: str) -> None:
        self._texts.append(text)

    def fail(self, failure: Exception) -> None:
        """It would come again; the first counts, as others may follow from it."""
        self._failure = self._failure or failure

    def has_failed(self) -> bool:
        return self._failure is not None

    def news(self) -> tuple[list[str], Exception | None]:
        """What has been told since the last time."""
        texts, self._texts = self._texts, []
        return texts, self._failure

    def keep(self, epoch: int, files: dict[str, np.ndarray]) -> None:
        """The files of a checkpoint, by name, uint8 (bytes,)."""
        kept(self._folder, epoch, functools.partial(write, files))

    def latest(self) -> dict[str, np.ndarray]:
        """Of the last checkpoint; none where there is none."""
        checkpoint = last_checkpoint(self._folder)
        return {file.name: np.fromfile(file, np.uint8) for file in checkpoint.iterdir()} if checkpoint else {}


def write(files: dict[str, np.ndarray], folder: Path) -> None:
    """The files of a checkpoint, the note that names them last."""
    for name in sorted(files, key=lambda name: name == NOTE):
        files[name].tofile(folder / name)
