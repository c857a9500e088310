"""What the daemon decides: values in, values out.

Belongs here: the registry and its state machine, leases, placement, failover, the rules of the quorum register and of
turns, and the sentences that users read. Does not belong here: clocks, I/O, randomness, asyncio, the wire format.
Times are integers in nanoseconds of a boot clock (`*_ns`), passed in; wall times are floats in seconds since 1970
(`*_wall`), for display only.

The shells call it in this order (nothing else is assumed of them):

* server: `machine.apply` for every committed entry; on the leader `lease.LeaderLeases` for every heartbeat and tick,
  and `failover.Planner.plan` after each tick and after each entry that changed `Registry.placement_version`.
* host: `lease.HostLease` for every ack, `owner.Owner` for every agent that it holds, `turns` for every call.
"""
