"""Flags and environment of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenured.config import SecretFile, TokenReview, server_config
from tenured.flags import ConfigError

FLAGS = [
    *("--name", "s0", "--cluster", "shop/demo", "--data", "/d", "--tls", "/t", "--authority", "/a"),
    *("--peer", "s0=a:1", "--peer", "s1=b:2", "--peer", "s2=[::1]:3"),
]


def test_the_raft_port_of_a_peer_is_7447_unless_it_is_said() -> None:
    config = server_config([*FLAGS, "--enrolment", "secret:/s", "--raft-peer", "s1=c:9"], {})
    assert config.raft_peers == {"s1": "c:9", "s2": "[::1]:7447"}


def test_flags() -> None:
    config = server_config([*FLAGS, "--enrolment", "secret:/s", "--api-port", "0", "--profile", "Fast"], {})
    assert (config.name, config.cluster, config.namespaced) == ("s0", "demo.shop", "shop/demo")
    assert config.peers == {"s1": "b:2", "s2": "[::1]:3"}
    assert (config.api_port, config.peer_port, config.raft_port, config.enrol_port, config.http_port) == (
        0,
        7444,
        7447,
        7446,
        8080,
    )
    assert config.enrolment == SecretFile(Path("/s"))
    assert config.profile.name == "Fast"
    assert config.failover_guard == 0.5


def test_the_environment_stands_in_for_flags_and_a_flag_wins() -> None:
    environment = {
        "TENURE_NAME": "from-environment",
        "TENURE_CLUSTER": "shop/demo",
        "TENURE_DATA": "/d",
        "TENURE_TLS": "/t",
        "TENURE_AUTHORITY": "/a",
        "TENURE_PEER": "s1=b:2,s2=c:3",
        "TENURE_FAILOVER_GUARD": "1",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "6443",
    }
    config = server_config(["--name", "s0"], environment)
    assert config.name == "s0"
    assert config.peers == {"s1": "b:2", "s2": "c:3"}
    assert config.failover_guard == 1.0
    assert isinstance(config.enrolment, TokenReview)
    assert config.enrolment.url == "https://10.0.0.1:6443"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--cluster", "demo"], "--cluster: 'demo' is not a cluster"),
        (["--peer", "s3=d:4"], "1, 3 or 5 servers, not 4"),
        (["--peer", "nonsense"], "--peer: 'nonsense' is not NAME=HOST:PORT"),
        (["--api-port", "99999"], "--api-port: '99999' is not a port"),
        (["--profile", "Slow"], "'Slow' is none of Fast, Balanced, Calm"),
        (["--enrolment", "none"], "neither token-review nor secret:FILE"),
        (["--log-format", "xml"], "none of text, json"),
        (["--failover-guard", "1.5"], "--failover-guard: '1.5' is no share between 0 and 1"),
        (["--failover-guard", "half"], "--failover-guard: 'half' is no share between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_named(extra: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        server_config([*FLAGS, *extra], {})
    assert sentence in str(refused.value)


def test_a_missing_flag_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"--data \(or TENURE_DATA\) is missing"):
        server_config(["--name", "s0", "--cluster", "shop/demo"], {})
