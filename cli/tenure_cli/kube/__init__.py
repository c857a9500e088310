"""A cluster on Kubernetes, reached with the user's own kubectl (docs/adr/0009-cli-uses-kubectl.md).

`kubectl` runs it and turns what it says into sentences, `discovery` finds the cluster and a Ready server, `forward`
keeps a port-forward open, `certificate` enrols and keeps the client's certificate.
"""
