"""What would happen: placement of one agent that changes nothing, with a verdict on every host."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from tenure_api.reasons import Reason
from tenured.core._specs import spec_error
from tenured.core.agentspec import AgentSpec
from tenured.core.model import Agent
from tenured.core.placement import say
from tenured.core.placement.book import book_of
from tenured.core.placement.filters import STANDING, first
from tenured.core.placement.group import Group
from tenured.core.placement.result import Trial, Verdict
from tenured.core.placement.site import Site
from tenured.core.placement.strategies import detail
from tenured.core.placement.wish import Wish, wish_of
from tenured.core.registry import Registry


def newcomer(spec: AgentSpec) -> Agent:
    """An agent of that spec which has no row."""
    return Agent(uid="0", spec=spec, managed_by="API", unheld_reason=Reason.SCHEDULED)


def problem(spec: AgentSpec) -> str:
    """What makes a spec impossible by itself, as `ApplyAgents` would say it; empty: nothing."""
    found = spec_error(spec)
    return found[1] if found else ""


def dry_run(
    registry: Registry,
    agent: Agent,
    *,
    avoid: AbstractSet[str] = frozenset(),
    loads: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Trial:
    """Place the agent as it is now, on paper. One that is held counts where it is, like every other."""
    book = book_of(registry, avoid, loads)
    everywhere = book.sites
    wish = wish_of(registry, agent)
    pool = registry.pools.get(wish.pool)
    if pool is None:
        placement = say.waiting(agent, say.no_pool(registry, wish.pool))
        return Trial(placement=placement, strategy=wish.strategy, verdicts=_others(wish, everywhere, {}))
    group = Group(wish, pool, book, seed, agent.uid)
    ranked = [
        _verdict(
            everywhere[inc],
            rank=rank,
            score=group.strategy.say(key),
            detail=detail(group.strategy, wish, everywhere[inc]),
        )
        for rank, (inc, key) in enumerate(group.ranking(), 1)
    ]
    fit = {verdict.incarnation for verdict in ranked}
    rest = {inc: site for inc, site in everywhere.items() if inc not in fit}
    verdicts = (*ranked, *_others(wish, rest, group.refused))
    placement = group.place(agent)  # last: it counts itself
    node = everywhere[placement.incarnation].host.node if placement.incarnation else ""
    return Trial(placement=placement, strategy=wish.strategy, node=node, verdicts=verdicts)


def _others(wish: Wish, rest: Mapping[str, Site], refused: Mapping[str, tuple[str, str]]) -> tuple[Verdict, ...]:
    found: list[Verdict] = []
    for incarnation, site in sorted(rest.items(), key=lambda item: (item[1].host.name, item[0])):
        name, why = refused.get(incarnation) or first(STANDING, wish, site)
        found.append(_verdict(site, rejected=name, why=why))
    return tuple(found)


def _verdict(
    site: Site, *, rank: int = 0, score: str = "", detail: str = "", rejected: str = "", why: str = ""
) -> Verdict:
    host = site.host
    return Verdict(
        incarnation=host.incarnation,
        host=host.name,
        node=host.node,
        zone=site.zone,
        pool=host.pool,
        rank=rank,
        score=score,
        detail=detail,
        rejected=rejected,
        why=why,
    )
