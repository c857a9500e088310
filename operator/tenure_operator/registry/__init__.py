"""What the operator says to and hears from a cluster's servers.

`values` are the rows as plain values, `session` keeps a mirror of one cluster's registry and sends what is wanted,
`client` is the one module of the operator that knows gRPC and the wire contract.
"""
