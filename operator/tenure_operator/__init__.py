"""The operator: resources to pods and rows, the registry to status. It is never needed for an agent to keep running."""
