"""What tests of agents, and of what agents stand on, are made with.

`StorageContract`: what every storage must do; inherit it and give it yours. `simulate`: a story about agents, told in a
whole cluster in this process, in virtual time, under faults (needs `tenure[daemon]`).
`Probe`, `scripted`, `Pause`, `FakeSensor`: sensors in time that stands still, with events by script.
"""

import importlib
from typing import TYPE_CHECKING

from tenure.testing._storage import StorageContract

if TYPE_CHECKING:
    from tenure.sensors._fake import FakeSensor, Pause, Probe, scripted
    from tenure.testing._history import Call, History
    from tenure.testing._simulation import Background, Faults, Run, Simulation, simulate

__all__ = [
    "Background",
    "Call",
    "FakeSensor",
    "Faults",
    "History",
    "Pause",
    "Probe",
    "Run",
    "Simulation",
    "StorageContract",
    "scripted",
    "simulate",
]

# What few tests need is loaded when it is first used.
_LAZY = {
    "Background": "tenure.testing._simulation",
    "Call": "tenure.testing._history",
    "FakeSensor": "tenure.sensors._fake",
    "Faults": "tenure.testing._simulation",
    "History": "tenure.testing._history",
    "Pause": "tenure.sensors._fake",
    "Probe": "tenure.sensors._fake",
    "Run": "tenure.testing._simulation",
    "Simulation": "tenure.testing._simulation",
    "scripted": "tenure.sensors._fake",
    "simulate": "tenure.testing._simulation",
}


def __getattr__(name: str) -> object:
    """Load the module of a name that is first used now (PEP 562)."""
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'tenure.testing' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every name, loaded or not."""
    return sorted({*globals(), *_LAZY})
