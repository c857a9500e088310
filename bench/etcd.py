"""The peer of `bench.raft`: three members of Debian's etcd as processes, default settings, TLS with
client certificates.

Its messages are encoded here by hand: a put needs two fields, and what a put answers is not looked at.
"""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc import aio

PUT = "/etcdserverpb.KV/Put"
START_S = 30.0


def installed() -> str | None:
    """The first line of `etcd --version`, None when there is no etcd."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        return None
    return subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def put_request(key: bytes, value: bytes) -> bytes:
    """PutRequest{key = 1, value = 2}."""
    return b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Members:
    """Three of them, under `directory`. Start by `async with`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ports = free_ports(6)
        self.names = tuple(f"m{number}" for number in range(3))
        self.client = dict(zip(self.names, ports[:3], strict=True))
        self._peer = dict(zip(self.names, ports[3:], strict=True))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        _certificate(self._directory)
        for name in self.names:
            self.start(name)
        await self.leader()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def start(self, name: str) -> None:
        """Start one member, also again after it was killed."""
        tls = {"ca": self._directory / "ca.pem", "crt": self._directory / "tls.pem", "key": self._directory / "tls.key"}
        flags = ["--name", name, "--data-dir", str(self._directory / name)]
        flags += ["--listen-client-urls", f"https://127.0.0.1:{self.client[name]}"]
        flags += ["--advertise-client-urls", f"https://127.0.0.1:{self.client[name]}"]
        flags += ["--listen-peer-urls", f"https://127.0.0.1:{self._peer[name]}"]
        flags += ["--initial-advertise-peer-urls", f"https://127.0.0.1:{self._peer[name]}"]
        flags += ["--initial-cluster", ",".join(f"{n}=https://127.0.0.1:{p}" for n, p in self._peer.items())]
        flags += ["--initial-cluster-state", "new", "--client-cert-auth", "--peer-client-cert-auth"]
        for side in ("", "peer-"):
            flags += [f"--{side}trusted-ca-file", str(tls["ca"]), f"--{side}cert-file", str(tls["crt"])]
            flags += [f"--{side}key-file", str(tls["key"])]
        with (self._directory / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(["etcd", *flags], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """kill -9."""
        self._running[name].send_signal(signal.SIGKILL)
        self._running[name].wait()

    async def leader(self, within_s: float = START_S) -> str:
        """The member that all of them call their leader."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            found = await asyncio.to_thread(self._leader)
            if found is not None:
                return found
            await asyncio.sleep(0.1)
        raise SystemExit(f"etcd has no leader after {within_s:g} s; its logs are in {self._directory}")

    def _leader(self) -> str | None:
        command = ["etcdctl", "--endpoints", ",".join(f"127.0.0.1:{port}" for port in self.client.values())]
        command += ["--cacert", str(self._directory / "ca.pem"), "--cert", str(self._directory / "tls.pem")]
        command += ["--key", str(self._directory / "tls.key"), "endpoint", "status", "-w", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with contextlib.suppress(ValueError, KeyError):
            states = json.loads(done.stdout)
            leaders = {state["Status"]["leader"] for state in states}
            if done.returncode == 0 and len(states) == len(self.names) and len(leaders) == 1:
                leader = leaders.pop()
                for state in states:
                    if state["Status"]["header"]["member_id"] == leader:
                        port = int(state["Endpoint"].rsplit(":", 1)[1])
                        return next(name for name, own in self.client.items() if own == port)
        return None

    def credentials(self) -> grpc.ChannelCredentials:
        """What a client needs."""
        read = [(self._directory / name).read_bytes() for name in ("ca.pem", "tls.key", "tls.pem")]
        return grpc.ssl_channel_credentials(*read)

    def channel(self, name: str) -> grpc.Channel:
        """A synchronous channel to one member."""
        return grpc.secure_channel(f"127.0.0.1:{self.client[name]}", self.credentials(), OPTIONS)

    def aio_channel(self, name: str) -> aio.Channel:
        """One for asyncio."""
        return aio.secure_channel(f"127.0.0.1:{self.client[name]}", self.credentials(), OPTIONS)


OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.enable_http_proxy", 0),
]


def _certificate(directory: Path) -> None:
    """An authority and one certificate for everybody, P-256 as ours."""
    now = dt.datetime.now(dt.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def base(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("bench"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))

    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = base("bench", root).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    loopback = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    member = base("member", key).add_extension(loopback, critical=False)
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(authority.sign(root, hashes.SHA256()).public_bytes(pem))
    (directory / "tls.pem").write_bytes(member.sign(root, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    (directory / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
