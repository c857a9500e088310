"""Keeps Python's collector of cycles off the registry's rows.

A full collection looks at every row: with 100,000 agents the loop stood still for a quarter of a second. Rows are
values without cycles, and are freed when nobody refers to them any more, collector or not.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """What is there now is never looked at again. Young garbage goes first; cycles older than that would stay for good,
    so call it rarely: at a start, and when a snapshot is written.
    """
    gc.collect(1)
    gc.freeze()
