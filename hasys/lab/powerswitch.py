"""A power switch for lab machines, and the fence agent that speaks to it.

The agent is a small program of its own, as every agent of Debian's fence-agents is: options on standard input, the
answer as exit status. It asks over a Unix socket, which machines of the lab share with this process.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

AGENT = """#!{python}
import json, socket, sys

if not sys.stdin or sys.stdin.isatty():
    sys.exit("fence_lab: options are read from standard input")
options = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line and not line.startswith("#"))
action = options.get("action", "reboot")
if action == "metadata":
    print('<?xml version="1.0" ?><resource-agent name="fence_lab" shortdesc="power switch of a lab"><parameters>'
          '<parameter name="plug" unique="0" required="1"/><parameter name="password" unique="0" required="0"/>'
          '</parameters><actions>'
          + "".join('<action name="%s"/>' % a for a in ("on", "off", "reboot", "status", "monitor", "metadata"))
          + '</actions></resource-agent>')
    sys.exit(0)
with socket.socket(socket.AF_UNIX) as switch:
    switch.connect({path!r})
    switch.sendall(json.dumps({{"action": action, "plug": options.get("plug", ""),
                              "password": options.get("password", "")}}).encode() + b"\\n")
    answer = json.loads(switch.makefile().readline())
print(answer["said"])
sys.exit(answer["code"])
"""


class PowerSwitch:
    """``power`` switches a plug on or off, ``is_on`` tells; ``asked`` keeps every request as (action, plug)."""

    def __init__(
        self,
        folder: Path,
        power: Callable[[str, bool], None],
        is_on: Callable[[str], bool],
        password: str = "",
    ) -> None:
        self.agent = folder / "fence_lab"
        self.asked: list[tuple[str, str]] = []
        self._power, self._is_on, self._password = power, is_on, password
        path = folder / "switch.sock"
        self.agent.write_text(AGENT.format(python=sys.executable, path=str(path)))
        self.agent.chmod(0o755)
        switch = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                code, said = switch._answer(json.loads(self.rfile.readline()))
                self.wfile.write(json.dumps({"code": code, "said": said}).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="power switch", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: dict[str, str]) -> tuple[int, str]:
        """Exit status and text, as the protocol has them."""
        action, plug = request["action"], request["plug"]
        if request["password"] != self._password:
            return 1, f"login to the power switch failed with {request['password']}"
        self.asked.append((action, plug))
        if action == "monitor":
            return 0, "ready"
        if action == "status":
            return (0, "Status: ON") if self._is_on(plug) else (2, "Status: OFF")
        if action not in ("on", "off", "reboot"):
            return 1, f"unknown action {action}"
        if action in ("off", "reboot"):
            self._power(plug, False)
        if action in ("on", "reboot"):
            self._power(plug, True)
        return 0, f"Success: {action}"
