"""What we ask of `cluster.yaml` beyond Ray's schema, which lets a misspelt key of EC2, a missing region or a missing
folder through. A rule takes the file's content and yields what is wrong with it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate

from search.spot_first import SPOT, score

ROOT = Path(__file__).resolve().parents[1]
Cluster = dict[str, Any]
Rule = Callable[[Cluster], Iterator[str]]

CODE = "~/image-search"
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"}
# Ray's second autoscaler takes no scorer of ours.
SCORER_SETTINGS = (
    "RAY_enable_autoscaler_v2=0",
    "PYTHONPATH=$HOME/image-search",
    f"RAY_AUTOSCALER_UTILIZATION_SCORER={score.__module__}.{score.__name__}",
)
EXPLICIT_KEYS = ("InstanceType", "ImageId", "SubnetIds", "SecurityGroupIds", "KeyName", "IamInstanceProfile")


def node_configs(cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node_type in cluster["available_node_types"].items():
        yield name, node_type["node_config"]


def workers(cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node_type in cluster["available_node_types"].items():
        if name != cluster["head_node_type"]:
            yield name, node_type


def on_own_machines(cluster: Cluster, head_ip: str, worker_ips: list[str]) -> Cluster:
    """The file with its provider switched to `local`, as its comments say."""
    switched = {key: value for key, value in cluster.items() if key not in ("head_node_type", "available_node_types")}
    return switched | {"provider": {"type": "local", "head_ip": head_ip, "worker_ips": worker_ips}}


def start_commands(cluster: Cluster) -> list[str]:
    """Both lists of commands that start Ray, one string each."""
    return [" ".join(cluster[f"{kind}_start_ray_commands"]) for kind in ("head", "worker")]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def provider_is_known(cluster: Cluster) -> Iterator[str]:
    provider = cluster["provider"]
    if provider["type"] != "aws":
        yield f"provider {provider['type']!r} is not aws"
    if not provider.get("region"):
        yield "no region: `ray up` ends with a KeyError"
    for key in provider.keys() - PROVIDER_KEYS:
        yield f"provider key {key!r} is unknown, or lets Ray open ports itself"


def nodes_are_explicit(cluster: Cluster) -> Iterator[str]:
    for name, node_config in node_configs(cluster):
        for key in EXPLICIT_KEYS:
            if not node_config.get(key):
                yield f"{name}: no {key}: Ray chooses one"
    if not cluster["auth"].get("ssh_private_key"):
        yield "no ssh_private_key: Ray makes a key pair and puts it in place of KeyName"


def metadata_needs_a_token(cluster: Cluster) -> Iterator[str]:
    for name, node_config in node_configs(cluster):
        if node_config.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: metadata, with the role's keys, can be read without a token"


def ec2_takes_the_nodes(cluster: Cluster) -> Iterator[str]:
    """Names and types against the service model that botocore brings along. `SubnetIds` is Ray's own name."""
    model = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    shape = botocore.model.ServiceModel(model, "ec2").operation_model("RunInstances").input_shape
    for name, node_config in node_configs(cluster):
        parameters = {key: value for key, value in node_config.items() if key != "SubnetIds"}
        report = botocore.validate.ParamValidator().validate(parameters | {"MinCount": 1, "MaxCount": 1}, shape)
        if report.has_errors():
            yield f"{name}: {report.generate_report()}"


def disks_are_sized_encrypted_and_deleted(cluster: Cluster) -> Iterator[str]:
    for name, node_config in node_configs(cluster):
        disks = [disk["Ebs"] for disk in node_config.get("BlockDeviceMappings", [])]
        if not disks:
            yield f"{name}: the disk is as small as the image"
        for disk in disks:
            if disk.get("VolumeSize", 0) < 50:
                yield f"{name}: {disk.get('VolumeSize')} GiB do not hold the environment and the results"
            if not disk.get("Encrypted"):
                yield f"{name}: disk not encrypted"
            if not disk.get("DeleteOnTermination"):
                yield f"{name}: the disk outlives its node and goes on costing"


def workers_come_and_go(cluster: Cluster) -> Iterator[str]:
    for name, node_type in workers(cluster):
        if node_type.get("min_workers") != 0:
            yield f"{name}: does not scale from zero"
        if not 0 < node_type.get("max_workers", 0) <= cluster["max_workers"]:
            yield f"{name}: max_workers is not between 1 and the {cluster['max_workers']} of the cluster"
    if not 0 < cluster.get("idle_timeout_minutes", 0) <= 30:
        yield "idle nodes stay"
    if cluster["provider"].get("cache_stopped_nodes", True):
        yield "nodes are stopped, not deleted, and their disks go on costing"


