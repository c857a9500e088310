"""The `tenure` command line, also installed as `kubectl-tenure`."""
