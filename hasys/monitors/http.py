"""A web server: status and content of one page."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from hasys.monitors.port import Check, Found
from hasys.monitors.threads import Blocking
from hasys.v1 import monitors_pb2 as mpb

BODY = 1024 * 1024
"""Most bytes of a page that are looked at."""


class HttpCheck(Check):
    """Asks in a thread: the standard library's client blocks. Redirections are answers, not followed."""

    def __init__(self, spec: mpb.HttpMonitor, blocking: Blocking, timeout: float) -> None:
        self._spec = spec
        self._blocking = blocking
        self._timeout = timeout

    async def look(self) -> Found:
        return await self._blocking.call(self._ask, self._spec.url)

    def _ask(self) -> Found:
        begun = time.monotonic()
        try:
            status, body = fetch(self._spec.url, self._timeout, insecure=self._spec.insecure)
        except ssl.SSLCertVerificationError as e:
            return Found(f"{self._spec.url}: certificate refused: {e.verify_message}")
        except (OSError, http.client.HTTPException) as e:
            return Found(f"{self._spec.url} does not answer", str(e)[:200])
        took = (time.monotonic() - begun) * 1000
        wanted = list(self._spec.statuses) or range(200, 400)
        trouble = ""
        if status not in wanted:
            trouble = f"{self._spec.url} answers with status {status}"
        elif self._spec.contains and self._spec.contains.encode() not in body:
            trouble = f"{self._spec.url} does not contain the expected text"
        return Found(trouble, f"{took:.0f} ms", took, "ms")


def fetch(url: str, timeout: float, *, insecure: bool = False) -> tuple[int, bytes]:
    """Status and body of a page. Raises ``OSError`` or ``http.client.HTTPException``."""
    parts = urlsplit(url)
    assert parts.hostname, "checked when it was applied"
    make: Callable[[], http.client.HTTPConnection]
    host, port = parts.hostname, parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        make = lambda: http.client.HTTPSConnection(host, port, timeout=timeout, context=context)  # noqa: E731
    else:
        make = lambda: http.client.HTTPConnection(host, port, timeout=timeout)  # noqa: E731
    connection = make()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "hasys-monitor", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(BODY)
    finally:
        connection.close()
