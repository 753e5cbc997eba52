"""Whether the nodes of a cluster see what a search needs: asked of each before anything is trained.

A trial on a node that does not see the results would train and lose its checkpoints. Nodes that come later are not
asked; a trial there says what is missing.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import InputError
from datasets.fetching import Root

ANSWER_S = 180.0
"""A node that is still unpacking the code is waited for; one that does not answer by then is not asked."""
SEEN_WITHIN_S = 5.0
"""Of a network's file system, which may show a new file a little later."""


def check_nodes(results: Path | None, files: Sequence[Root]) -> None:
    """Raises `InputError` with the address of a node that lacks something, while Ray is up.

    results: the folder of `--results`; None where they go elsewhere. files: what else is read, by path or URL.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = ray.get_runtime_context().get_node_id()
    addresses = {
        node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != own
    }
    if not addresses or (results is None and not files):
        return
    # Processes there have working folders of their own.
    files = [root.absolute() if isinstance(root, Path) else root for root in files]
    results = None if results is None else results.absolute()
    look = ray.remote(num_cpus=0, max_retries=0)(missing)
    with _token(results) as token:
        asked: dict[Any, str] = {}
        for node, address in addresses.items():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            asked[look.options(scheduling_strategy=there).remote(token, list(files))] = address
        answered, unanswered = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        for late in unanswered:
            ray.cancel(late, force=True)
        lacks: dict[str, str] = {}
        for answer in answered:
            with contextlib.suppress(ray.exceptions.RayError):  # a node that has gone meanwhile
                if lack := ray.get(answer):
                    lacks[asked[answer]] = lack
    for address, lack in lacks.items():
        more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
        raise InputError(f"--address: node {address}{more} {lack}")


def missing(token: Path | None, files: Sequence[Root]) -> str | None:
    """What this node does not see and what to do, as the end of a sentence; None where it sees all of it."""
    until = time.monotonic() + SEEN_WITHIN_S
    while token is not None and not token.exists():
        if time.monotonic() > until:
            return f"does not see --results {token.parent}: give a folder that all nodes share, or --storage URL"
        time.sleep(0.2)
    for root in files:
        try:
            if not root.exists():
                return f"does not see {root}: put it on a folder that all nodes share, or give a URL"
        except (InputError, OSError) as error:
            return f"cannot read {root}: {error}"
    return None


@contextlib.contextmanager
def _token(results: Path | None) -> Iterator[Path | None]:
    """A file that others can look for; nothing of it is left."""
    if results is None:
        yield None
        return
    new = [folder for folder in (results, *results.parents) if not folder.exists()]
    token = results / f".seen-by-{uuid.uuid4().hex}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        token.touch()
    except OSError as error:
        raise InputError(f"--results {results}: cannot be written ({error.strerror})") from error
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)
        for folder in new:
            with contextlib.suppress(OSError):  # somebody else has begun to use it
                folder.rmdir()
