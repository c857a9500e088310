"""Numbers that look drawn and are the same for the same input: ties, and the strategy Random."""

from __future__ import annotations

import math
import zlib

_MASK = (1 << 64) - 1


def ticket(seed: int, uid: str) -> int:
    """What one agent's draws have in common."""
    return zlib.crc32(f"{seed}:{uid}".encode()) << 32


def draw(ticket: int, salt: int) -> int:
    """64 bits for one agent and one host: the finalizer of splitmix64. A CRC alone is linear: the differences of its
    values for two hosts are the same for every agent, and then some hosts win more often than others.
    """
    mixed = (ticket | salt) + 0x9E3779B97F4A7C15 & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def pause(drawn: int) -> float:
    """An exponentially distributed number of mean 1. Clocks that add such pauses ring in an order in which each next
    one is any of them with equal probability (they have no memory).
    """
    return -math.log((drawn + 1) / (_MASK + 1))
