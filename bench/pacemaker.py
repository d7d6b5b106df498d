"""Pacemaker and Corosync in a lab, as Debian ships them: two nodes that may run the address, a third that only votes.

Corosync uses both networks (two knet links). No fence device, as hasys has none here: a node that lost the majority
stops its resources (``no-quorum-policy=stop``), nothing makes sure of it. Everything else at its default, but for
``token``.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from functools import partial

from hasys.lab.lab import Lab
from hasys.lab.machine import Machine
from hasys.lab.shell import LabError, until

ROLE = "pacemakerd"
"""Name of its first process."""

_CONFIG = """\
totem {{
  version: 2
  cluster_name: bench
  transport: knet
  crypto_cipher: none
  crypto_hash: none
  {token}
}}
quorum {{
  provider: corosync_votequorum
}}
logging {{
  to_stderr: yes
}}
nodelist {{
{nodes}
}}
"""

_NODE = "  node {{\n name: {name}\n nodeid: {host}\n ring0_addr: 10.77.0.{host}\n ring1_addr: 10.78.0.{host}\n }}"

_BOOT = """
set -e
if [ ! -e /run/mounted ]; then
  mount -t tmpfs tmpfs /dev/shm
  for part in cib cores pengine blackbox; do mkdir -p "$0/pacemaker/$part"; done
  mkdir -p "$0/corosync" "$0/log/pacemaker"
  chown -R hacluster:haclient "$0/pacemaker" "$0/log/pacemaker"
  mount --bind "$0/pacemaker" /var/lib/pacemaker
  mount --bind "$0/corosync" /var/lib/corosync
  mount --bind "$0/log" /var/log
  mkdir -p /run/crm /run/resource-agents /run/corosync
  chown hacluster:haclient /run/crm
  touch /run/mounted
fi
corosync -f -c "$1" &
exec pacemakerd
"""

_RESOURCES = """\
<primitive id="vip" class="ocf" provider="heartbeat" type="IPaddr2">
  <instance_attributes id="vip-a">
    <nvpair id="vip-ip" name="ip" value="{address}"/><nvpair id="vip-mask" name="cidr_netmask" value="{prefix}"/>
    <nvpair id="vip-nic" name="nic" value="eth0"/>
  </instance_attributes>
  <meta_attributes id="vip-m"><nvpair id="vip-s" name="resource-stickiness" value="100"/></meta_attributes>
  <operations><op id="vip-mon" name="monitor" interval="10s"/></operations>
</primitive>"""


def missing() -> str | None:
    """What this machine lacks; None: nothing."""
    for program in ("corosync", "pacemakerd", "crm_resource", "cibadmin"):
        if shutil.which(program) is None:
            return f"needs {program}: apt install pacemaker corosync pacemaker-cli-utils resource-agents"
    return None


class Pacemaker:
    """A running cluster in a lab."""

    def __init__(self, lab: Lab, nodes: Mapping[str, int], voter: str, address: str, token: int | None) -> None:
        """``nodes`` may run the address (with prefix), ``voter`` only votes; ``token`` in ms, None: default."""
        self._lab = lab
        self._nodes = tuple(nodes)
        self._members = {**nodes, voter: len(nodes) + 1}
        config = lab.record.data / "corosync.conf"
        listed = "\n".join(_NODE.format(name=n, host=h) for n, h in self._members.items())
        config.write_text(_CONFIG.format(token=f"token: {token}" if token else "", nodes=listed), encoding="ascii")
        for name, host in self._members.items():
            disk = lab.record.data / name
            lab.machine(name, host, ("sh", "-c", _BOOT, str(disk), str(config)))
        until(lambda: len(self._online()) == len(self._members), 90, "every Pacemaker node to be online")
        first = lab.machines[self._nodes[0]]
        for option, value in (("stonith-enabled", "false"), ("no-quorum-policy", "stop")):
            first.run("crm_attribute", "-t", "crm_config", "-n", option, "-v", value)
        ip, _, prefix = address.partition("/")
        first.run("cibadmin", "-o", "resources", "-C", "-X", _RESOURCES.format(address=ip, prefix=prefix))
        first.run("cibadmin", "-o", "constraints", "-C", "-X", _never(voter))

    def settle(self) -> None:
        """Every node on and online, the address started, no order to move left."""
        for name in self._members:
            if not self._lab.machines[name].on:
                self._lab.power_on(name)
        until(lambda: len(self._online()) == len(self._members), 90, "every Pacemaker node to be online")
        self._any().run("crm_resource", "--clear", "-r", "vip")
        until(partial(self._idle), 60, "Pacemaker to come to rest")

    def move(self, away_from: str) -> None:
        """The orderly move."""
        to = next(n for n in self._nodes if n != away_from)
        self._lab.machines[to].run("crm_resource", "--move", "-r", "vip", "-N", to)

    def _any(self) -> Machine:
        return next(m for n in self._members if (m := self._lab.machines[n]).on)

    def _status(self) -> ElementTree.Element | None:
        try:
            return ElementTree.fromstring(self._any().run("crm_mon", "-1", "--output-as=xml", timeout=20))
        except (LabError, ElementTree.ParseError):
            return None

    def _online(self) -> list[str]:
        status = self._status()
        if status is None:
            return []
        return [n.attrib["name"] for n in status.iterfind("./nodes/node") if n.attrib["online"] == "true"]

    def _idle(self) -> bool:
        dc = next((m for n in self._members if (m := self._lab.machines[n]).on), None)
        status = self._status()
        if dc is None or status is None:
            return False
        started = [
            r
            for r in status.iterfind("./resources/resource")
            if r.attrib["role"] == "Started" and r.attrib["failed"] == "false"
        ]
        return len(started) == 1 and len(started[0].findall("node")) == 1


def _never(voter: str) -> str:
    return f'<rsc_location id="vote-only" rsc="vip" node="{voter}" score="-INFINITY" resource-discovery="never"/>'
