"""How the daemon's processes reach each other; the only package of the daemon that imports grpc.

Here: listeners that check the caller of every method, channels that check whom they reached, and one adapter per
service, so that handlers see verified identities and messages. Not here: what any message means (`tenured.server`,
`tenured.host`).

| module | for whom |
|---|---|
| `tls`, `errors`, `roles`, `serving` | everybody: credentials, the error tree, who may call what, listeners |
| `framed`, `raft` | servers: frames over TLS, and on them `RaftPeers`, the engine's `PeerLink` |
| `hostlink`, `serverlinks` | the two ends of a host's link to a server |
| `calls` | hosts serve it; servers pass it on through `CallsClient` |
| `registry`, `enrolment` | servers serve them; hosts watch and enrol |
"""
