"""Credentials from a directory of files, and channels that check whom they reached.

Servers read the files again at each handshake, so renewed certificates serve new connections without a restart. A
channel of gRPC cannot do that: whoever reconnects opens a new channel here, with the files as they are then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
from grpc import aio

from tenure_api.identity import Identity, parse_identity
from tenured.transport.errors import BadFiles

MAX_MESSAGE_BYTES = 64 << 20
"""Of one message on any stream. Snapshots and records are cut below it by those who send them."""

RECONNECT_MIN_S, RECONNECT_MAX_S = 0.05, 0.2
"""Back-off between two attempts to reach a peer."""

# Measured: without `ping_timeout_ms` a frozen peer is noticed after 60 s, whatever `keepalive_timeout_ms` says, and a
# server that does not allow them answers such pings with GOAWAY. With these a frozen peer is noticed in 2.5 s.
_KEEPALIVE: list[tuple[str, int | str]] = [
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
SERVER_OPTIONS: list[tuple[str, int | str]] = [
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    # Two processes on one port would split the connections between them without a word.
    ("grpc.so_reuseport", 0),
]
_CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    *_KEEPALIVE,
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Also the time limit of one attempt to connect: without it an address that swallows packets holds us for 20 s.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A pod that comes back has a new address: ask DNS again soon (the default is 30 s).
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    # Channels of one process share connections by default, and with them the certificate of the first.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy for the web has no business between the processes of a cluster.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Material:
    """The contents of a TLS directory, PEM."""

    authority: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A TLS directory: `ca.crt`, `tls.crt`, `tls.key`."""

    directory: Path

    def read(self) -> Material:
        """The files as they are now. Raises BadFiles."""
        return Material(self._file("ca.crt"), self._file("tls.crt"), self._file("tls.key"))

    def identity(self) -> Identity:
        """Whom the certificate names. Raises BadFiles, MalformedCertificate."""
        return parse_identity(self._file("tls.crt"))

    def _file(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as error:
            raise BadFiles(f"Cannot read {self.directory / name}: {error.strerror}") from error


def server_credentials(files: TlsFiles, *, ask_for_certificate: bool = True) -> grpc.ServerCredentials:
    """Credentials of a listener; each new handshake reads the files. Raises BadFiles when they are not there now."""

    def configuration(material: Material) -> grpc.ServerCertificateConfiguration:
        authority = material.authority if ask_for_certificate else None
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], authority)

    last = files.read()
    first = configuration(last)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # None where nothing changed. A configuration at each handshake makes gRPC replace what other handshakes are
        # using at that moment: the process then died of a segmentation fault every few thousand connections.
        nonlocal last
        try:
            material = files.read()
        except BadFiles:  # files are being replaced: go on with what we had
            return None
        if material == last:
            return None
        last = material
        return configuration(material)

    # The stubs forget that None is an answer: "no change" (documentation of dynamic_ssl_server_credentials).
    asked = cast(Callable[[], grpc.ServerCertificateConfiguration], fetch)
    return grpc.dynamic_ssl_server_credentials(first, asked, require_client_authentication=ask_for_certificate)


def open_channel(address: str, expected: str, files: TlsFiles) -> aio.Channel:
    """A channel to `address` (host:port) that accepts only the holder of the DNS name `expected`. Raises BadFiles."""
    material = files.read()
    return _channel(
        address,
        expected,
        grpc.ssl_channel_credentials(material.authority, material.key, material.certificate),
    )


def open_anonymous_channel(address: str, expected: str, authority_pem: bytes) -> aio.Channel:
    """A channel without a certificate of ours, for enrolment. The server's certificate is checked all the same."""
    return _channel(address, expected, grpc.ssl_channel_credentials(authority_pem))


def _channel(address: str, expected: str, credentials: grpc.ChannelCredentials) -> aio.Channel:
    options = [*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", expected)]
    return aio.secure_channel(address, credentials, options=options)
