"""How agents are called."""

import re

from tenure import errors

_ID = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def full_id(agent_id: str, namespace: str) -> str:
    """`namespace/name`, with the default namespace where none is given. Raises UsageError for what is no such name."""
    if not _ID.fullmatch(agent_id):
        raise errors.UsageError(
            f"{agent_id!r} names no agent: [namespace/]name, of lower case letters, digits, - and ."
        )
    return agent_id if "/" in agent_id else f"{namespace}/{agent_id}"
