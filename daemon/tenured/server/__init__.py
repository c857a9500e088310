"""A server: it votes, keeps the registry and its part of the state store, and serves both.

Belongs here: composition, and the shells around `tenured.core` that persist, send and feed ticks. Does not belong
here: any decision about agents (core), the log (raft), the disk (storage), gRPC (transport).

| module | what |
|---|---|
| `replica` | the registry behind the replicated log, and who hears of its changes |
| `leading` | what only the leader does: ticks, acknowledgements, expiries, placement |
| `hosts`, `store` | the link to hosts: registration, reports, heartbeats; sealing and writing records |
| `watching`, `rows` | the watch stream, encoded once for all; rows as the wire shows them |
| `api`, `passing` | the Registry service; calls passed on to the holder's host |
| `enrolling`, `tokens` | signing certificates for those who prove who they are |
| `health` | HTTP: liveness, readiness, metrics |
| `main` | the process |
"""
