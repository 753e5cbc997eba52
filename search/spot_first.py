"""Which node Ray's autoscaler asks a cloud for: spot before on-demand, and neither where it has just been refused.

Ray by itself asks for the same refused type again and again. cluster.yaml names `score` to the autoscaler, on the head.
"""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _resource_based_utilization_scorer

SPOT = "_spot"
"""How the name of a spot node type ends in cluster.yaml; the autoscaler tells a scorer nothing else of it."""


def score(
    node_resources: dict[str, float], demands: list[dict[str, float]], node_type: str, *, node_availability_summary: Any
) -> tuple[Any, ...] | None:
    """Of a node of this type for these demands, the highest wins; None where none of them fits on it."""
    of_use = _resource_based_utilization_scorer(
        node_resources, demands, node_availability_summary=node_availability_summary
    )
    if of_use is None:
        return None
    no_gpu_wasted, *fit = of_use
    latest = node_availability_summary.node_availabilities.get(node_type)  # forgotten by Ray after half an hour
    return (no_gpu_wasted, latest is None or latest.is_available, node_type.endswith(SPOT), *fit)
