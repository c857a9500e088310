"""The `tenure` command line, also installed as `kubectl-tenure`.

Belongs here: choosing a context, turning manifests into wire messages, printing, and `tenure dev`, which starts the
processes of a local cluster. Does not belong here: anything a cluster needs to run. Every command reaches the cluster
through `tenure_cli.ports.Cluster`, so that its tests need no cluster; `tenure_cli.remote` implements it over the SDK.
"""
