"""``hasys demo``: three machines, a web server behind a virtual IP, a power cut, and what the client saw of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import click

from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest, hasys_command
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab, missing
from hasys.lab.screen import Screen, open_screen
from hasys.lab.shell import LabError
from hasys.lab.verdict import Outage

VIP, PORT, GROUP = "10.77.0.100", 8080, "web"
_LOOK = 2.0
"""Seconds given to a spectator between two acts."""


def run(keep: bool = False) -> int:
    """Play the demo; returns the exit status: 0 when everything went as promised."""
    lack = missing()
    if lack:
        click.echo(f"hasys demo {lack}", err=True)
        return 1
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _play(keep)
    except (LabError, TimeoutError, AssertionError) as e:
        click.echo(f"hasys demo failed: {e}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("stopped; everything was removed", err=True)
        return 130


def _play(keep: bool) -> int:
    with Lab() as lab:
        with open_screen() as screen:
            story = _Story(lab, screen)
            story.build()
            story.serve()
            story.power_cut()
            story.return_of_the_lost()
            story.switchover()
            story.verdict()
        if keep:
            click.echo(_invitation(lab, story.environment()))
    return 0


class _Story:
    """The acts, in their order."""

    def __init__(self, lab: Lab, screen: Screen) -> None:
        self._lab = lab
        self._screen = screen
        self._cluster = Cluster(lab)
        self._began = time.monotonic()
        self._web: Probe
        self._address: Probe
        self._watch: Watch

    def build(self) -> None:
        self._screen.say("three machines (n1, n2, witness w) and a client, made of namespaces on two networks")
        self._cluster.start()
        self._cluster.wait_ready()
        self._screen.say("cluster ready: every node runs store, agent and guard")
        self._screen.follow(self._cluster.feed)

    def serve(self) -> None:
        self._cluster.apply(
            group_manifest(GROUP)
            + address_manifest(f"{VIP}/24")
            + application_manifest(["python3", "-m", "http.server", str(PORT), "--directory", "/srv"])
        )
        active = self._cluster.wait_redundant(GROUP)
        self._address = self._lab.probe(VIP)
        self._web = self._lab.http_probe(VIP, PORT)
        self._watch = self._lab.watch([VIP], self._cluster.nodes)
        self._screen.listen(self._address)
        self._web.wait_answer(10)
        self._screen.say(f"http://{VIP}:{PORT} is served by {active}; the client asks the address every 5 ms")
        self._pause()

    def power_cut(self) -> None:
        active = self._active()
        self._screen.say(f"pulling the plug of {active} ...")
        struck = time.monotonic()
        self._lab.power_off(active)
        self._address.wait_answer(15, since=struck)
        self._web.wait_answer(15, since=struck)
        now = self._cluster.wait_running(GROUP)
        self._report(f"{active} lost its power, {now} took over", struck)
        self._pause()

    def return_of_the_lost(self) -> None:
        before = self._active()
        struck = time.monotonic()
        self._cluster.restore()
        after = self._cluster.wait_redundant(GROUP)
        if after != before:
            raise AssertionError(f"the group moved from {before} to {after} although nothing had happened to it")
        self._report(f"the lost machine is back as Standby, {after} keeps the service", struck)

    def switchover(self) -> None:
        struck = time.monotonic()
        self._cluster.hasys("switchover", GROUP, "--reason", "demo")
        now = self._cluster.wait_running(GROUP)
        self._web.wait_answer(10)
        self._report(f"switchover: {now} serves", struck)
        self._pause()

    def verdict(self) -> None:
        self._watch.assert_never_two()
        self._screen.say("never did two machines hold the address (each was asked every 4 ms)")
        self._screen.say(f"done in {time.monotonic() - self._began:.0f} s")

    def environment(self) -> dict[str, str]:
        """What a kept lab's script sets, so that ``hasys`` works as typed."""
        path = f"{Path(hasys_command()[0]).parent}:{os.environ.get('PATH', '')}"
        return {"PATH": path, "HASYS_CONTEXT": str(self._cluster.client_settings)}

    def _active(self) -> str:
        return self._cluster.wait_running(GROUP)

    def _report(self, what: str, struck: float) -> None:
        address, web = self._address.outage(struck), self._web.outage(struck)
        self._screen.say(f"{what}; the client missed the address for {_felt(address)}, the web server for {_felt(web)}")

    def _pause(self) -> None:
        time.sleep(_LOOK)


def _felt(outage: Outage) -> str:
    return f"{outage.longest:.2f} s" if outage.longest >= 1 else f"{outage.longest * 1000:.0f} ms"


def _invitation(lab: Lab, environment: Mapping[str, str]) -> str:
    """Leave the lab to the user, with commands to try."""
    script = lab.keep(environment)
    return "\n".join(
        [
            "",
            "The cluster is left running. Try:",
            f"  {script} client hasys status -w",
            f"  {script} client hasys switchover {GROUP}",
            f"  {script} client hasys events -f",
            f"  {script} n1                        # a shell on n1",
            f"  {script} off n1                    # pull its plug",
            f"  {script} remove                    # remove everything",
        ]
    )


def _leave(signum: int, frame: FrameType | None) -> None:
    """SIGTERM cleans up like Ctrl-C."""
    raise KeyboardInterrupt
