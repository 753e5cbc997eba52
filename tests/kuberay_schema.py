"""The fields of `cluster-kuberay.yaml`, as JSON schemas: of KubeRay all that its reference of version 1.6 lists for a
RayJob, of Kubernetes those of pods, volumes and policies that a search has a use for. Kubernetes may drop a field
that it does not know, and a misspelt limit is then no limit."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "array", "items": TEXT, "minItems": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
WORDS: Schema = {"type": "object", "additionalProperties": TEXT}
"""Names and texts: numbers must be quoted, or the API refuses the file."""
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def fields(required: tuple[str, ...] = (), **known: Schema) -> Schema:
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


def several(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


RESOURCES = fields(requests=QUANTITIES, limits=QUANTITIES)
CONTAINER_SECURITY = fields(
    allowPrivilegeEscalation=FLAG,
    privileged=FLAG,
    readOnlyRootFilesystem=FLAG,
    runAsNonRoot=FLAG,
    runAsUser=COUNT,
    runAsGroup=COUNT,
    capabilities=fields(drop=TEXTS, add=TEXTS),
)
VARIABLE = fields(("name",), name=TEXT, value={"type": "string"}, valueFrom={"type": "object"})
CONTAINER = fields(
    ("name", "image", "resources"),
    name=TEXT,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    command=TEXTS,
    args=TEXTS,
    workingDir=TEXT,
    env=several(VARIABLE),
    resources=RESOURCES,
    securityContext=CONTAINER_SECURITY,
    lifecycle=fields(preStop=fields(exec=fields(("command",), command=TEXTS))),
    volumeMounts=several(fields(("name", "mountPath"), name=TEXT, mountPath=TEXT, subPath=TEXT, readOnly=FLAG)),
)
VOLUME = fields(
    ("name",),
    name=TEXT,
    emptyDir=fields(medium=one_of("", "Memory"), sizeLimit=QUANTITY),
    persistentVolumeClaim=fields(("claimName",), claimName=TEXT, readOnly=FLAG),
    secret=fields(("secretName",), secretName=TEXT, defaultMode=COUNT),
)
OPERATOR = one_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
NODE_TERM = fields(matchExpressions=several(fields(("key", "operator"), key=TEXT, operator=OPERATOR, values=TEXTS)))
NODE_AFFINITY = fields(
    preferredDuringSchedulingIgnoredDuringExecution=several(
        fields(("weight", "preference"), weight={"type": "integer", "minimum": 1, "maximum": 100}, preference=NODE_TERM)
    ),
    requiredDuringSchedulingIgnoredDuringExecution=fields(("nodeSelectorTerms",), nodeSelectorTerms=several(NODE_TERM)),
)
TOLERATION = fields(
    key=TEXT,
    operator=one_of("Exists", "Equal"),
    value=TEXT,
    effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
    tolerationSeconds=COUNT,
)
POD = fields(
    ("containers",),
    containers=several(CONTAINER),
    volumes=several(VOLUME),
    securityContext=fields(
        runAsNonRoot=FLAG,
        runAsUser=COUNT,
        runAsGroup=COUNT,
        fsGroup=COUNT,
        fsGroupChangePolicy=one_of("OnRootMismatch", "Always"),
        seccompProfile=fields(("type",), type=one_of("RuntimeDefault", "Unconfined", "Localhost")),
    ),
    automountServiceAccountToken=FLAG,
    serviceAccountName=TEXT,
    imagePullSecrets=several(fields(("name",), name=TEXT)),
    nodeSelector=WORDS,
    affinity=fields(nodeAffinity=NODE_AFFINITY),
    tolerations=several(TOLERATION),
    terminationGracePeriodSeconds=COUNT,
    priorityClassName=TEXT,
)
TEMPLATE = fields(("spec",), metadata=fields(labels=WORDS, annotations=WORDS), spec=POD)

GROUP: dict[str, Schema] = {"template": TEMPLATE, "rayStartParams": WORDS, "resources": WORDS, "labels": WORDS}
HEAD_GROUP = fields(
    ("template",),
    **GROUP,
    headService={"type": "object"},
    enableIngress=FLAG,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
)
WORKER_GROUP = fields(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    **GROUP,
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    numOfHosts=POSITIVE,
    scaleStrategy=fields(workersToDelete=TEXTS),
    suspend=FLAG,
)
RAY_CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=fields(mode=one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(
        version=one_of("v1", "v2"),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        idleTimeoutSeconds=COUNT,
        resources=RESOURCES,
        image=TEXT,
        imagePullPolicy=TEXT,
        securityContext=CONTAINER_SECURITY,
        env=several(VARIABLE),
        envFrom={"type": "array"},
        volumeMounts={"type": "array"},
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs=several(WORKER_GROUP),
    headServiceAnnotations=WORDS,
    gcsFaultToleranceOptions={"type": "object"},
    upgradeStrategy=fields(type=one_of("Recreate", "None")),
    managedBy=TEXT,
    suspend=FLAG,
)
RAY_JOB = fields(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    rayClusterSpec=RAY_CLUSTER,
    backoffLimit=COUNT,
    submitterConfig=fields(backoffLimit=COUNT),
    submitterPodTemplate=TEMPLATE,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=POSITIVE,
    preRunningDeadlineSeconds=POSITIVE,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=WORDS,
    clusterSelector=WORDS,
    deletionStrategy={"type": "object"},
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    managedBy=TEXT,
    suspend=FLAG,
)
CLAIM = fields(
    ("accessModes", "resources"),
    accessModes=several(one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")),
    storageClassName=TEXT,
    resources=fields(("requests",), requests=fields(("storage",), storage=QUANTITY)),
    volumeName=TEXT,
)
SELECTOR = fields(matchLabels=WORDS)
POLICY = fields(
    ("podSelector", "policyTypes"),
    podSelector=SELECTOR,
    policyTypes=several(one_of("Ingress", "Egress")),
    ingress=several(
        fields(
            **{"from": several(fields(podSelector=SELECTOR, namespaceSelector=SELECTOR))},
            ports=several(fields(("port",), protocol=one_of("TCP", "UDP"), port=POSITIVE, endPort=POSITIVE)),
        )
    ),
)


def document(version: str, kind: str, spec: Schema) -> Schema:
    named = fields(("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}, labels=WORDS)
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=one_of(version),
        kind=one_of(kind),
        metadata=named,
        spec=spec,
    )


DOCUMENTS = {
    "RayJob": document("ray.io/v1", "RayJob", RAY_JOB),
    "PersistentVolumeClaim": document("v1", "PersistentVolumeClaim", CLAIM),
    "NetworkPolicy": document("networking.k8s.io/v1", "NetworkPolicy", POLICY),
}
