"""`tenured`, with a log so small that it is compacted, and its segments are changed, every few seconds of a test."""

from __future__ import annotations

import functools
import sys

from tenured.__main__ import main
from tenured.raft import RaftConfig
from tenured.raft.interface import Compaction
from tenured.raft.journal import Journal
from tenured.server import process

SMALL = Compaction(entries=60, bytes=20_000, keep_entries=20, keep_bytes=5_000)
SEGMENT_BYTES = 10_000

if __name__ == "__main__":
    process.RaftConfig = functools.partial(RaftConfig, compaction=SMALL)  # type: ignore[misc, assignment]
    Journal.__init__.__kwdefaults__["segment_bytes"] = SEGMENT_BYTES
    sys.exit(main())
