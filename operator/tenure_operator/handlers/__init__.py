"""Unpack, gather, decide, apply: each handler does nothing else. Decisions are in `policies`, manifests in `resources`.

`events` takes kopf's events apart, `agents`, `clusters` and `nodes` reconcile one key each, `resync` compares
everything with the API server now and then.
"""
