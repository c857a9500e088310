"""What can go wrong between two processes, by what is then known of the effect.

    TransportError
    ├── NotSent              nothing left this process: not applied
    │   └── NotConnected     no stream to that peer now
    ├── OutcomeUnknown       the request left, the answer did not come
    │   ├── LinkLost         the stream broke first
    │   └── TimedOut         the time given for it passed first
    ├── PeerRefused          the peer answered that we may not, or that it does not know us
    └── BadFiles             the TLS directory lacks a file, or one cannot be read

Errors of gRPC are wrapped here, once, and chained.
"""

from __future__ import annotations

import grpc
from grpc import aio


class TransportError(Exception):
    """Base of this package's errors. The message is a sentence."""


class NotSent(TransportError):
    """Nothing left this process: the request was not applied."""


class NotConnected(NotSent):
    """There is no stream to that peer now."""


class OutcomeUnknown(TransportError):
    """The request left this process and no answer came: it may have been applied."""


class LinkLost(OutcomeUnknown):
    """The stream broke before the answer."""


class TimedOut(OutcomeUnknown):
    """The time that was given passed before the answer."""


class PeerRefused(TransportError):
    """The peer answered that this process may not do that: wrong role, wrong cluster, unknown name."""


class BadFiles(TransportError):
    """The TLS directory lacks a file, or one of them cannot be read."""


_REFUSALS = frozenset(
    {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
)


# With TLS 1.3 a client's certificate is judged after the client believes itself connected: all it sees is the end.
_CUT = ("socket closed", "connection reset", "broken pipe")


def wrap(error: aio.AioRpcError, peer: str, *, sent: bool) -> TransportError:
    """The typed error for a status of gRPC. `sent`: a request may have reached the peer before."""
    code, details = error.code(), error.details() or "no details"
    if code in _REFUSALS:
        return PeerRefused(f"{peer} refused: {details}")
    no_connection = _why_no_connection(peer, details)
    if no_connection:
        return NotConnected(no_connection)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(f"{peer} did not answer in time")
    if sent:
        return LinkLost(f"The connection to {peer} broke: {code.name.lower()}, {details}")
    return NotConnected(f"No connection to {peer}: {details}")


def _why_no_connection(peer: str, details: str) -> str:
    """The sentence when this very attempt got no connection, so that no request left; else empty."""
    text = details.lower()
    if "verification check failed" in text:
        return f"Who answers at the address of {peer} is not {peer}: its certificate has another name"
    if "handshake" in text or "ssl" in text or "certificate" in text:
        return f"No TLS connection to {peer}: its certificate or ours is not of this cluster's authority ({details})"
    if "failed to connect to all addresses" in text and any(sign in text for sign in _CUT):
        return f"{peer} closed the connection at once: our certificate is not of its cluster's authority ({details})"
    if "failed to connect to all addresses" in text:
        return f"No connection to {peer}: {details}"
    return ""
