"""What `bench.sdk` is measured beside, where it is installed: Pykka, xoscar, Ray. They are no dependencies."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from typing import Any

from bench.harness import say


class Pykka:
    """Threads in one process."""

    def __init__(self) -> None:
        import pykka  # noqa: PLC0415 - a peer, which need not be there

        class Actor(pykka.ThreadingActor):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.count = 0

            def inc(self, by: int) -> int:
                self.count += by
                return self.count

        self.actor: Any = Actor

    def create_and_call(self) -> float:
        """Create to first reply, in us."""
        began = time.perf_counter()
        ref = self.actor.start()
        ref.proxy().inc(1).get()
        took = (time.perf_counter() - began) * 1e6
        ref.stop()
        return took

    def calls(self, count: int) -> list[float]:
        """Each of `count` calls, in us."""
        ref = self.actor.start()
        proxy = ref.proxy()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            proxy.inc(1).get()
            times.append((time.perf_counter() - began) * 1e6)
        ref.stop()
        return times


def pykka_or_none() -> Pykka | None:
    """Pykka, if it is installed."""
    return Pykka() if importlib.util.find_spec("pykka") else None


XOSCAR = """
import asyncio, sys, time
import xoscar as xo
class Counter(xo.Actor):
    def __init__(self): self.count = 0
    def inc(self, by):
        self.count += by
        return self.count
async def main():
    pool = await xo.create_actor_pool("127.0.0.1:0", n_process=1)
    where = pool.external_address
    from xoscar.backends.allocate_strategy import ProcessIndex
    made, calls = [], []
    for number in range(int(sys.argv[1])):
        began = time.perf_counter()
        ref = await xo.create_actor(Counter, address=where, uid=f"c{number}", allocate_strategy=ProcessIndex(1))
        await ref.inc(1)
        made.append((time.perf_counter() - began) * 1e6)
    for _ in range(int(sys.argv[2])):
        began = time.perf_counter()
        await ref.inc(1)
        calls.append((time.perf_counter() - began) * 1e6)
    print(sorted(made)[len(made) // 2], sorted(calls)[len(calls) // 2])
    await pool.stop()
if __name__ == "__main__":
    asyncio.run(main())
"""


RAY = """
import os, sys, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
@ray.remote(num_cpus=0)
class Counter:
    def __init__(self): self.count = 0
    def inc(self, by):
        self.count += by
        return self.count
made, calls = [], []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    actor = Counter.remote()
    ray.get(actor.inc.remote(1))
    made.append((time.perf_counter() - began) * 1e6)
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    ray.get(actor.inc.remote(1))
    calls.append((time.perf_counter() - began) * 1e6)
ray.shutdown()
print(sorted(made)[len(made) // 2], sorted(calls)[len(calls) // 2])
"""


def across_processes(module: str, code: str, creations: int, calls: int) -> tuple[float, float] | None:
    """Create to first reply, and a call, in us, across processes; None where the module is not installed."""
    if not importlib.util.find_spec(module):
        return None
    ended = subprocess.run(
        [sys.executable, "-c", code, str(creations), str(calls)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ended.returncode:
        say(f"{module} failed: {ended.stderr[-500:]}")
        return None
    made, called = ended.stdout.split()[-2:]
    return float(made), float(called)
