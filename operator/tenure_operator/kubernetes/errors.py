"""What can go wrong with the Kubernetes API, as the operator sees it. The tree is in the package's docstring."""

from __future__ import annotations


class KubernetesError(Exception):
    """Base of this package's errors. The message is a sentence."""


class Unreachable(KubernetesError):
    """No answer, or none that means anything: nothing may be concluded from it."""


class Conflict(KubernetesError):
    """Somebody else changed the object meanwhile, or it is another object of that name."""


class Refused(KubernetesError):
    """The API server says no."""
