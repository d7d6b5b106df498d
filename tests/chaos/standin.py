"""A small server that speaks Toxiproxy's HTTP API, for machines where Toxiproxy itself cannot be installed.

It knows the toxics that our tests use (see ``links``) and refuses others. ``test_standin`` states what both must do,
and runs against the real server too when ``TOXIPROXY_ADDRESS`` (``HOST:PORT``) names one.

Run: ``python -m tests.chaos.standin [HOST:PORT]``; the address is printed once it listens.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from tests.chaos.links import ATTRIBUTES, Connection, Toxic

VERSION = "2.0.0-standin"
LONGEST_BODY = 1024 * 1024

Json = dict[str, Any]


class ApiError(Exception):
    """A refusal: its text and HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Proxy:
    """Listens at one address, passes connections on to another, as long as it is enabled."""

    def __init__(self, name: str, listen: str, upstream: str) -> None:
        self.name, self.listen, self.upstream = name, listen, upstream
        self.toxics: dict[str, Toxic] = {}
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def enabled(self) -> bool:
        return self._server is not None

    async def enable(self) -> None:
        """Raises OSError when the address cannot be had."""
        if self._server is None:
            host, _, port = self.listen.rpartition(":")
            self._server = await asyncio.start_server(self._serve, host, int(port))
            host, port = self._server.sockets[0].getsockname()[:2]
            self.listen = f"{host}:{port}"

    def disable(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            connection.drop(False)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.upstream.rpartition(":")
        try:
            server = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        connection = Connection((reader, writer), server, self._of)
        self._connections.add(connection)
        try:
            if self.enabled:
                await connection.run()
        finally:
            connection.drop(False)
            self._connections.discard(connection)

    def _of(self, stream: str) -> list[Toxic]:
        return [toxic for toxic in self.toxics.values() if toxic.stream == stream]

    def toxics_changed(self) -> None:
        """Tell every connection."""
        for connection in tuple(self._connections):
            connection.toxics_changed()

    def shown(self) -> Json:
        """As the HTTP API shows it."""
        return {
            "name": self.name, "listen": self.listen, "upstream": self.upstream, "enabled": self.enabled,
            "toxics": [toxic.shown() for toxic in self.toxics.values()],
        }  # fmt: skip


class Api:
    """The HTTP API without HTTP: method, path and body in; status and answer out."""

    def __init__(self) -> None:
        self._proxies: dict[str, Proxy] = {}

    async def handle(self, method: str, path: str, body: Json | list[Json]) -> tuple[int, object]:
        """One request. Raises :class:`ApiError`."""
        match method, path.strip("/").split("/"):
            case "GET", ["version"]:
                return 200, {"version": VERSION}
            case "POST", ["reset"]:
                return await self._reset()
            case "GET", ["proxies"]:
                return 200, {name: proxy.shown() for name, proxy in self._proxies.items()}
            case "POST", ["proxies"]:
                return 201, (await self._create(_mapping(body))).shown()
            case "POST", ["populate"]:
                return 201, {"proxies": [(await self._put(_mapping(one))).shown() for one in body]}
            case _, ["proxies", name]:
                return await self._proxy(method, self._known(name), body)
            case _, ["proxies", name, "toxics"]:
                return self._toxics(method, self._known(name), body)
            case _, ["proxies", name, "toxics", toxic]:
                return self._toxic(method, self._known(name), toxic, body)
        raise ApiError("no such page", 404)

    def _known(self, name: str) -> Proxy:
        if name not in self._proxies:
            raise ApiError("proxy not found", 404)
        return self._proxies[name]

    async def _reset(self) -> tuple[int, object]:
        for proxy in self._proxies.values():
            proxy.toxics.clear()
            proxy.toxics_changed()
            await self._enable(proxy)
        return 204, None

    async def _create(self, body: Json) -> Proxy:
        for needed in ("name", "upstream"):
            if not isinstance(body.get(needed), str) or not body[needed]:
                raise ApiError(f"missing required field: {needed}", 400)
        if body["name"] in self._proxies:
            raise ApiError("proxy already exists", 409)
        proxy = Proxy(body["name"], body.get("listen") or "127.0.0.1:0", body["upstream"])
        if body.get("enabled", True):
            await self._enable(proxy)
        self._proxies[proxy.name] = proxy
        return proxy

    async def _put(self, body: Json) -> Proxy:
        old = self._proxies.get(body.get("name", ""))
        if old is not None:
            if (old.listen, old.upstream) == (body.get("listen"), body.get("upstream")):
                return old
            old.disable()
            del self._proxies[old.name]
        return await self._create(body)

    async def _enable(self, proxy: Proxy) -> None:
        try:
            await proxy.enable()
        except OSError as e:
            raise ApiError(str(e), 500) from None

    async def _proxy(self, method: str, proxy: Proxy, body: Json | list[Json]) -> tuple[int, object]:
        if method == "DELETE":
            proxy.disable()
            del self._proxies[proxy.name]
            return 204, None
        if method in ("POST", "PATCH"):
            change = _mapping(body)
            moved = [change.get(key) not in (None, getattr(proxy, key)) for key in ("listen", "upstream")]
            if any(moved):
                proxy.disable()
                proxy.listen, proxy.upstream = (
                    change.get("listen", proxy.listen),
                    change.get("upstream", proxy.upstream),
                )
            if change.get("enabled", True):
                await self._enable(proxy)
            else:
                proxy.disable()
        return 200, proxy.shown()

    def _toxics(self, method: str, proxy: Proxy, body: Json | list[Json]) -> tuple[int, object]:
        if method == "POST":
            toxic = _toxic(_mapping(body))
            if toxic.name in proxy.toxics:
                raise ApiError("toxic already exists", 409)
            proxy.toxics[toxic.name] = toxic
            proxy.toxics_changed()
            return 200, toxic.shown()
        return 200, [toxic.shown() for toxic in proxy.toxics.values()]

    def _toxic(self, method: str, proxy: Proxy, name: str, body: Json | list[Json]) -> tuple[int, object]:
        if name not in proxy.toxics:
            raise ApiError("toxic not found", 404)
        toxic = proxy.toxics[name]
        if method == "DELETE":
            del proxy.toxics[name]
            proxy.toxics_changed()
            return 204, None
        if method in ("POST", "PATCH"):
            change = _mapping(body)
            toxic.attributes = {**toxic.attributes, **_attributes(toxic.type, change.get("attributes", {}))}
            toxic.toxicity = float(change.get("toxicity", toxic.toxicity))
        return 200, toxic.shown()


def _mapping(body: object) -> Json:
    if not isinstance(body, dict):
        raise ApiError("bad request body: expected a mapping", 400)
    return body


def _toxic(body: Json) -> Toxic:
    kind, stream = body.get("type", ""), body.get("stream", "downstream") or "downstream"
    if stream not in ("upstream", "downstream"):
        raise ApiError("stream was invalid, can be either upstream or downstream", 400)
    if kind not in ATTRIBUTES:
        raise ApiError("invalid toxic type", 400)
    attributes = {**ATTRIBUTES[kind], **_attributes(kind, body.get("attributes", {}))}
    return Toxic(body.get("name") or f"{kind}_{stream}", kind, stream, float(body.get("toxicity", 1.0)), attributes)


def _attributes(kind: str, given: object) -> dict[str, int]:
    if not isinstance(given, dict) or not all(isinstance(v, int) for v in given.values()):
        raise ApiError("bad request body: attributes are whole numbers", 400)
    return {key: value for key, value in given.items() if key in ATTRIBUTES[kind]}


async def _http(api: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request per connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        raw = await reader.readexactly(min(int(headers.get("content-length", "0")), LONGEST_BODY))
        status, answer = await _answer(api, method, path, raw)
        data = b"" if answer is None else json.dumps(answer).encode()
        writer.write(
            f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + data
        )
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        pass  # not HTTP, or gone: there is nobody to answer
    finally:
        writer.close()


async def _answer(api: Api, method: str, path: str, raw: bytes) -> tuple[int, object]:
    try:
        return await api.handle(method, path, json.loads(raw) if raw else {})
    except ApiError as e:
        return e.status, {"error": str(e), "status": e.status}
    except ValueError as e:
        return 400, {"error": f"bad request body: {e}", "status": 400}


async def serve(address: str, ready: Callable[[str], None]) -> None:
    """Serve the API until cancelled. ``ready`` is told where."""
    host, _, port = address.rpartition(":")
    api = Api()
    server = await asyncio.start_server(lambda r, w: _http(api, r, w), host, int(port))
    bound = server.sockets[0].getsockname()
    ready(f"{bound[0]}:{bound[1]}")
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8474"
    asyncio.run(serve(address, lambda where: print(where, flush=True)))


if __name__ == "__main__":
    main()
