"""Callbacks of one activation. A defect in one of them must not leave the agent standing still without a word: it ends
the activation, with a logged error, and the registry places the agent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import ParamSpec

log = logging.getLogger("tenured.host.guarding")

P = ParamSpec("P")


class Guard:
    """Of one activation."""

    def __init__(self, agent: str) -> None:
        self.on_defect: Callable[[Exception], None] = lambda _: None
        """Called after the error is logged: nothing may be committed or released from then on."""
        self._agent = agent

    def __call__(self, work: Callable[P, None]) -> Callable[P, None]:
        """The same, which raises nothing."""

        return partial(self.run, work)  # a third of a closure's memory, and every agent has some six

    def run(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do it now. Raises nothing."""
        try:
            work(*args, **kwargs)
        except Exception as error:
            log.exception("%s: a defect ends its activation", self._agent)
            self.on_defect(error)
