"""Kubernetes quantities (`500m`, `1.5`, `128Mi`) to exact integers.

Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""The pattern that Kubernetes publishes for its own types."""

_PARTS = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))([A-Za-z]{0,2})((?:(?<=[eE])[+-]?\d+)?)\Z")
_SCALES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}


class BadQuantity(ValueError):
    """Not an amount that Kubernetes would accept."""


def parse(text: str) -> Fraction:
    """The exact amount. Raises BadQuantity."""
    found = _PARTS.match(text)
    if not found:
        raise BadQuantity(f"{text!r} is not a quantity: write for example 500m, 2 or 128Mi")
    number, suffix, exponent = found.groups()
    if exponent:
        return Fraction(number) * Fraction(10) ** int(exponent)
    if suffix not in _SCALES:
        raise BadQuantity(f"{text!r} is not a quantity: {suffix!r} is no unit; write for example 500m, 2 or 128Mi")
    return Fraction(number) * _SCALES[suffix]


def milli(text: str) -> int:
    """Thousandths (of a core), rounded up as Kubernetes does. Raises BadQuantity."""
    return ceil(parse(text) * 1000)


def whole(text: str) -> int:
    """Whole units (bytes), rounded up as Kubernetes does. Raises BadQuantity."""
    return ceil(parse(text))
