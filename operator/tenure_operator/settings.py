"""How one operator process runs. The environment is read here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class BadSettings(ValueError):
    """The environment makes no sense; the message says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it. Defaults are those of the chart."""

    image: str
    """Of servers and host daemons, where an AgentCluster names none."""
    image_pull_policy: str = ""
    """The same; empty: Kubernetes' own default."""
    registry_address: str = "{cluster}.{namespace}.svc:7443"
    """Where a cluster's servers answer."""
    token_review_role: str = "tenure-server"  # noqa: S105 - a ClusterRole, no secret
    """ClusterRole of the chart that lets servers check tokens."""
    http_port: int = 8080
    """Health and metrics; 0: none."""
    status_writes_per_s: float = 200.0
    """Budget of the API server: facts/libraries.md E8 measured 44 % of a core at this rate."""
    resync_s: float = 60.0
    """Between two comparisons of everything with the API server."""
    kubeconfig: Path | None = None
    """None: KUBECONFIG, else the pod's own account."""
    json_logs: bool = True


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from `TENURE_OPERATOR_*`. Raises BadSettings."""

    def text(name: str, default: str) -> str:
        return environment.get(f"TENURE_OPERATOR_{name}", default)

    def number(name: str, default: float) -> float:
        value = text(name, str(default))
        try:
            return float(value)
        except ValueError:
            raise BadSettings(f"TENURE_OPERATOR_{name} is {value!r}; a number is expected.") from None

    image = text("IMAGE", "")
    if not image:
        raise BadSettings("TENURE_OPERATOR_IMAGE is empty: it names the image of servers and hosts.")
    kubeconfig = environment.get("KUBECONFIG", "")
    return Settings(
        image=image,
        image_pull_policy=text("IMAGE_PULL_POLICY", ""),
        registry_address=text("REGISTRY_ADDRESS", "{cluster}.{namespace}.svc:7443"),
        token_review_role=text("TOKEN_REVIEW_ROLE", "tenure-server"),
        http_port=int(number("HTTP_PORT", 8080)),
        status_writes_per_s=number("STATUS_WRITES_PER_S", 200),
        resync_s=number("RESYNC_S", 60),
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
        json_logs=text("LOG_FORMAT", "json") == "json",
    )
