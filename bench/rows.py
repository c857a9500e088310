"""One server's Raft part in a process of its own, for `bench.raft`: log, links, registry; nothing else of a server.

    python -m bench.rows --name NAME --peer NAME=HOST:PORT … --tls DIR --data DIR --port PORT [--entries N]

Once it leads, it fills its registry with agents that wait, then places each once, in entries of BATCH assignments with
UNDER_WAY entries at a time, as the leader's planner does, and prints one line: rows a second until the last entry was
applied on it. Entries: what it places, and so how many agents there are.
"""

import argparse
import asyncio
import time
from pathlib import Path

import uvloop

from tenured.core import agentspec, commands, model, results
from tenured.core.profile import BALANCED
from tenured.raft import Applied, Consensus, RaftConfig, Role
from tenured.server.replica import Replica
from tenured.transport.raft import RaftPeers
from tenured.transport.tls import TlsFiles

CLUSTER = "bench.bench"
BATCH = 50
UNDER_WAY = 64
FILL = 500
TIMEOUT_S = 60.0
HOST = "incarnation-1"


async def decided(consensus: Consensus, command: commands.Command) -> results.Result:
    """Propose and wait; every row must have been taken."""
    outcome = await consensus.propose(commands.encode(command), TIMEOUT_S)
    if not isinstance(outcome, Applied):
        raise SystemExit(f"a proposal ended as {outcome}")
    result = results.decode(outcome.result)
    if not result.ok or any(row.outcome == "refused" for row in result.rows):
        raise SystemExit(f"a command was refused: {result.message or result.rows[:1]}")
    return result


async def fill(consensus: Consensus, replica: Replica, count: int) -> list[model.Agent]:
    """A host with room for all, and `count` agents that wait."""
    wall = time.time()
    await decided(consensus, commands.ApplyPools(wall=wall, pools=(model.Pool(name="default"),)))
    await decided(
        consensus,
        commands.RegisterHost(
            wall=wall, name="host", incarnation=HOST, pool="default", node="node", address="127.0.0.1:1",
            cpu_milli=count, memory_bytes=count,
        ),
    )  # fmt: skip
    for start in range(0, count, FILL):
        agents = tuple(
            agentspec.AgentSpec(id=f"bench/agent-{n}", class_name="Bench", pool="default", cpu_milli=1, memory_bytes=1)
            for n in range(start, min(start + FILL, count))
        )
        await decided(consensus, commands.ApplyAgents(wall=wall, agents=agents, managed_by="API"))
    return list(replica.registry.agents.values())


async def place(consensus: Consensus, agents: list[model.Agent]) -> float:
    """Rows a second."""
    batches = [agents[start : start + BATCH] for start in range(0, len(agents), BATCH)]
    gate = asyncio.Semaphore(UNDER_WAY)
    explanation = "LoadBalanced: host 0.42; next other-1 0.40, other-2 0.31; rejected pool 3, room 2"

    async def one(part: list[model.Agent]) -> None:
        async with gate:
            items = tuple(
                commands.Assignment(
                    uid=agent.uid, epoch=agent.epoch, incarnation=HOST, reason="Scheduled", explanation=explanation
                )
                for agent in part
            )
            await decided(consensus, commands.Assign(wall=time.time(), items=items))

    begin = time.perf_counter()
    await asyncio.gather(*(one(part) for part in batches))
    return len(agents) / (time.perf_counter() - begin)


async def serve(given: argparse.Namespace) -> None:
    """Take part until killed; measure once this server leads."""
    peers = dict(peer.split("=", 1) for peer in given.peer)
    peers.pop(given.name, None)
    replica = Replica()
    links = RaftPeers(given.name, CLUSTER, peers, TlsFiles(given.tls))
    config = RaftConfig(
        name=given.name,
        peers=tuple(sorted(peers)),
        directory=given.data,
        election_min_s=BALANCED.election_min_s,
        election_max_s=BALANCED.election_max_s,
    )
    consensus = Consensus(config, replica, links)
    links.bind(consensus)
    leads = asyncio.Event()

    def changed(role: Role) -> None:
        if role.is_leader and role.ready:
            leads.set()

    consensus.on_role = changed
    await consensus.start()
    await links.listen("127.0.0.1", given.port)
    await links.start()
    await leads.wait()
    agents = await fill(consensus, replica, given.entries * BATCH)
    print(await place(consensus, agents), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """`python -m bench.rows`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--peer", action="append", required=True)
    parser.add_argument("--tls", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--entries", type=int, default=1000)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
