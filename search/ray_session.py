"""Ray, for as long as one search takes: started here on loopback, or an existing cluster joined.

Ray reads these settings when it is imported, so this module sets them before it imports Ray, and nothing else of this
room that imports Ray may be imported earlier (`search/__init__.py` does not).
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import InputError

ROOT = Path(__file__).parent.parent
"""What is shipped to the workers of a cluster; `.gitignore` says what stays behind."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Our records survive a crash at any moment, Ray's snapshots are not read: take one at the end and no others.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    "RAY_DEDUP_LOGS": "0",
}


def set_environment(address: str | None) -> None:
    """To be called before Ray is imported; what the user has set stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if address is None:
        # Puts every listener on loopback; on Linux and one machine it has no other effect.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[dict[str, float]]:
    """Ray's resources while it is up. A session that the caller has already started is used, and left running."""
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    else:
        options |= {"address": address, "runtime_env": {"working_dir": str(ROOT)}}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"--address {address}: no Ray cluster there ({lines[0]}); start one with `ray up cluster.yaml`, "
            f"or leave out --address to search on this machine"
        ) from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
