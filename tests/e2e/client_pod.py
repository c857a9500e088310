"""Runs in a pod of the test: increments each agent named on the command line, call after call, until /tmp/stop exists.

Prints a JSON line for each call, with wall times: what was replied, or the error.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import tenure

PAUSE_S = 0.05
DEADLINE_S = 60.0
STOP = Path("/tmp/stop")


async def drive(client: tenure.AsyncClient, agent: str) -> None:
    while not STOP.exists():  # noqa: ASYNC240 - a stat of a tmpfs
        began = time.time()
        line = {"agent": agent, "began": began}
        try:
            line["count"] = await client.call_by_name(f"shop/{agent}", "increment", {"by": 1}, timeout=DEADLINE_S)
        except tenure.TenureError as error:
            line["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps({**line, "ended": time.time()}), flush=True)
        await asyncio.sleep(PAUSE_S)


async def main() -> None:
    async with tenure.connect() as client, asyncio.TaskGroup() as group:
        for agent in sys.argv[1:]:
            group.create_task(drive(client, agent))


asyncio.run(main())
