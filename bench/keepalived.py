"""keepalived in a lab, as Debian ships it: the rival that the benchmark and the lab's own tests are held against.

One VRRP instance; the highest priorities, because the skew that lower ones add is up to a whole interval; no
preemption, because an address that came back would move twice; everything else at its default. VRRP version 3 where
adverts come more often than each second: version 2 counts in whole seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from hasys.lab.lab import Lab
from hasys.lab.machine import Machine

_CONFIG = """\
global_defs {{
  router_id {name}
  vrrp_version {version}
}}
vrrp_instance web {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int {interval:g}
  nopreempt
  virtual_ipaddress {{
    {address} dev eth0
  }}
}}
"""

ROLE = "keepalived"
"""Name of its processes for :meth:`Machine.kill` and friends."""


def start(lab: Lab, machines: Mapping[str, int], address: str, interval: float) -> dict[str, Machine]:
    """Machines (name -> host number) that run keepalived with adverts every ``interval`` seconds."""
    version = 2 if interval >= 1 else 3
    started = {}
    for rank, (name, host) in enumerate(machines.items()):
        config = lab.record.data / f"{name}.keepalived.conf"
        config.write_text(
            _CONFIG.format(name=name, version=version, priority=254 - rank, interval=interval, address=address),
            encoding="ascii",
        )
        config.chmod(0o600)
        command = ("keepalived", "--dont-fork", "--log-console", f"--use-file={config}")
        started[name] = lab.machine(name, host, command)
    return started
