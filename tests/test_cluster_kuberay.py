"""`cluster-kuberay.yaml` has only fields that exist, of the right types, and is safe; Ray's own autoscaler reads from
it what it should. Each check is shown a file that breaks it."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import ray
import typer.main
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from search.__main__ import app
from tests.broken import GONE, broken
from tests.cluster_rules import ROOT
from tests.kuberay_schema import DOCUMENTS

Documents = dict[str, dict[str, Any]]
CLUSTER = "RayJob/spec/rayClusterSpec/"
HEAD = CLUSTER + "headGroupSpec/"
WORKER = CLUSTER + "workerGroupSpecs/0/"
NO_FILE = "~/image-search/search/notice.py"
OF_HEAD, OF_WORKER = HEAD + "template/spec/", WORKER + "template/spec/"

MISSPELT: list[tuple[str, Any]] = [
    ("RayJob/apiVersion", "ray.io/v1alpha1"),
    ("RayJob/metadata/name", "COVID search"),
    ("RayJob/spec/shutdownAfterJobFinish", True),
    ("RayJob/spec/activeDeadlineSeconds", "1d"),
    (CLUSTER + "authOptions/mode", "tokens"),
    (CLUSTER + "autoscalerOptions/idleTimeoutMinutes", 5),
    (CLUSTER + "rayVersion", "2.60"),
    (HEAD + "rayStartParams/num-cpus", 0),
    (WORKER + "minWorkers", 0),
    (WORKER + "groupName", GONE),
    (OF_WORKER + "containers/0/resources/limit", {"cpu": "1"}),
    (OF_WORKER + "containers/0/resources/limits/memory", "160GB"),
    (OF_WORKER + "containers/0/resources/limits/cpu", 40),
    (OF_WORKER + "containers/0/securityContext/allowPrivilegedEscalation", False),
    (OF_WORKER + "tolerations/0/effect", "NoScheduling"),
    (OF_WORKER + "affinity/nodeAffinity/preferred", []),
    (OF_HEAD + "containers/0/env/0/value", 0),
    (OF_HEAD + "volumes/0/persistentVolumeClaim/claim", "image-search"),
    ("PersistentVolumeClaim/spec/accessModes", ["ReadWriteAll"]),
    ("PersistentVolumeClaim/spec/resources/requests/storage", GONE),
    ("NetworkPolicy/spec/ingress/1/ports/0/port", "dashboard"),
    ("NetworkPolicy/spec/ingres", []),
]

UNSAFE: list[tuple[str, Any]] = [
    (CLUSTER + "rayVersion", "2.59.0"),
    (CLUSTER + "authOptions", GONE),
    (CLUSTER + "authOptions/mode", "disabled"),
    (CLUSTER + "enableInTreeAutoscaling", GONE),
    (CLUSTER + "autoscalerOptions/idleTimeoutSeconds", 7200),
    ("RayJob/spec/shutdownAfterJobFinishes", GONE),
    ("RayJob/spec/activeDeadlineSeconds", GONE),
    ("RayJob/spec/submitterConfig", GONE),
    ("RayJob/spec/entrypoint", ("--resume", "")),
    ("RayJob/spec/entrypoint", ("--gpus-per-trial 1", "--gpu-per-trial 1")),
    ("RayJob/spec/entrypoint", ("--concurrent 4 ", "")),
    ("RayJob/spec/entrypoint", ("--address auto ", "")),
    ("RayJob/spec/entrypoint", ("/shared/results", "/tmp/results")),
    (HEAD + "serviceType", "LoadBalancer"),
    (HEAD + "rayStartParams", {}),
    (WORKER + "minReplicas", 1),
    (WORKER + "replicas", 1),
    (WORKER + "maxReplicas", 0),
    (OF_WORKER + "containers/0/resources/limits/nvidia.com|gpu", "1"),
    (OF_WORKER + "containers/0/resources/limits/nvidia.com|gpu", GONE),
    (OF_WORKER + "containers/0/image", "another:1"),
    (OF_WORKER + "containers/0/volumeMounts/0/name", "elsewhere"),
    (OF_WORKER + "containers/0/volumeMounts/0/mountPath", "/results"),
    (OF_WORKER + "containers/0/securityContext", GONE),
    (OF_WORKER + "containers/0/securityContext/privileged", True),
    (OF_WORKER + "securityContext/runAsNonRoot", False),
    (OF_WORKER + "automountServiceAccountToken", GONE),
    (OF_WORKER + "containers/0/lifecycle", GONE),
    (OF_WORKER + "containers/0/lifecycle/preStop/exec/command", ["bash", "-c", f"python -P {NO_FILE} --now; sleep 20"]),
    (OF_WORKER + "terminationGracePeriodSeconds", 20),
    (OF_HEAD + "volumes/0/persistentVolumeClaim/claimName", "another"),
    ("PersistentVolumeClaim/spec/accessModes", ["ReadWriteOnce"]),
    ("NetworkPolicy/spec/podSelector", {"matchLabels": {"app": "another"}}),
    ("NetworkPolicy/spec/ingress/0/from", GONE),
    ("NetworkPolicy/spec/ingress/1/ports", GONE),
]


def manifest() -> Documents:
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "cluster-kuberay.yaml").read_text())}


def manifest_with(where: str, instead: Any) -> Documents:
    """The manifest with a mistake in it."""
    return broken(yaml.safe_load(yaml.dump(manifest(), Dumper=NoAliases)), where, instead)


class NoAliases(yaml.SafeDumper):
    """What the file says once and uses twice is written twice, so that one of them can be broken."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def misspelt(documents: Documents) -> list[str]:
    return [
        f"{kind}: {error.json_path}: {error.message}"
        for kind, schema in DOCUMENTS.items()
        for error in jsonschema.Draft7Validator(schema).iter_errors(documents[kind])
    ]


