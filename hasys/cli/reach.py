"""Why no server could be reached: one look at the certificates and at each server, to say more than "no answer"."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hasys.api.client import Context
from hasys.config import API_PORT

_PATIENCE = 0.7
"""Seconds for all servers: who listens accepts at once."""


def explain(context: Context) -> str:
    """One line for the first cause that is found; empty when every server is just silent."""
    ended = _expired(context.certificate)
    if ended:
        return f"the certificate {context.certificate} ended on {ended}: hasys cert renew {context.certificate.parent}"
    try:
        settings = ssl.create_default_context(cafile=str(context.ca))
        settings.load_cert_chain(context.certificate, context.key)
        settings.set_alpn_protocols(["h2"])
    except (ssl.SSLError, OSError) as error:
        return f"{context.certificate} with {context.key.name} cannot be used: {error.strerror or error}"
    for target, refusal in _ask_all(context.servers, settings):
        if refusal:
            return f"{target} is there, but {refusal}"
    return ""


def _ask_all(targets: Sequence[str], settings: ssl.SSLContext) -> list[tuple[str, str]]:
    """All at once; who has not answered in time is silent."""
    said: dict[str, str] = {}

    def ask(target: str) -> None:
        said[target] = _refusal(target, settings)

    threads = [threading.Thread(target=ask, args=(target,), daemon=True) for target in targets]
    until = time.monotonic() + _PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [(target, said.get(target, "")) for target in targets]


def _expired(path: Path) -> str:
    from hasys.cli.pki import read_certificate

    end = read_certificate(path).not_valid_after_utc
    return f"{end:%Y-%m-%d}" if end < datetime.datetime.now(datetime.UTC) else ""


def _refusal(target: str, settings: ssl.SSLContext) -> str:
    """What is wrong between us and a server that answers; empty when it is silent or all is well."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=_PATIENCE) as plain,
            settings.wrap_socket(plain, server_hostname=host) as secure,
        ):
            if secure.selected_alpn_protocol() != "h2":
                return _another_port(port, "no HTTP/2")
            # TLS 1.3: the verdict on our certificate comes after the handshake; one that is content speaks first
            heard = secure.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not of our cluster ({error.verify_message})"
    except ssl.SSLError as error:
        why = (error.reason or "it closed the connection").lower().replace("_", " ")
        return f"it refuses our certificate ({why})" if "alert" in why else _another_port(port, why)
    except ConnectionResetError:
        heard = b""
    except (OSError, ValueError):
        return ""
    return "" if heard else "it refuses our certificate (it closed the connection)"


def _another_port(port: str, why: str) -> str:
    return f"this is no API of hasys ({why}): is {port} the API's port? ({API_PORT} unless chosen otherwise)"
