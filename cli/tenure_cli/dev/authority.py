"""The files of a local cluster's identity: authority, servers' certificates, enrol secret, client's certificate."""

import os
import secrets
from datetime import timedelta
from pathlib import Path

from tenure_api import identity
from tenure_cli.dev import plan as planning

CLIENT_NAME = "tenure-dev"
CLIENT_LIFETIME = timedelta(days=365)


def write_private(path: Path, data: bytes) -> None:
    """Write `path` with mode 0600, replaced in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def prepare_identity(plan: planning.DevPlan) -> None:
    """Make what is missing. Authority and secret are kept over restarts, certificates are issued anew.

    Raises tenure_api.identity.IdentityError when what is kept does not fit together.
    """
    authority = _authority(plan)
    for server in plan.servers:
        issued = identity.issue_with_key(authority, identity.Role.SERVER, server.name)
        _write_tls(plan.directory / server.name / "tls", authority, issued)
    client = identity.issue_with_key(authority, identity.Role.CLIENT, CLIENT_NAME, CLIENT_LIFETIME)
    _write_tls(planning.client_dir(plan), authority, client)
    secret = planning.secret_file(plan)
    if not secret.exists():
        write_private(secret, secrets.token_urlsafe(32).encode())


def _authority(plan: planning.DevPlan) -> identity.Authority:
    directory = planning.authority_dir(plan)
    wanted = identity.cluster_id(plan.namespace, plan.cluster)
    if (directory / "ca.key").exists():
        kept = identity.load_authority((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
        if kept.cluster == wanted:
            return kept
    authority = identity.make_authority(wanted)
    write_private(directory / "ca.crt", authority.certificate_pem)
    write_private(directory / "ca.key", authority.key_pem)
    return authority


def _write_tls(directory: Path, authority: identity.Authority, issued: identity.Issued) -> None:
    write_private(directory / "ca.crt", authority.certificate_pem)
    write_private(directory / "tls.crt", issued.certificate_pem)
    write_private(directory / "tls.key", issued.key_pem)
