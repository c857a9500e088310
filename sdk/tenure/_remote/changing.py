"""Changes of the registry, straight to the leader by framed TLS (`tenured.transport.changes`, ADR 0013 and 0033).

A request of gRPC to a server that does not lead costs two more ways and the wait until that server knows of the commit.
This way is taken by whoever changes often, and only where it stands; any server takes the same request by gRPC, under
the same command id, and what was done by then is not done again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable

from tenure._remote.endpoint import Endpoint
from tenure._remote.framing import OverFrames
from tenure._remote.sessions import SessionLost
from tenure_frames import FRAME_LIMIT, LONG_FRAME_LIMIT, FrameStream
from tenure_proto.v1.changes_pb2 import Change, ChangeBatch, Changed, ChangedBatch

AGAIN_S = 30.0
"""How long a leader that could not be reached, or did not answer, is asked by gRPC only."""
_AROUND = 64
"""Bytes that a frame adds to a change, at most."""


class ChangesSession(OverFrames[Changed]):
    """One connection."""

    def __init__(self, peer: str, expected: str, context: ssl.SSLContext) -> None:
        super().__init__(peer, expected, context)
        self.connected = asyncio.Event()
        """It stood, if only for a moment."""

    @property
    def stands(self) -> bool:
        """Whether changes can be sent now."""
        return self.opened and not self.lost

    async def ask(self, change: Change) -> Changed:
        """Send it, once this `stands`, under a number of this connection. Raises SessionLost."""
        if self._stream is None or self.lost:
            raise SessionLost(self.lost or f"{self.peer}: not connected yet", sent=False)
        change.seq, future = self._expect()
        self._stream.send(ChangeBatch(changes=[change]).SerializeToString())  # False: all are told that it ended
        return await future

    def _listen(self, stream: FrameStream) -> None:
        stream.limit = LONG_FRAME_LIMIT
        stream.on_frame = self._came

    def _stood(self) -> None:
        self.connected.set()

    def _read(self, frame: bytes) -> Iterable[Changed]:
        return ChangedBatch.FromString(frame).answers


class ToLeader:
    """The way to the leader, as far as it is known and stands."""

    def __init__(self, endpoint: Endpoint, context: Callable[[], ssl.SSLContext]) -> None:
        """`context`: makes that of connections, when the first is made."""
        self._endpoint = endpoint
        self._context = context
        self._address = ""
        self._session: ChangesSession | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._not_before: dict[str, float] = {}
        """Until when, on the loop's clock, an address is left alone."""

    def learn(self, address: str) -> None:
        """A server has said where the leader takes changes; empty: it does not know, or is older.

        The connection is made when the same is heard again: who asks once has no use for it.
        """
        heard, self._address = self._address, address
        session = self._session
        if self._endpoint.proxied or not address or (session is not None and session.peer == address):
            return
        if session is not None:
            self._drop(session)
        now = asyncio.get_running_loop().time()
        if address == heard and now >= self._not_before.get(address, 0.0):
            self._session = ChangesSession(address, self._endpoint.server_name(), self._context())

    async def ask(self, change: Change, timeout_s: float) -> Changed | None:
        """Ask the leader. None: there is no way to it now, or it did not answer: ask another way, as the same command.

        A refusal of the whole request is None as well: gRPC's says it in its own terms, and nothing was applied.
        """
        session = self._session
        if session is None:
            return None
        if session.lost:
            self._leave(session)
            return None
        if not session.stands or change.ByteSize() + _AROUND > FRAME_LIMIT:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                answer = await session.ask(change)
        except (SessionLost, TimeoutError):
            self._leave(session)
            return None
        return None if answer.HasField("error") else answer

    async def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            self._drop(self._session)
        await asyncio.gather(*self._closing)

    def _leave(self, session: ChangesSession) -> None:
        """It does not serve us: by gRPC for a while, unless another one leads."""
        self._not_before = {session.peer: asyncio.get_running_loop().time() + AGAIN_S}
        if session is self._session:
            self._drop(session)

    def _drop(self, session: ChangesSession) -> None:
        self._session = None
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
