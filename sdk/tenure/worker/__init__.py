"""The worker container's side: `python -m tenure.worker` is PID 1 there, and what it starts runs user code.

    supervisor (PID 1; no user code)
    ├── fork server: imports the pool's modules once, has no threads, forks workers
    └── workers: run agents, each with its own connection to the daemon

The worker link is `tenure_link`: framed msgpack on a unix socket. Nothing here knows grpc, or talks to
anybody but its daemon.
"""
