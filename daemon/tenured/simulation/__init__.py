"""A whole cluster in one process, in virtual time: the daemon's own code under every fault that a seed can think of.

Cluster(seed).run()     # raises Breach when an invariant of DESIGN.md section 3 does not hold

timeline.py     virtual time, and the event loop of one simulated process
net.py          connections that stall, break and come late
files.py, disk.py, register.py    disks, and what a crash leaves of them
machines.py     machines and processes
links.py        the daemon's links over the network
server.py, host.py, worker.py    the daemon's parts, put together; what is simulated says so
clients.py      clients and an operator
faults.py       what goes wrong
invariants.py   what must hold after every event
cluster.py      one world, from its seed to its end

Users' agents and the SDK's client in such a world (`tenure.testing.simulate`, docs/adr/0022):

programs.py     user code in worker processes, and what the checker sees of it
rpc.py          gRPC's stubs and the daemon's methods over the network
controls.py     faults by name
usertime.py     the standard library's clocks and dice
story.py        the world of a story
"""

from tenured.simulation.cluster import Cluster, Rules, Settings, drawn
from tenured.simulation.invariants import Breach

__all__ = ["Breach", "Cluster", "Rules", "Settings", "drawn"]
