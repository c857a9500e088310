"""What signals belong to (the correlation extension of CloudEvents)."""

from __future__ import annotations

from typing import Self

import pydantic

from tenure.signals._extension import Extension
from tenure.signals._ids import new_id


class Correlation(Extension):
    """Which flow a signal belongs to, and which signal it answers. Handed on by what it leads to."""

    correlationid: str = pydantic.Field(min_length=1)
    """The same along the whole flow."""
    causationid: str | None = pydantic.Field(default=None, min_length=1)
    """Id of the signal that led to this one; None: it is the first."""

    @classmethod
    def new(cls) -> Self:
        """The beginning of a flow."""
        return cls(correlationid=new_id())
