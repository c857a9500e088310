"""Skills: what agents can do beside what their class says, attached to a class or to an agent that runs.

Here: what skills are (`_skill`), which ones an agent has (`_roster`), what they do around a turn (`_phases`), and three
to use: `Identity`, `Memory`, `Journal`. The engine of turns is elsewhere; it asks `_phases`, and only for agents with
skills.
"""

from tenure.skills._identity import Identity, IdentityState
from tenure.skills._journal import Entry, Journal, JournalState
from tenure.skills._methods import SkillMethod
from tenure.skills._remembering import Memory, MemoryState, Space
from tenure.skills._roster import skill_of
from tenure.skills._skill import Persist, Skill

__all__ = [
    "Entry",
    "Identity",
    "IdentityState",
    "Journal",
    "JournalState",
    "Memory",
    "MemoryState",
    "Persist",
    "Skill",
    "SkillMethod",
    "Space",
    "skill_of",
]
