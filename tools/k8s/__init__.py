"""A real multi-node Kubernetes cluster on one Linux machine, without Docker, systemd or a registry (ADR 0010).

`python3 -m tools.k8s --help` lists the commands. Only the standard library is imported: any Python 3.11 runs it.
"""
