"""`cluster.yaml` is what Ray's launcher takes, and is safe: each rule holds, and each is shown files that break it."""

import re
import shlex
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml
from ray.autoscaler._private.node_provider_availability_tracker import (
    NodeAvailabilitySummary,
    NodeProviderAvailabilityTracker,
)
from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.scripts.scripts import cli as ray_cli

from search.__main__ import app
from search.spot_first import score
from tests.broken import GONE, broken
from tests.cluster_rules import (
    CODE,
    EXPLICIT_KEYS,
    ROOT,
    RULES,
    SCORER_SETTINGS,
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
    on_own_machines,
    provider_is_known,
    results_are_on_shared_storage,
    spot_falls_back_to_on_demand,
    workers_come_and_go,
)

HEAD = "available_node_types/head/node_config/"
SPOT_WORKER = "available_node_types/gpu_spot/"
WORKER = SPOT_WORKER + "node_config/"
ON_DEMAND = "available_node_types/gpu_on_demand"
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
    (workers_come_and_go, SPOT_WORKER + "min_workers", 1),
    (workers_come_and_go, SPOT_WORKER + "max_workers", 5),
    (workers_come_and_go, "idle_timeout_minutes", GONE),
    (workers_come_and_go, "provider/cache_stopped_nodes", GONE),
    (head_is_on_demand_and_idle, HEAD + "InstanceMarketOptions", {"MarketType": "spot"}),
    (head_is_on_demand_and_idle, "available_node_types/head/resources", {}),
    (spot_falls_back_to_on_demand, WORKER + "InstanceMarketOptions", GONE),
    (spot_falls_back_to_on_demand, WORKER + "InstanceType", "g5.48xlarge"),
    (spot_falls_back_to_on_demand, ON_DEMAND, GONE),
    *((spot_falls_back_to_on_demand, "head_start_ray_commands/1", (setting, "")) for setting in SCORER_SETTINGS),
    (results_are_on_shared_storage, "setup_commands/1", GONE),
    (results_are_on_shared_storage, "setup_commands/1", ("mountpoint -q ~/shared ||", "")),
    (results_are_on_shared_storage, "provider/region", "eu-central-1"),
    (code_is_mounted, f"file_mounts/{CODE.replace('/', '|')}", GONE),
    (code_is_mounted, "file_mounts/weights", "weights-that-nobody-has"),
    (code_is_mounted, "file_mounts/home", "/home/somebody"),
    (code_is_mounted, "rsync_filter", GONE),
    (code_is_mounted, "rsync_exclude", GONE),
    (files_of_the_setup_exist, "setup_commands/3", ("requirements.lock", "requirements.txt")),
    (files_of_the_setup_exist, "setup_commands/3", (CODE, "~/elsewhere")),
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


class NoNodes:
    """What the autoscaler asks a cloud for when only the head is up."""

    def node_tags(self, node: str) -> dict[str, str]:
        assert node == "head"
        return {TAG_RAY_USER_NODE_TYPE: "head", TAG_RAY_NODE_KIND: NODE_KIND_HEAD}

    def internal_ip(self, node: str) -> str:
        return node


def asked_for(refused: list[str], trials: int, at_s: int = 0) -> dict[str, int]:
    """The nodes that Ray's autoscaler asks for, of each type, for so many trials of one GPU each, at_s seconds after
    the cloud has refused some."""
    cluster = cluster_file()
    for name, node_type in cluster["available_node_types"].items():
        node_type["resources"] = {"CPU": 0} if name == "head" else {"CPU": 48, "GPU": 4}
    availability = NodeProviderAvailabilityTracker(timer=lambda: 1_000_000 + at_s, ttl=1800)
    for node_type in refused:
        error = NodeLaunchException("InsufficientInstanceCapacity", "no capacity", None)
        availability.update_node_availability(node_type, 1_000_000, error)
    scheduler = ResourceDemandScheduler(
        NoNodes(), cluster["available_node_types"], cluster["max_workers"], "head", upscaling_speed=1.0
    )
    nodes, _ = scheduler.get_nodes_to_launch(
        nodes=["head"],
        launching_nodes={},
        resource_demands=[{"CPU": 1, "GPU": 1}] * trials,
        unused_resources_by_ip={"head": {"CPU": 0}},
        pending_placement_groups=[],
        max_resources_by_ip={"head": {"CPU": 0}},
        ensure_min_cluster_size=[],
        node_availability_summary=availability.summary(),
    )
    return dict(nodes)


