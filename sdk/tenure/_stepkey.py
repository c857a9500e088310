"""The idempotency key of a step."""

from __future__ import annotations


class StepKey(str):
    """A text that names one step of one turn, the same in every attempt of it: protocol 9, rule 3 [stable_key].

    A function that `ctx.step` runs gets it in the parameter that is annotated with it; hand it to the other side.
    """

    __slots__ = ()