def search_command(documents: Documents) -> str:
    bash, option, script = shlex.split(documents["RayJob"]["spec"]["entrypoint"])
    assert (bash, option) == ("bash", "-c")
    return script


def unsafe(documents: Documents) -> Iterator[str]:
    job, cluster = documents["RayJob"]["spec"], documents["RayJob"]["spec"]["rayClusterSpec"]
    head, [worker] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in (head, worker)]
    containers = [container for pod in pods for container in pod["containers"]]

    if cluster["rayVersion"] != ray.__version__:
        yield f"Ray {cluster['rayVersion']} is not the {ray.__version__} of the environment"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "no token"
    if not job.get("shutdownAfterJobFinishes") or not job.get("activeDeadlineSeconds"):
        yield "the cluster may stay for ever"
    if job.get("submitterConfig", {}).get("backoffLimit") != 0:
        yield "a search may be submitted twice"
    if head.get("serviceType") != "ClusterIP":
        yield "the head can be reached from outside"
    if len({container["image"] for container in containers}) != 1:
        yield "head and workers have different code"

    # What the autoscaler of Ray makes of it, not what we think that it says.
    scaling = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "x"}, "spec": cluster})
    types = scaling["available_node_types"]
    of_worker = types[worker["groupName"]]
    if not cluster.get("enableInTreeAutoscaling") or scaling["idle_timeout_minutes"] > 30:
        yield "idle pods stay"
    if types["headgroup"]["resources"]["CPU"] != 0:
        yield "trials land on the head"
    if of_worker["resources"].get("GPU", 0) < 2:
        yield "a worker has not several GPUs"
    if of_worker["min_workers"] != 0 or worker.get("replicas", 0) != 0 or of_worker["max_workers"] < 1:
        yield "the workers do not scale from zero"

    if worker["template"]["spec"].get("automountServiceAccountToken", True) is not False:
        yield "trials may talk to Kubernetes"
    [in_worker] = worker["template"]["spec"]["containers"]
    before_the_end = in_worker.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])[-1]
    told = re.fullmatch(r"python -P ~/image-search/(\S+) --now; sleep (\d+)", before_the_end)
    if told is None or not (ROOT / told[1]).is_file():
        yield "trials do not save before their pod ends"
    elif worker["template"]["spec"].get("terminationGracePeriodSeconds", 30) <= int(told[2]):
        yield "Kubernetes kills a pod while its trials save"
    for pod in pods:
        if not pod["securityContext"].get("runAsNonRoot"):
            yield "a pod runs as root"
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            wanted, most = container["resources"]["requests"], container["resources"]["limits"]
            if wanted != most:  # GPUs cannot be shared, and Ray takes the limits for what it has
                yield "a pod has not what Ray believes"
            security = container.get("securityContext", {})
            if security.get("allowPrivilegeEscalation", True) or security.get("privileged"):
                yield "a container may become root"
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            if set(mounts.values()) - volumes.keys():
                yield "a volume that does not exist is mounted"
            claim = volumes.get(mounts.get("/shared"), {}).get("persistentVolumeClaim", {}).get("claimName")
            if claim != documents["PersistentVolumeClaim"]["metadata"]["name"]:
                yield "a pod has not the shared volume"
    if documents["PersistentVolumeClaim"]["spec"]["accessModes"] != ["ReadWriteMany"]:
        yield "the shared volume is not shared"

    policy = documents["NetworkPolicy"]["spec"]
    inside, operator = policy["ingress"]
    if policy["podSelector"] or inside.get("from") != [{"podSelector": {}}]:
        yield "Ray's ports are open to other namespaces"
    if [port["port"] for port in operator.get("ports", [])] != [8265]:
        yield "more than the dashboard is open to the operator"

    script = search_command(documents)
    [arguments] = re.findall(r"exec python -m search (.*) \$again$", script)
    if not re.search(r"test -e (\S+)/experiment\.json && again=--resume;", script):
        yield "the second attempt ends at once, since there are results"
    try:
        options = typer.main.get_command(app).make_context("search", shlex.split(arguments)).params
    except Exception as error:
        yield f"the search does not take its options: {error}"
        return
    if options["address"] != "auto" or not options["concurrent"] or not options["gpus_per_trial"]:
        yield "at the start there is no GPU: the search has to be told what to wait for"
    if not str(options["results"]).startswith("/shared/"):
        yield "results are lost with the pods"


def test_every_field_exists() -> None:
    assert misspelt(manifest()) == []
    assert manifest().keys() == DOCUMENTS.keys()


def test_the_file_is_safe() -> None:
    assert list(unsafe(manifest())) == []


@pytest.mark.parametrize(("where", "instead"), MISSPELT, ids=[where for where, _ in MISSPELT])
def test_a_misspelt_field_is_found(where: str, instead: Any) -> None:
    assert misspelt(manifest_with(where, instead))


@pytest.mark.parametrize(("where", "instead"), UNSAFE, ids=[where for where, _ in UNSAFE])
def test_what_is_unsafe_is_found(where: str, instead: Any) -> None:
    documents = manifest_with(where, instead)
    assert misspelt(documents) == [], "this is for the other list"
    assert list(unsafe(documents))
