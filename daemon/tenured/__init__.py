"""The daemon: one program, two roles. See docs/architecture.md.

`core` decides (pure). `raft`, `storage` and `transport` keep and carry. `server`, `host` and `supervisor` are the
roles.
"""
