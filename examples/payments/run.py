"""Pay, and approve, each in a process of its own: what waits is on the disk, and in no memory.

python run.py DIRECTORY pay 40     begins a payment, and ends while it waits for its approval
python run.py DIRECTORY approve    goes on with it
"""

import asyncio
import sys
from pathlib import Path

import tenure
from payments import Payment
from tenure.storage import SQLiteStorage

APPROVED = "payment.approved"


async def until_it_waits(rt: tenure.LocalRuntime, payment: Payment, call: "asyncio.Task[str] | None" = None) -> str:
    """How it stands when it needs somebody, or is done."""
    while True:
        status = rt.status(payment)
        if APPROVED in status.waits_for:
            return f"suspended: {status.waits_for}"
        if not status.owes and (call is None or call.done()):
            return f"paid: {await payment.receipt()}"
        await asyncio.sleep(0.01)


async def main(directory: Path, command: str, amount: int = 0) -> str:
    """Do one command; what there is to say."""
    async with SQLiteStorage(directory / "agents.db") as storage, tenure.local(storage=storage) as rt:
        payment = await rt.create(Payment, "payment-1", config={"card": str(directory / "card.db")})
        call = None
        if command == "pay" and not rt.status(payment).owes and not await payment.receipt():
            call = asyncio.create_task(payment.pay(amount=amount))
        said = await until_it_waits(rt, payment, call)
        if command == "approve" and said.startswith("suspended"):
            await rt.signal(payment, tenure.Signal.new(APPROVED, source="desk/ann"))
            said = await until_it_waits(rt, payment)
        if call is not None:
            call.cancel()  # nobody waits here; the turn is on the disk
        return said


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    print(asyncio.run(main(place, sys.argv[2], *map(int, sys.argv[3:]))))
