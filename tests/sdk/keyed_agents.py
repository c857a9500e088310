"""Carts, and a storage that fails when told to, for tests of agents that sleep."""

import asyncio
from typing import Any

import pydantic
from family_agents import virtual

import tenure
from tenure.sensors import Heartbeat
from tenure.storage import MemoryStorage, StorageError


class CartState(tenure.State):
    items: list[str] = pydantic.Field(default_factory=list)


class Cart(tenure.Agent[CartState], subscribes=["sale.*"]):
    """Somebody's."""

    @tenure.action
    def add(self, item: str) -> int:
        self.state.items.append(item)
        return len(self.state.items)

    @tenure.query
    def items(self) -> list[str]:
        return self.state.items

    @tenure.action
    def remind(self, ctx: tenure.Context, seconds: float, item: str) -> None:
        ctx.after(seconds, Cart.add(item))

    @tenure.action
    def daily(self, ctx: tenure.Context, missed: str) -> None:
        ctx.cron("daily", "0 0 * * *", Cart.add("day"), missed=missed)  # type: ignore[arg-type]

    @tenure.action
    def cancel(self, ctx: tenure.Context, name: str) -> None:
        ctx.cancel(name)

    @tenure.on("sale.begins")
    @tenure.action
    def sale(self) -> None:
        self.state.items.append("sale")

    @tenure.action
    def pulse(self, ctx: tenure.Context) -> None:
        ctx.start_sensor("pulse", Heartbeat(interval=1000))

    @tenure.action
    async def hold(self) -> None:
        await gates[self.id].wait()


gates: dict[str, asyncio.Event] = {}


class Moody(MemoryStorage):
    """Can be told not to read."""

    broken = False

    async def get(self, key: str) -> Any:
        if self.broken:
            raise StorageError("the disk is gone")
        return await super().get(key)


def stored(**options: Any) -> tenure.LocalRuntime:
    return virtual(**{"storage": MemoryStorage(), **options})


def counts(manager: Any) -> tuple[int, int]:
    return manager.stats.here, manager.stats.asleep
