"""One module per group of commands. A command reads its options, asks the cluster, and prints; no more than that."""
