"""Holds a Ray cluster of two raylets of one CPU each until its standard input ends, so that it cannot outlive a test.

python tests/two_raylets.py FOLDER      each node's store is a folder of FOLDER; prints address and port of Ray Client
"""

import socket
import sys
from pathlib import Path

from ray.cluster_utils import Cluster


def hold_cluster(stores: Path) -> None:
    head, worker = (
        {"num_cpus": 1, "dashboard_agent_listen_port": 0, "env_vars": {"IMAGE_SEARCH_STORE": str(stores / name)}}
        for name in ("head", "worker")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client_port = free.getsockname()[1]
    of_head = {"include_dashboard": False, "ray_client_server_port": client_port}
    cluster = Cluster(initialize_head=True, head_node_args=head | of_head)
    cluster.add_node(**worker)
    cluster.wait_for_nodes()
    print(cluster.address, client_port, flush=True)  # noqa: T201
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    hold_cluster(Path(sys.argv[1]))
