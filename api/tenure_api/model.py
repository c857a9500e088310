"""The base of all resource types, and small types that several of them use.

Schema extensions that Kubernetes knows and JSON Schema does not (`x-kubernetes-*`, CEL rules) travel in
`json_schema_extra`; tools/gencrds.py makes crds/ from them.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from tenure_api import quantity

GROUP = "tenure.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

LABEL_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS label that may also name a Service: it begins with a letter."""


class Model(BaseModel):
    """Fields are `snake_case` here and `camelCase` in manifests. What the schema does not know is refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


def cel(*rules: tuple[str, str]) -> JsonDict:
    """`x-kubernetes-validations` of (rule, message) pairs."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def immutable(message: str) -> JsonDict:
    """A field that cannot change once it is set."""
    return cel(("self == oldSelf", message))


def not_negative(path: str) -> str:
    """CEL: the quantity at this path is zero or more."""
    return f"!quantity(string({path})).isLessThan(quantity('0'))"


def above_zero(path: str) -> str:
    """CEL: the quantity at this path is more than zero."""
    return f"quantity(string({path})).isGreaterThan(quantity('0'))"


def list_map(*keys: str) -> JsonDict:
    """A list whose items are told apart by these keys, so that several managers can own single items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET: JsonDict = {"x-kubernetes-list-type": "set"}
ATOMIC_LIST: JsonDict = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: JsonDict = {"x-kubernetes-map-type": "atomic"}
FREE_FORM: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}
"""Any JSON object: a user's own data, or a Kubernetes type that is too long to repeat (the field says which)."""


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity: TypeAlias = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(pattern=quantity.PATTERN, json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""An amount as Kubernetes writes it: `500m`, `2`, `128Mi`."""

Labels: TypeAlias = dict[str, str]
Json: TypeAlias = dict[str, Any]


class ObjectMeta(BaseModel):
    """Standard Kubernetes metadata, as far as Tenure reads it. The API server checks the rest."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Labels = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)


class Condition(Model):
    """A standard Kubernetes condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})]
    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] = 0
    """The metadata.generation that this was said of."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """From the catalogue in docs/reference/reasons.md."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence."""
