"""Actions and queries of skills: as those of agents, but they are known by the name of a skill, and run on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from tenure._context import Context
from tenure._methods import Method
from tenure.errors import NotInTurn

if TYPE_CHECKING:
    from tenure._agent import Agent
    from tenure.skills._skill import Skill

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class SkillMethod(Method[P, R_co], Generic[P, R_co]):
    """What an action becomes in the class of a skill. Its name is `cart.add`: the alias, and its name in the class."""

    skill: type[Skill[Any]]
    alias: str
    short: str
    others: dict[str, SkillMethod[P, R_co]]
    """By alias."""

    @classmethod
    def made_of(cls, method: Method[P, R_co], skill: type[Skill[Any]], short: str) -> SkillMethod[P, R_co]:
        """The action `short` of a class of skills."""
        made = cls.__new__(cls)
        made.__dict__.update(method.__dict__)
        made.__dict__.pop("signature", None)
        made.skill, made.alias, made.short, made.others = skill, skill.key, short, {}
        made.name, made.label = f"{skill.key}.{short}", f"{skill.__name__}.{short}"
        return made

    def __set_name__(self, owner: type[Any], name: str) -> None:
        """The name is that in the skill's class, wherever else it stands."""

    def of(self, alias: str) -> SkillMethod[P, R_co]:
        """The same, of the skill that is attached under this alias."""
        if alias == self.alias:
            return self
        known = self.others.get(alias)
        if known is None:
            self.others[alias] = known = copy.copy(self)
            known.alias, known.name = alias, f"{alias}.{self.short}"
        return known

    async def _on(self, agent: Any, /, *args: Any, **kwargs: Any) -> Any:
        method = self.of(agent.alias)
        arguments = method.signature.bind(args, kwargs)
        cell = agent.__tenure__
        if cell.runtime is not None:
            return await agent.runtime_for(method.name).call(cell.id, method, arguments, None)
        context = cell.context()
        if context is None:
            raise NotInTurn(f"{agent!r} is in no turn: {self.label} cannot be called")
        return await method.run(agent, context, arguments)

    async def run(self, agent: Agent[Any], context: Context, arguments: Mapping[str, Any]) -> object:
        """The action, on the skill of this draft. Else as an agent's."""
        from tenure.skills._roster import seated  # noqa: PLC0415 - rosters are made of skills

        return await super().run(cast("Agent[Any]", seated(agent, self.alias)), context, arguments)
