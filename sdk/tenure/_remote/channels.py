"""gRPC channels with the cluster's credentials, and gRPC's errors in the words of `tenure.errors`."""

from __future__ import annotations

import grpc
import grpc.aio

from tenure import errors
from tenure_proto.v1 import common_pb2

RpcError = grpc.aio.AioRpcError
Channel = grpc.aio.Channel
MESSAGE_LIMIT = 64 * 1024 * 1024

# As measured (facts/peers.md 3b): without a ping time-out of HTTP/2's own, a frozen peer is noticed after a minute.
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),  # in truth how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


_REFUSALS: dict[grpc.StatusCode, type[errors.CallError]] = {
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArguments,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNIMPLEMENTED: errors.VersionSkew,  # a request that the peer does not know
}


def open_channel(
    address: str,
    expected: str,
    authority_pem: bytes,
    certificate_pem: bytes | None = None,
    key_pem: bytes | None = None,
) -> Channel:
    """A channel to an address whose certificate must carry the DNS name `expected`. Connects when it is first used."""
    credentials = grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", expected), ("grpc.default_authority", expected)]
    return grpc.aio.secure_channel(address, credentials, options)


def translate(error: RpcError, what: str) -> errors.CallError:
    """One of our errors for one of gRPC's. What the peer did about the request is unknown to gRPC."""
    code, details = error.code(), error.details() or "no details"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"{what}: no answer in time", outcome="unknown")
    if _is_foreign(details):
        return errors.Unauthenticated(f"{what}: the certificates are not of one cluster ({details})")
    known = _REFUSALS.get(code)
    return known(f"{what}: {details}") if known else errors.Unavailable(f"{what}: {details}", outcome="unknown")


def more_telling(before: RpcError | None, error: RpcError, *, whole: bool) -> RpcError:
    """Which of two errors of one request to tell: one that ran out of what was left of the time says nothing of why.

    `whole`: the later one had the time of an attempt.
    """
    cut_short = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not whole
    return before if before is not None and cut_short else error


def is_transient(error: RpcError) -> bool:
    """Another peer, or the same a little later, may answer."""
    transient = {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    return error.code() in transient and not _is_foreign(error.details() or "")


def _is_foreign(details: str) -> bool:
    """gRPC reports a failed handshake as UNAVAILABLE; only its text tells it from a server that is down."""
    return "CERTIFICATE_VERIFY_FAILED" in details or "is not in peer certificate" in details


def from_proto(error: common_pb2.Error, agent: str = "") -> errors.CallError:
    """An error that a peer answered."""
    unknown = error.outcome == common_pb2.OUTCOME_UNKNOWN
    return errors.from_code(
        error.code,
        error.message,
        outcome="unknown" if unknown else "not_applied",
        agent=agent,
        next_step=error.next_step,
    )
