"""The text forms that a rule of the schema can ask for. Each check returns what is wrong and how to mend it, or ""."""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Callable, Mapping

from hasys.v1 import rules_pb2

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_INTERFACE = re.compile(r"[!-.0-~]{1,15}", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?|\d{1,10}", re.ASCII)
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)

_DEVICE = re.compile(r"/dev(/[\w.+@:=-]+)+", re.ASCII)
_PATH = re.compile(r"(/[\w.+@-]+)+", re.ASCII)
_FS_TYPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
_OPTION = re.compile(r"[\w.+@:=/%-]{1,128}", re.ASCII)
_FENCE_AGENT = re.compile(r"fence_[a-z0-9_]{1,60}")
_UNIT = re.compile(r"[A-Za-z0-9][\w.@:-]{0,190}\.service", re.ASCII)
_DRBD = re.compile(r"[A-Za-z0-9_][\w.+-]{0,63}", re.ASCII)
_DOTS = frozenset((".", ".."))
_SYSTEM_TREES = ("/proc/", "/sys/", "/dev/", "/run/", "/boot/", "/usr/", "/etc/", "/bin/", "/sbin/", "/lib/", "/lib64/")
_SYSTEM = frozenset(tree[:-1] for tree in _SYSTEM_TREES) | {
    "/var", "/var/lib", "/var/log", "/var/run", "/tmp", "/home", "/root",  # noqa: S108
}  # fmt: skip
"""Not to be mounted over: what is there would vanish."""


def label(text: str) -> str:
    """DNS label (RFC 1123)."""
    if _LABEL.fullmatch(text):
        return ""
    return f"{_short(text)} is no DNS label: use a-z, 0-9 and '-', at most 63 characters, no '-' at either end"


def ip_prefix(text: str) -> str:
    """Address with prefix length, one that a host can have."""
    address, slash, _ = text.partition("/")
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return f"{_short(text)} is no address with prefix length: write it like 10.0.0.1/24 or fd00::1/64"
    if not slash:
        return f"{_short(text)} has no prefix length: write {text}/{24 if interface.version == 4 else 64}"
    if not text.rpartition("/")[2].isdecimal():
        return f"{_short(text)}: write the prefix as a length: {address}/{interface.network.prefixlen}"
    ip, network = interface.ip, interface.network
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback:
        return f"{address} cannot move between nodes: use an address of your network"
    if "%" in text:
        return f"{_short(text)}: leave the scope out: the interface is a field of its own"
    if interface.version == 4 and network.prefixlen < 31:
        if ip == network.network_address:
            return f"{address} is the name of the network {network}: use an address inside it"
        if ip == network.broadcast_address:
            return f"{address} is the broadcast address of {network}: use an address inside it"
    return ""


def ip_address(text: str) -> str:
    """IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return f"{_short(text)} is no IP address"
    return ""


def interface(text: str) -> str:
    """Linux interface name."""
    if _INTERFACE.fullmatch(text) and text not in (".", ".."):
        return ""
    return f"{_short(text)} is no interface name: 1 to 15 characters, no '/' and no white space"


def absolute_path(text: str) -> str:
    """Absolute path."""
    if text.startswith("/") and len(text) < 4096:
        return ""
    return f"{_short(text)} is no absolute path: begin with '/'"


def device(text: str) -> str:
    """Path of a block device."""
    if _DEVICE.fullmatch(text) and not _DOTS & set(text.split("/")):
        return ""
    return f"{_short(text)} is no path of a device: write it like /dev/disk/by-id/..."


def mount_point(text: str) -> str:
    """Where a file system may be mounted without hiding a part of the system."""
    if not _PATH.fullmatch(text) or _DOTS & set(text.split("/")):
        return f"{_short(text)} is no plain absolute path: letters, digits and ._+@- between single '/'"
    if text in _SYSTEM or text.startswith(_SYSTEM_TREES):
        return f"{text} belongs to the system: mount below /srv, /mnt or /var/lib, for example"
    return ""


def fs_type(text: str) -> str:
    """Type of a file system."""
    return "" if _FS_TYPE.fullmatch(text) else f"{_short(text)} is no type of a file system: write it like ext4 or xfs"


def mount_option(text: str) -> str:
    """One option of mount(8)."""
    if _OPTION.fullmatch(text):
        return ""
    return f"{_short(text)} is no mount option: write one per item, like noatime or data=ordered"


def service_unit(text: str) -> str:
    """Name of a service of systemd."""
    if not _UNIT.fullmatch(text):
        return f"{_short(text)} is no name of a service: write it like nginx.service or postgresql@15-main.service"
    return "hasys cannot manage itself" if text.startswith("hasys") else ""


def fence_agent(text: str) -> str:
    """Name of a fence agent, or the path of one."""
    if _FENCE_AGENT.fullmatch(text) or (text.startswith("/") and not absolute_path(text)):
        return ""
    return f"{_short(text)} is no fence agent: write its name, like fence_ipmilan, or its absolute path"


def fence_option(text: str) -> str:
    """The value of one line that a fence agent reads."""
    return "" if text.isprintable() and len(text) <= 1000 else f"{_short(text)} is not one printable line"


def drbd_resource(text: str) -> str:
    """Name of a resource of DRBD; to its tools "all" means every one."""
    if _DRBD.fullmatch(text) and text != "all":
        return ""
    return f"{_short(text)} is no name of a DRBD resource: write it as drbd.conf does, like r0"


def user(text: str) -> str:
    """User name or decimal uid."""
    return "" if _USER.fullmatch(text) else f"{_short(text)} is no user name or uid"


def env_name(text: str) -> str:
    """Name of an environment variable."""
    if _ENV.fullmatch(text):
        return ""
    return f"{_short(text)} is no name of an environment variable: use letters, digits and '_', no digit first"


def signal_name(text: str) -> str:
    """Signal: SIGTERM, TERM or 15."""
    return "" if signal_number(text) else f"{_short(text)} is no signal: write it like SIGTERM, TERM or 15"


def signal_number(text: str) -> int:
    """The number of a signal in one of these spellings; 0 for none."""
    if text.isascii() and text.isdecimal():
        number = int(text) if len(text) < 4 else 0
        return number if number in signal.valid_signals() else 0
    name = text if text.startswith("SIG") else f"SIG{text}"
    found = signal.Signals.__members__.get(name)
    return int(found) if found is not None else 0


CHECKS: Mapping[int, Callable[[str], str]] = {
    rules_pb2.FORMAT_DNS_LABEL: label,
    rules_pb2.FORMAT_IP_PREFIX: ip_prefix,
    rules_pb2.FORMAT_INTERFACE: interface,
    rules_pb2.FORMAT_ABSOLUTE_PATH: absolute_path,
    rules_pb2.FORMAT_USER: user,
    rules_pb2.FORMAT_ENV_NAME: env_name,
    rules_pb2.FORMAT_SIGNAL: signal_name,
    rules_pb2.FORMAT_IP: ip_address,
    rules_pb2.FORMAT_DEVICE: device,
    rules_pb2.FORMAT_MOUNT_POINT: mount_point,
    rules_pb2.FORMAT_FS_TYPE: fs_type,
    rules_pb2.FORMAT_MOUNT_OPTION: mount_option,
    rules_pb2.FORMAT_SERVICE_UNIT: service_unit,
    rules_pb2.FORMAT_FENCE_AGENT: fence_agent,
    rules_pb2.FORMAT_FENCE_OPTION: fence_option,
    rules_pb2.FORMAT_DRBD_RESOURCE: drbd_resource,
}


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
