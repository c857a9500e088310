"""Run as a process by the tests: opens a store, writes for ever, and says on stdout what was answered.

Arguments: path; bytes of a file of the journal; and optionally the largest file in bytes that the process may write.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

from tenured.core.cells import Verdict, Version
from tenured.storage import Register, WriteItem, keeping


async def main() -> None:
    keeping.COPY_BYTES, keeping.COPY_AT_ONCE = int(sys.argv[2]), 20
    if len(sys.argv) > 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    store = Register(Path(sys.argv[1]))
    await store.open()
    await store.admit()

    async def one_record(uid: str) -> None:
        for seq in range(1, 1_000_000):
            (answer,) = await store.write_many(
                [WriteItem(uid=uid, version=Version(1, seq), puts={"s": f"{uid}-{seq}-".encode() * 50})]
            )
            if answer.verdict is not Verdict.OK:
                print(f"refused {uid} {seq} {answer.message}", flush=True)
                return
            print(f"ok {uid} {seq}", flush=True)

    await asyncio.gather(*(one_record(str(n)) for n in range(4)))
    print("end", flush=True)


asyncio.run(main())
