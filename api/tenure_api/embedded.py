"""Types of Kubernetes itself that stand inside ours, as far as Tenure passes them on to pods.

Written out with every field where the type is short, so that a typo is refused at `kubectl apply`. Affinity is not
short (some 600 lines of schema): its terms are passed on as they are, and the API server judges them on the pods.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

from tenure_api.model import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    FREE_FORM,
    LIST_SET,
    Json,
    Labels,
    Model,
    Quantity,
    above_zero,
    cel,
    list_map,
    not_negative,
)

PullPolicy: TypeAlias = Literal["Always", "IfNotPresent", "Never"]

_PULL_SECRETS = {**list_map("name"), "maxItems": 16}


class LocalObjectReference(Model):
    """The name of an object in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


PullSecrets: TypeAlias = Annotated[list[LocalObjectReference], Field(json_schema_extra={**_PULL_SECRETS})]


class SecretKeyReference(Model):
    """An entry of a Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._A-Za-z0-9]+$")]


class ResourceRequirements(Model):
    """What a container asks for, and what it may use at most."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
                    "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)"
                ),
                "a request is higher than its limit",
            ),
            (
                f"!has(self.requests) || self.requests.all(name, {not_negative('self.requests[name]')})",
                "a request is negative",
            ),
            (
                f"!has(self.limits) || self.limits.all(name, {above_zero('self.limits[name]')})",
                "a limit is not above zero",
            ),
        )
    )

    requests: Annotated[dict[str, Quantity] | None, Field(json_schema_extra={"maxProperties": 8})] = None
    """What the scheduler keeps free for the container: `cpu`, `memory`, ..."""
    limits: Annotated[dict[str, Quantity] | None, Field(json_schema_extra={"maxProperties": 8})] = None
    """What the container may use at most."""


class Toleration(Model):
    """A taint that the pod accepts."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int | None, Field(json_schema_extra={"format": "int64"})] = None


Tolerations: TypeAlias = Annotated[list[Toleration], Field(json_schema_extra={**ATOMIC_LIST, "maxItems": 64})]
Capabilities: TypeAlias = Annotated[
    list[Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./:]*[A-Za-z0-9])?$")]],
    Field(json_schema_extra={**LIST_SET, "maxItems": 32}),
]
"""Words of the user's own choice: `gpu`, `payments.eu`, `cuda:12`."""


class Taint(Model):
    """Keeps agents away that do not tolerate it."""

    key: Annotated[str, Field(min_length=1, max_length=316)]
    value: Annotated[str, Field(max_length=63)] = ""
    effect: Literal["NoSchedule", "PreferNoSchedule"] = "NoSchedule"
    """`PreferNoSchedule`: hosts without the taint come first."""


Taints: TypeAlias = Annotated[list[Taint], Field(json_schema_extra={**list_map("key", "effect"), "maxItems": 32})]
NodeSelector: TypeAlias = Annotated[Labels, Field(json_schema_extra={**ATOMIC_MAP, "maxProperties": 64})]


class LabelSelectorRequirement(Model):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[str] | None, Field(json_schema_extra=ATOMIC_LIST)] = None


class LabelSelector(Model):
    match_labels: Labels | None = None
    match_expressions: Annotated[list[LabelSelectorRequirement] | None, Field(json_schema_extra=ATOMIC_LIST)] = None


class TopologySpreadConstraint(Model):
    """How pods spread over a topology. Without `labelSelector` it means the pods that the constraint stands on."""

    max_skew: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] = 1
    topology_key: str
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "DoNotSchedule"
    label_selector: LabelSelector | None = None
    min_domains: Annotated[int | None, Field(ge=1, json_schema_extra={"format": "int32"})] = None
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None


_AFFINITY = "As in a pod, passed on unread: the type is too long to repeat, and the API server checks it on the pod."


class Affinity(Model):
    """Which nodes and which neighbours the pods want. Added to what Tenure asks for by itself."""

    node_affinity: Annotated[Json | None, Field(description=_AFFINITY, json_schema_extra=FREE_FORM)] = None
    pod_affinity: Annotated[Json | None, Field(description=_AFFINITY, json_schema_extra=FREE_FORM)] = None
    pod_anti_affinity: Annotated[Json | None, Field(description=_AFFINITY, json_schema_extra=FREE_FORM)] = None


class KeySelector(Model):
    """One key of a ConfigMap or Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)]
    optional: bool | None = None


class FieldSelector(Model):
    field_path: str
    api_version: str | None = None


class ResourceFieldSelector(Model):
    resource: str
    container_name: str | None = None
    divisor: Quantity | None = None


class EnvVarSource(Model):
    """Where a value comes from: exactly one of the four."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    "[has(self.configMapKeyRef), has(self.secretKeyRef), has(self.fieldRef), "
                    "has(self.resourceFieldRef)].filter(given, given).size() == 1"
                ),
                "name exactly one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef",
            )
        )
    )

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Model):
    """One environment variable of the worker."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.value) || !has(self.valueFrom)", "give either value or valueFrom, not both"),
            ("!self.name.startsWith('TENURE_')", "names that begin with TENURE_ are Tenure's own"),
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    value: Annotated[str | None, Field(max_length=32768)] = None
    value_from: EnvVarSource | None = None


class EnvSource(Model):
    """All keys of a ConfigMap or Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    optional: bool | None = None


class EnvFromSource(Model):
    """A source of environment variables: exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.configMapRef) != has(self.secretRef)", "name exactly one of configMapRef and secretRef")
        )
    )

    prefix: str | None = None
    config_map_ref: EnvSource | None = None
    secret_ref: EnvSource | None = None


class PodMetadata(Model):
    """Labels and annotations for the pods. Those that Tenure sets itself win."""

    labels: Annotated[Labels | None, Field(json_schema_extra={"maxProperties": 64})] = None
    annotations: Annotated[Labels | None, Field(json_schema_extra={"maxProperties": 64})] = None


class SecurityContext(Model):
    """Who the pod's processes are. Everything else is as Pod Security `restricted` wants it."""

    run_as_user: Annotated[int, Field(ge=1, json_schema_extra={"format": "int64"})] = 65532
    """User id of every container of the pod; never 0."""
    run_as_group: Annotated[int, Field(ge=1, json_schema_extra={"format": "int64"})] = 65532
    """Group id of every container of the pod, and of its volumes."""
