"""What tests of agents, and of what agents stand on, are made with.

`StorageContract`: what every storage must do; inherit it and give it yours. `simulate`: a story about agents, told in a
whole cluster in this process, in virtual time, under faults (needs `tenure[daemon]`).
`VirtualRuntime`, `SignalSpy`, `LocalFaults`, `FakeStorage`, `Recorder`: the local runtime in virtual time, with faults;
pytest has them as fixtures (`tenure_pytest`). `Conformance`: what every runtime must do.
`Probe`, `scripted`, `Pause`, `FakeSensor`: sensors in time that stands still, with events by script.
"""

import importlib
from typing import TYPE_CHECKING

from tenure.testing._storage import StorageContract

if TYPE_CHECKING:
    from tenure.sensors._fake import FakeSensor, Pause, Probe, scripted
    from tenure.testing._conformance import Conformance
    from tenure.testing._fakes import FakeStorage, Recorder
    from tenure.testing._faults import LocalFaults
    from tenure.testing._history import Call, History
    from tenure.testing._runtime import VirtualRuntime
    from tenure.testing._signals import SignalSpy
    from tenure.testing._simulation import Background, Run, Simulation, simulate
    from tenure.testing._worlds import Faults

__all__ = [
    "Background",
    "Call",
    "Conformance",
    "FakeSensor",
    "FakeStorage",
    "Faults",
    "History",
    "LocalFaults",
    "Pause",
    "Probe",
    "Recorder",
    "Run",
    "SignalSpy",
    "Simulation",
    "StorageContract",
    "VirtualRuntime",
    "scripted",
    "simulate",
]

# What few tests need is loaded when it is first used.
_LAZY = {
    "Background": "tenure.testing._simulation",
    "Call": "tenure.testing._history",
    "Conformance": "tenure.testing._conformance",
    "FakeSensor": "tenure.sensors._fake",
    "FakeStorage": "tenure.testing._fakes",
    "Faults": "tenure.testing._worlds",
    "History": "tenure.testing._history",
    "LocalFaults": "tenure.testing._faults",
    "Pause": "tenure.sensors._fake",
    "Probe": "tenure.sensors._fake",
    "Recorder": "tenure.testing._fakes",
    "Run": "tenure.testing._simulation",
    "SignalSpy": "tenure.testing._signals",
    "Simulation": "tenure.testing._simulation",
    "VirtualRuntime": "tenure.testing._runtime",
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