def head_is_on_demand_and_idle(cluster: Cluster) -> Iterator[str]:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    if "InstanceMarketOptions" in head["node_config"]:
        yield "the head may be taken away, and the search with it"
    if head.get("resources", {}).get("CPU") != 0:
        yield "trials land on the head"


def spot_falls_back_to_on_demand(cluster: Cluster) -> Iterator[str]:
    alike: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for name, node_type in workers(cluster):
        node_config = dict(node_type["node_config"])
        spot = node_config.pop("InstanceMarketOptions", {}).get("MarketType") == "spot"
        alike[spot].append(node_config)
        if spot != name.endswith(SPOT):
            yield f"{name}: the name does not say whether it is spot, and the autoscaler knows only the name"
    for node_config in alike[True]:
        if node_config not in alike[False]:
            yield "a spot node has no equal on demand"
    if not alike[True]:
        yield "no spot node"
    [command] = [command for command in cluster["head_start_ray_commands"] if "ray start" in command]
    for setting in SCORER_SETTINGS:
        if setting not in command.split(";")[0].split():
            yield f"the autoscaler does not know the fallback: no {setting}"


def code_is_mounted(cluster: Cluster) -> Iterator[str]:
    mounts = cluster["file_mounts"]
    if mounts.get(CODE) != ".":
        yield f"the checkout is not at {CODE}"
    for remote, local in mounts.items():
        if local != "~/.ray" and (Path(local).is_absolute() or local.startswith("~")):
            yield f"{remote}: {local} is not in the checkout"
        elif local != "~/.ray" and not (ROOT / local).exists():
            yield f"{remote}: {local} does not exist"
    if ".gitignore" not in cluster.get("rsync_filter", []):
        yield "what git ignores, data and environment, is copied to every node"
    if ".git/" not in cluster.get("rsync_exclude", []):
        yield "the history is copied to every node"


def files_of_the_setup_exist(cluster: Cluster) -> Iterator[str]:
    commands = [command for key, value in cluster.items() if key.endswith("_commands") for command in value]
    named = re.findall(rf"{CODE}/([\w./-]+)", "\n".join(commands))
    if "requirements.lock" not in named:
        yield "the locked requirements are not installed"
    for name in named:
        if not (ROOT / name).is_file():
            yield f"the setup needs {name}, which does not exist"


def results_are_on_shared_storage(cluster: Cluster) -> Iterator[str]:
    mounts = [command for command in cluster["setup_commands"] if re.search(r"\bmount -t nfs4 .* ~/shared\b", command)]
    if not mounts:
        yield "no file system is mounted at ~/shared"
    for command in mounts:
        if not command.startswith("mountpoint -q ~/shared ||"):
            yield "a second `ray up`, or a machine that has it, mounts ~/shared once more"
        if (region := cluster["provider"].get("region")) and f".efs.{region}.amazonaws.com:/" not in command:
            yield f"the file system is not in {region}, where the nodes are"


def dashboard_is_on_loopback(cluster: Cluster) -> Iterator[str]:
    for command in start_commands(cluster):
        if re.findall(r"--dashboard-host[= ](\S+)", command) != ["127.0.0.1"]:
            yield f"no or another --dashboard-host: {command}"


def nodes_ask_for_the_token(cluster: Cluster) -> Iterator[str]:
    for command in start_commands(cluster):
        if not re.search(r"export [^;]*\bRAY_AUTH_MODE=token\b.*; ray start ", command):
            yield f"RAY_AUTH_MODE=token is not exported before ray start: {command}"
    if cluster["file_mounts"].get("~/.ray") != "~/.ray":
        yield "the folder with the token is not mounted"
    if "chmod -R go= ~/.ray" not in cluster["setup_commands"]:
        yield "the token may be readable by everybody on the node"


def nothing_is_open_to_the_world(cluster: Cluster) -> Iterator[str]:
    for text in strings(cluster):
        if "0.0.0.0" in text or "::/0" in text:
            yield f"open to the world: {text}"


RULES: tuple[Rule, ...] = (
    provider_is_known,
    nodes_are_explicit,
    metadata_needs_a_token,
    ec2_takes_the_nodes,
    disks_are_sized_encrypted_and_deleted,
    workers_come_and_go,
    head_is_on_demand_and_idle,
    spot_falls_back_to_on_demand,
    code_is_mounted,
    files_of_the_setup_exist,
    results_are_on_shared_storage,
    dashboard_is_on_loopback,
    nodes_ask_for_the_token,
    nothing_is_open_to_the_world,
)
