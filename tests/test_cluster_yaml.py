"""`cluster.yaml` is what Ray's launcher takes, and is safe: each rule holds, and each is shown files that break it."""

import copy
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster_rules import (
    CODE,
    EXPLICIT_KEYS,
    ROOT,
    RULES,
    Cluster,
    Rule,
    code_is_mounted,
    dashboard_is_on_loopback,
    disks_are_sized_encrypted_and_deleted,
    ec2_takes_the_nodes,
    files_of_the_setup_exist,
    head_is_on_demand_and_idle,
    metadata_needs_a_token,
    nodes_are_explicit,
    nodes_ask_for_the_token,
    nothing_is_open_to_the_world,
    provider_is_known,
    workers_are_spot,
    workers_come_and_go,
)

GONE = object()
HEAD = "available_node_types/head/node_config/"
WORKER = "available_node_types/gpu_worker/node_config/"
EBS = "BlockDeviceMappings/0/Ebs/"

# (rule, where in the file, what is there instead). A pair in the last place replaces one text by another.
BREAKS: list[tuple[Rule, str, Any]] = [
    (provider_is_known, "provider/type", "gcp"),
    (provider_is_known, "provider/region", GONE),
    (provider_is_known, "provider/regoin", "eu-central-1"),
    (provider_is_known, "provider/security_group", {"GroupName": "search"}),
    *((nodes_are_explicit, node + key, GONE) for node in (HEAD, WORKER) for key in EXPLICIT_KEYS),
    (nodes_are_explicit, WORKER + "SubnetIds", []),
    (nodes_are_explicit, "auth/ssh_private_key", GONE),
    (metadata_needs_a_token, HEAD + "MetadataOptions", GONE),
    (metadata_needs_a_token, WORKER + "MetadataOptions/HttpTokens", "optional"),
    (ec2_takes_the_nodes, HEAD + "ImgeId", "ami-1"),
    (ec2_takes_the_nodes, WORKER + "MetadataOptions/HttpTokns", "required"),
    (ec2_takes_the_nodes, WORKER + "SecurityGroupIds", "sg-1"),
    (disks_are_sized_encrypted_and_deleted, HEAD + "BlockDeviceMappings", GONE),
    (disks_are_sized_encrypted_and_deleted, WORKER + EBS + "VolumeSize", GONE),
    (disks_are_sized_encrypted_and_deleted, WORKER + EBS + "Encrypted", GONE),
    (disks_are_sized_encrypted_and_deleted, HEAD + EBS + "DeleteOnTermination", False),
    (workers_come_and_go, "available_node_types/gpu_worker/min_workers", 1),
    (workers_come_and_go, "available_node_types/gpu_worker/max_workers", 5),
    (workers_come_and_go, "idle_timeout_minutes", GONE),
    (workers_come_and_go, "provider/cache_stopped_nodes", GONE),
    (head_is_on_demand_and_idle, HEAD + "InstanceMarketOptions", {"MarketType": "spot"}),
    (head_is_on_demand_and_idle, "available_node_types/head/resources", {}),
    (workers_are_spot, WORKER + "InstanceMarketOptions", GONE),
    (code_is_mounted, f"file_mounts/{CODE.replace('/', '|')}", GONE),
    (code_is_mounted, "file_mounts/weights", "weights-that-nobody-has"),
    (code_is_mounted, "file_mounts/home", "/home/somebody"),
    (code_is_mounted, "rsync_filter", GONE),
    (code_is_mounted, "rsync_exclude", GONE),
    (files_of_the_setup_exist, "setup_commands/2", ("requirements.lock", "requirements.txt")),
    (files_of_the_setup_exist, "setup_commands/2", (CODE, "~/elsewhere")),
    (files_of_the_setup_exist, "worker_setup_commands", [f"bash {CODE}/tools/nodes.sh"]),
    (dashboard_is_on_loopback, "head_start_ray_commands/1", ("host=127.0.0.1", "host=10.0.0.1")),
    (dashboard_is_on_loopback, "head_start_ray_commands/1", (" --dashboard-host=127.0.0.1", "")),
    (dashboard_is_on_loopback, "worker_start_ray_commands/1", (" --dashboard-host=127.0.0.1", "")),
    (nodes_ask_for_the_token, "head_start_ray_commands/1", ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled")),
    (nodes_ask_for_the_token, "worker_start_ray_commands/1", ("RAY_AUTH_MODE=token ", "")),
    (nodes_ask_for_the_token, "file_mounts/~|.ray", GONE),
    (nodes_ask_for_the_token, "file_mounts/~|.ray", "~/.ray/auth_token"),
    (nodes_ask_for_the_token, "setup_commands/0", "true"),
    (nothing_is_open_to_the_world, "worker_start_ray_commands/1", ("127.0.0.1", "0.0.0.0")),
    (nothing_is_open_to_the_world, WORKER + "Rules", [{"CidrIp": "0.0.0.0/0"}]),
    (nothing_is_open_to_the_world, WORKER + "Rules", [{"CidrIpv6": "::/0"}]),
]


def cluster_file() -> Cluster:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def broken(cluster: Cluster, where: str, instead: Any) -> Cluster:
    cluster = copy.deepcopy(cluster)
    *path, last = (part.replace("|", "/") for part in where.split("/"))
    place: Any = cluster
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    key = int(last) if isinstance(place, list) else last
    if instead is GONE:
        del place[key]
    elif isinstance(instead, tuple):
        assert instead[0] in place[key], "nothing to replace"
        place[key] = place[key].replace(*instead)
    else:
        place[key] = instead
    return cluster


def test_rays_own_schema_takes_the_file() -> None:
    validate_config(prepare_config(cluster_file()))


@pytest.mark.parametrize(
    ("where", "instead"), [("idle_timeout_minuts", 5), ("max_workers", "4"), ("available_node_types/head/resorces", {})]
)
def test_rays_own_schema_can_refuse(where: str, instead: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(broken(cluster_file(), where, instead)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps(rule: Rule) -> None:
    assert list(rule(cluster_file())) == []


@pytest.mark.parametrize(
    ("rule", "where", "instead"), BREAKS, ids=[f"{rule.__name__}-{where.split('/')[-1]}" for rule, where, _ in BREAKS]
)
def test_a_rule_objects(rule: Rule, where: str, instead: Any) -> None:
    before = list(rule(cluster_file()))
    after = list(rule(broken(cluster_file(), where, instead)))
    assert set(after) - set(before), "the rule does not see what is wrong"


def test_no_rule_is_unable_to_fail() -> None:
    assert {rule for rule, _, _ in BREAKS} == set(RULES)


def test_no_comment_opens_anything_either() -> None:
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()
