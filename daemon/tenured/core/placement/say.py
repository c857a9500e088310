"""Why an agent goes where it goes, and what users read when nothing fits."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from tenure_api.reasons import Reason
from tenured.core.model import Agent, Pool
from tenured.core.placement.result import Placement
from tenured.core.placement.site import Site
from tenured.core.placement.strategies import Key, Strategy
from tenured.core.placement.wish import Wish
from tenured.core.registry import Registry

EXPLANATION_BYTES = 256
_SHORT = 24
"""Characters of a host's name where the whole does not fit."""
PHRASES = 6
"""Kinds of rejections that a sentence names."""
_LONG = 60
"""Characters of a phrase: the key of a taint may be longer."""
Why = tuple[str, str, str]
"""Reason, sentence, next step."""


def explain(strategy: Strategy, best: Sequence[tuple[str, Key]], refused: Counter[str], note: str = "") -> str:
    """At most EXPLANATION_BYTES: the winner, the next ones, rejections per filter."""
    scored = [(name, strategy.say(key)) for name, key in best]
    text = _explanation(strategy, scored, refused, note)
    if len(text) > EXPLANATION_BYTES or len(text.encode()) > EXPLANATION_BYTES:
        scored = [(name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…", score) for name, score in scored]
        text = _explanation(strategy, scored, refused, note)
        text = text.encode()[:EXPLANATION_BYTES].decode(errors="ignore")
    return text


def _explanation(strategy: Strategy, scored: Sequence[tuple[str, str]], refused: Counter[str], note: str) -> str:
    names = [f"{name} {score}" for name, score in scored]
    text = names[0] if strategy.name == "LoadBalanced" else f"{strategy.name}: {names[0]}"
    if names[1:]:
        text += f"; then {', '.join(names[1:])}"
    if note:
        text += f"; {note}"
    return f"{text}; rejected: {counted(refused)}" if refused else text


def counted(refused: Counter[str]) -> str:
    """`2 full, 1 cordoned`: the most frequent phrases, the others in sum; a sentence of bounded length."""
    ordered = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    shown, others = ordered[:PHRASES], ordered[PHRASES:]
    if others:
        shown.append(("otherwise", sum(count for _, count in others)))
    return ", ".join(f"{count} {why if len(why) <= _LONG else f'{why[: _LONG - 1]}…'}" for why, count in shown)


def waiting(agent: Agent, why: Why) -> Placement:
    """The agent goes nowhere."""
    reason, message, next_action = why
    return Placement(uid=agent.uid, epoch=agent.epoch, reason=reason, message=message, next_action=next_action)


def nowhere(wish: Wish, pool: Pool, sites: Iterable[Site], refused: Counter[str]) -> Why:
    """Why no host of the pool takes the agent: the first of these that is true."""
    hosts = sorted((site.host for site in sites), key=lambda host: (host.name, host.incarnation))
    if not hosts:
        return say(Reason.NO_HOST_FITS, f"Waiting: pool {pool.name} has no host yet")
    broken = [host for host in hosts if host.worker_error]
    ready = [host for host in hosts if host.ready]
    if not ready and broken:
        return say(
            broken[0].worker_reason or Reason.IMPORT_FAILED,
            f"Waiting: no worker of pool {pool.name} serves: {broken[0].worker_error}",
        )
    offered = {known.name for host in ready for known in host.classes}
    if ready and wish.class_name not in offered:
        return say(
            Reason.CLASS_NOT_FOUND,
            f"Waiting: pool {pool.name} has no class {wish.class_name}{near(wish.class_name, offered)}",
        )
    has = {capability for host in hosts for capability in host.capabilities}
    missing = [capability for capability in wish.requires if capability not in has]
    if missing:
        return say(
            Reason.CAPABILITY_MISSING, f"Waiting: no host has {_capabilities(missing)}{near(missing[0], has, 0)}"
        )
    if wish.requires and not any(set(wish.requires) <= set(host.capabilities) for host in hosts):
        return say(Reason.CAPABILITY_MISSING, f"Waiting: no host has {_capabilities(wish.requires)} at once")
    return say(Reason.NO_HOST_FITS, f"Waiting: no host of pool {pool.name} fits ({counted(refused)})")


def no_pool(registry: Registry, name: str) -> Why:
    """The pool does not exist."""
    return say(Reason.POOL_NOT_FOUND, f"Waiting: the cluster has no pool {name}{near(name, registry.pools)}")


def _capabilities(names: Sequence[str]) -> str:
    *others, last = names
    return f"capabilities {', '.join(others)} and {last}" if others else f"capability {last}"


def say(reason: str, message: str) -> Why:
    """With the next step of the catalogue."""
    try:
        return str(reason), message, Reason(reason).next_step
    except ValueError:  # a host of another version may use a word that this catalogue lacks
        return reason, message, ""


def near(name: str, known: Iterable[str], listed: int = 5) -> str:
    """Say which names are like this one, or which there are, `listed` of them at most."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if close:
        return f" (did you mean {' or '.join(close)}?)"
    if not names or not listed:
        return ""
    return f" (it has {', '.join(names[:listed])}{', ...' if len(names) > listed else ''})"