@pytest.fixture
def our_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    [start] = [command for command in cluster_file()["head_start_ray_commands"] if "ray start" in command]
    [setting] = [word for word in start.replace(";", " ").split() if word.startswith("RAY_AUTOSCALER_UTILIZATION_SCO")]
    monkeypatch.setenv(*setting.split("="))


@pytest.mark.parametrize(
    ("refused", "trials", "at_s", "expected"),
    [
        ([], 0, 0, {}),
        ([], 4, 0, {"gpu_spot": 1}),
        ([], 5, 0, {"gpu_spot": 2}),
        ([], 100, 0, {"gpu_spot": 4}),
        (["gpu_spot"], 5, 0, {"gpu_on_demand": 2}),
        (["gpu_spot"], 5, 1799, {"gpu_on_demand": 2}),
        (["gpu_spot"], 5, 1801, {"gpu_spot": 2}),
        (["gpu_spot", "gpu_on_demand"], 5, 0, {"gpu_spot": 2}),
    ],
)
@pytest.mark.usefixtures("our_scorer")
def test_on_demand_is_asked_for_only_where_spot_has_been_refused(
    refused: list[str], trials: int, at_s: int, expected: dict[str, int]
) -> None:
    assert asked_for(refused, trials, at_s) == expected


@pytest.mark.usefixtures("our_scorer")
def test_no_gpu_node_is_preferred_for_work_without_gpus() -> None:
    summary = NodeAvailabilitySummary({})
    gpu, plain = {"CPU": 48, "GPU": 4}, {"CPU": 4}
    demands = [{"CPU": 1}]
    plain_score = score(plain, demands, "cpu", node_availability_summary=summary)
    assert plain_score > score(gpu, demands, "gpu_spot", node_availability_summary=summary)
    assert score(plain, [{"GPU": 1}], "cpu", node_availability_summary=summary) is None


def test_ray_by_itself_asks_for_what_has_been_refused() -> None:
    assert asked_for(["gpu_on_demand"], 4) == asked_for(["gpu_spot"], 4), "search/spot_first.py may be needless now"


def test_the_file_is_taken_with_its_provider_switched_to_ones_own_machines() -> None:
    [switch] = re.findall(r"^#   provider: (\{.*\})$", (ROOT / "cluster.yaml").read_text(), re.MULTILINE)
    assert yaml.safe_load(switch) == {"type": "local", "head_ip": "CHANGE", "worker_ips": ["CHANGE", "CHANGE"]}
    cluster = prepare_config(on_own_machines(cluster_file(), "10.0.0.1", ["10.0.0.2", "10.0.0.3"]))
    validate_config(cluster)
    [node_type] = cluster["available_node_types"].values()
    assert (node_type["min_workers"], node_type["max_workers"]) == (2, 2)


def test_the_commands_of_the_comments_exist() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    named = set(re.findall(r"\bray ([a-z][\w-]*)(?= (?:cluster\.yaml|--))", text))
    assert {"up", "exec", "attach", "dashboard", "rsync-up", "rsync-down", "down", "start"} <= named
    assert named <= ray_cli.commands.keys()


def test_the_search_of_the_comments_is_one() -> None:
    text = re.sub(r"\n#\s+", " ", (ROOT / "cluster.yaml").read_text())
    [command] = re.findall(r"python -m search (.*?)'", text)
    options = typer.main.get_command(app).make_context("search", shlex.split(command)).params
    assert options["address"] == "auto"
    assert options["concurrent"]
    assert options["gpus_per_trial"], "a cluster that grows from zero has none to be seen"
    assert str(options["results"]).startswith("~/shared/")


def test_no_comment_opens_anything_either() -> None:
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()
