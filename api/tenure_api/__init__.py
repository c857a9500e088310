"""What every part of Tenure shares: the `tenure.dev/v1alpha1` resource types, identities, and the catalogue of reasons.

Types and pure functions only: no I/O, nothing of Kubernetes or gRPC. crds/ and docs/reference/crds.md are generated
from the types (tools/gencrds.py). Import its modules:
`agent`, `agentcluster`, `manifest`, `quantity`, `identity`, `reasons`.
"""
