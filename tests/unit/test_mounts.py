"""The kernel's table of mounts."""

from __future__ import annotations

from hasys.model.mounts import Mount, at, below, is_of, parse

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 7:1 / /srv/my\\040data rw,noatime shared:2 master:3 - ext4 /dev/loop1 rw,errors=remount-ro
31 30 0:44 / /srv/my\\040data/tmp rw - tmpfs tmpfs rw
32 22 7:2 / /srv/my rw - xfs /dev/loop2 ro
33 22 7:3 / /srv/my ro - xfs /dev/loop3 rw
no line of the table
"""


def test_lines_are_read_with_what_is_escaped_and_optional() -> None:
    mounts = parse(TABLE)
    assert [m.point for m in mounts] == ["/", "/srv/my data", "/srv/my data/tmp", "/srv/my", "/srv/my"]
    assert mounts[1] == Mount("7:1", "/srv/my data", "/dev/loop1", True)
    assert [m.writable for m in mounts] == [True, True, True, False, False]


def test_what_was_mounted_last_is_seen() -> None:
    found = at(parse(TABLE), "/srv/my")
    assert found is not None
    assert found.source == "/dev/loop3"
    assert at(parse(TABLE), "/srv") is None


def test_what_lies_below_comes_first_and_a_longer_name_is_not_below() -> None:
    assert [m.point for m in below(parse(TABLE), "/srv/my data")] == ["/srv/my data/tmp", "/srv/my data"]
    assert [m.source for m in below(parse(TABLE), "/srv/my")] == ["/dev/loop3", "/dev/loop2"]


def test_a_device_is_known_by_its_number_and_by_its_name_only_when_it_is_gone() -> None:
    mount = parse(TABLE)[1]
    assert is_of(mount, "/dev/disk/by-id/x", "7:1")
    assert not is_of(mount, "/dev/loop1", "7:9")
    assert is_of(mount, "/dev/loop1", "")
