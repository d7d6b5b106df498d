"""``hasys import``: what becomes a manifest, what is named as left out, and that no input does anything else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.api.manifest import load
from hasys.api.rules import fill_defaults
from hasys.api.validation import check_objects
from hasys.cli.importing import hasys_v5, keepalived, shellvars
from hasys.cli.importing.hasys_v5 import Wanted
from hasys.cli.importing.result import Imported
from hasys.cli.main import app
from hasys.v1 import objects_pb2 as pb
from tests.unit.store.build import Log

KEEPALIVED = """
! a comment
global_defs { router_id LVS_1 }
vrrp_script chk { script "killall -0 nginx"  interval 2 }
vrrp_sync_group BOTH { group { VI_1
    VI_2 } }
vrrp_instance VI_1
{
    state MASTER
    interface ens3
    virtual_router_id 51
    priority 150
    authentication { auth_type PASS
       auth_pass 1111 }
    virtual_ipaddress {
        192.0.2.10/24 dev ens4 label ens4:1   # two words
        192.0.2.11
    }
    track_script { chk }
    notify_master "/etc/keepalived/up.sh now"
    notify_backup /etc/keepalived/down.sh
}
vrrp_instance VI_2 { interface ens5  priority 90
 virtual_ipaddress { 2001:db8::5/64 } }
vrrp_instance alone { state BACKUP
 priority 100
 virtual_ipaddress { 198.51.100.1/24 } }
"""

HASYS = """
#!/bin/bash
export HB_INTERVAL=1          # seconds
HB_FAIL_COUNT='3'
SHARED_DISK_MANAGEMENT_WAIT_TIME="30"
FAILOVER_CONDITION_MANAGEMENT=/opt/hasys/condition.sh
FCONDITION_WTIME=20
DSYNC_RECONNECT_COUNT=5
HOST=`hostname`
if [ -f x ]; then
"""


def specs(made: Imported) -> dict[str, dict[str, Any]]:
    return {f"{o['kind']}/{o['metadata']['name']}": o["spec"] for o in made.objects}


def accepted(made: Imported) -> list[str]:
    """What 'apply --dry-run' would say against what was made."""
    log = Log()
    nodes = []
    for number, name in enumerate(("n1", "n2"), start=1):
        node = pb.Object()
        node.node.metadata.name = name
        node.node.spec.addresses.append(f"203.0.113.{number}")
        nodes.append(node)
    cluster = pb.Object()
    cluster.cluster.metadata.name = "demo"
    log.must(*nodes, cluster)
    objects = load([("made", made.manifest("x"))]).objects
    for obj in objects:
        fill_defaults(obj)
    return [f"{fault.ref} {fault.field}: {fault.message}" for fault in check_objects(objects, log.machine)]


def test_instances_become_groups_with_addresses_and_scripts_become_a_command_with_its_undo() -> None:
    made = keepalived.translate(KEEPALIVED, ["n1", "n2"])
    found = specs(made)
    assert found["Group/both"] == {"nodes": [{"name": "n1", "priority": 150}, {"name": "n2", "priority": 100}]}
    assert found["Group/alone"] == {"nodes": [{"name": "n1", "priority": 100}, {"name": "n2", "priority": 150}]}
    assert found["Command/notify"]["run"] == {"command": ["/etc/keepalived/up.sh", "now"]}
    assert found["Command/notify"]["undo"] == {"command": ["/etc/keepalived/down.sh"]}
    assert found["VirtualIP/ip-192-0-2-10"] == {"address": "192.0.2.10/24", "interface": "ens4", "after": ["notify"]}
    assert found["VirtualIP/ip-192-0-2-11"]["address"] == "192.0.2.11/32"
    assert found["VirtualIP/ip-2001-db8-5"] == {"address": "2001:db8::5/64", "interface": "ens5"}
    assert accepted(made) == []


def test_what_keepalived_says_and_hasys_has_not_is_named_with_its_line_and_the_reason() -> None:
    left = keepalived.translate(KEEPALIVED, ["n1", "n2"]).left
    assert "line 3: global_defs: settings of keepalived itself" in left
    assert "line 11: virtual_router_id 51: VRRP is not spoken: nothing to set" in left
    assert any(line.startswith("line 19: track_script: watch the service itself") for line in left)
    assert not any("nopreempt" in line or "priority" in line.split(":")[1] for line in left)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("vrrp_instance A {\n priority 1\n", "line 2: a '}' is missing at the end"),
        ("}\n", "line 1: a '}' too many"),
        ("a {" * 40, "line 1: blocks are nested too deep"),
        ("vrrp_instance A { virtual_ipaddress {\n nonsense } }", "line 2: nonsense: is no address"),
        ("nonsense here", "line 1: nonsense here: is not known here"),
    ],
)
def test_a_strange_keepalived_conf_is_told_line_by_line(text: str, fault: str) -> None:
    assert fault in keepalived.translate(text, ["n1"]).left


def test_a_quote_that_does_not_end_takes_the_rest_of_its_line() -> None:
    (first, second), left = keepalived.parse('a "b { c\nd e\n')
    assert (first.words, first.block) == (("a", '"b { c'), None)
    assert (second.words, left) == (("d", "e"), [])


def test_of_several_scripts_for_the_same_the_first_one_counts_as_in_keepalived() -> None:
    made = keepalived.translate(
        "vrrp_instance A {\n notify_master /a\n notify_master /b\n notify_backup /c\n notify_backup /d\n}", ["n1"]
    )
    assert specs(made)["Command/notify"]["run"] == {"command": ["/a"]}
    assert specs(made)["Command/notify"]["undo"] == {"command": ["/c"]}
    assert made.left == ["line 3: notify_master /b: keepalived takes the first one alone"]


def test_objects_that_want_the_same_name_are_numbered() -> None:
    made = Imported()
    names = [made.add("Command", name, {}, "web") for name in ("x", "x", "x-2", "x", "y")]
    assert names == ["x", "x-2", "x-2-2", "x-3", "y"]
    assert made.add("Command", "x", {}, "db") == "x"


def test_the_variables_of_hasys_become_disk_condition_and_profile() -> None:
    made = hasys_v5.translate(HASYS, Wanted("db", ["n1", "n2"], "demo", "/dev/sdb1", "/srv/data"))
    found = specs(made)
    assert found["SharedDisk/shared-disk"] == {
        "device": "/dev/sdb1", "mountPoint": "/srv/data", "unmountTimeout": "30s",
    }  # fmt: skip
    assert found["Group/db"]["failover"] == {"gates": ["failover-condition"]}
    assert found["Monitor/failover-condition"] == {
        "script": {"command": ["/opt/hasys/condition.sh"]}, "on": "Standby", "interval": "5s", "failures": 1,
        "timeout": "20s",
    }  # fmt: skip
    assert found["Cluster/demo"] == {"profile": "default"}
    assert accepted(made) == []
    assert made.left == [
        "line 10: if [ -f x ]; then: no assignment",
        "line 9: HOST: its value takes a shell to know: write it out",
        "line 8: DSYNC_RECONNECT_COUNT=5: DRBD's own setting: keep it in drbd.conf, a ReplicatedVolume is what uses it",
    ]


def test_a15_a_condition_becomes_a_gate_and_the_operator_reads_where_it_is_asked() -> None:
    made = hasys_v5.translate("FAILOVER_CONDITION_MANAGEMENT='/opt/c.sh db'\n", Wanted("db", ["n1", "n2"]))
    assert specs(made)["Monitor/failover-condition"]["script"] == {"command": ["/opt/c.sh", "db"]}
    assert accepted(made) == []
    assert "#   /opt/c.sh db: asked every 5s on each node that does not run the group" in made.manifest("x")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("FAILOVER_CONDITION_MANAGEMENT=no\nFCONDITION_WTIME=5", "FCONDITION_WTIME: no failover condition is switched"),
        ("FAILOVER_CONDITION_MANAGEMENT=yes", "name your condition script in a Monitor, and that one in spec.failover"),
        ("FAILOVER_CONDITION_MANAGEMENT=/c\nFCONDITION_WTIME=0", "FCONDITION_WTIME=0s: a script has at least 0.1 s"),
    ],
)
def test_a15_a_condition_or_time_that_cannot_be_a_gate_is_left_with_what_to_do(text: str, left: str) -> None:
    made = hasys_v5.translate(text, Wanted("db", ["n1", "n2"]))
    assert [line for line in made.left if left in line]
    assert accepted(made) == []


def test_without_a_disk_or_cluster_named_the_settings_are_left_with_what_to_do() -> None:
    left = hasys_v5.translate(HASYS, Wanted("db", ["n1"])).left
    assert any("--device and --mount-point; or set spec.unmountTimeout: 30s" in line for line in left)
    assert any("HB_INTERVAL=1 x HB_FAIL_COUNT=3 is 3 s: profile default: name the cluster" in line for line in left)


def test_one_setting_that_might_be_interval_or_misses_is_left() -> None:
    made = hasys_v5.translate("HB_FAIL_TIME=30", Wanted("db", ["n1"], "demo"))
    assert "Cluster/demo" not in specs(made)
    assert any("HB_FAIL_TIME=30" in line for line in made.left)


DISK = Wanted("g", ["n1"], "", "/dev/x", "/srv/x")


@pytest.mark.parametrize("value", ["-1", "99999", "soon", "1;rm -rf /"])
def test_a_time_that_is_none_is_left(value: str) -> None:
    made = hasys_v5.translate(
        f'SHARED_DISK_MANAGEMENT_WAIT_TIME="{value}"', Wanted("g", ["n1"], "", "/dev/x", "/srv/x")
    )
    assert "unmountTimeout" not in specs(made)["SharedDisk/shared-disk"]
    assert len(made.left) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("A=b", "b"), ("A=", ""), ("export A='b c'", "b c"), ('A="b"c', "bc"), ("A=1 # one", "1"), ("  A=b", "b")],
)
def test_plain_values_are_read_as_a_shell_reads_them(text: str, value: str) -> None:
    (one,), other = shellvars.read(text)
    assert (one.name, one.value, one.trouble, other) == ("A", value, "", [])


@pytest.mark.parametrize("text", ["A=$B", "A=`b`", 'A="$(b)"', "A=b;c", "A=b c", "A='b", "A=\\b", "A=(b)"])
def test_a_value_that_takes_a_shell_is_left(text: str) -> None:
    (one,), _ = shellvars.read(text)
    assert one.trouble


# ---------------------------------------------------------------- any input

words = st.sampled_from([
    "vrrp_instance", "vrrp_sync_group", "group", "VI_1", "A", "priority", "state", "BACKUP", "interface", "eth0",
    "virtual_ipaddress", "10.0.0.1/24", "::1/128", "dev", "{", "}", "\n", '"', '"a b"', "#", "!", "notify_master",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(words, max_size=60).map(" ".join)))
def test_any_keepalived_conf_becomes_a_manifest_that_can_be_read(text: str) -> None:
    made = keepalived.translate(text, ["n1", "n2"])
    assert [found for found in yaml.safe_load_all(made.manifest(text)) if found] == made.objects


names = st.sampled_from([
    "HB_INTERVAL", "HB_COUNT", "HB_FAIL_TIME", "HB_X", "SHARED_DISK_MANAGEMENT_WAIT_TIME",
    "FAILOVER_CONDITION_MANAGEMENT",
    "FCONDITION_WTIME", "DSYNC_RECONNECT_TIME", "OTHER",
])  # fmt: skip
values = st.one_of(st.text(max_size=20), st.integers(-5, 10_000).map(str), st.sampled_from(["/opt/x.sh", "yes", "'1'"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=10), st.text(max_size=50))
def test_every_setting_of_hasys_is_translated_or_named(pairs: list[tuple[str, str]], rest: str) -> None:
    text = "\n".join(f"{name}={value}" for name, value in pairs) + "\n" + rest
    made = hasys_v5.translate(text, Wanted("g", ["n1"], "demo", "/dev/x", "/srv/x"))
    assert list(yaml.safe_load_all(made.manifest(text))) == made.objects
    assignments, other = shellvars.read(text)
    assert len(made.left) >= len(other) + sum(1 for one in assignments if one.trouble)


def test_the_command_prints_the_manifest_and_names_on_stderr_what_is_left(tmp_path: Any) -> None:
    file = tmp_path / "keepalived.conf"
    file.write_text(KEEPALIVED)
    done = CliRunner().invoke(app, ["import", "keepalived", str(file), "--node", "n1", "--node", "n2=30"])
    assert done.exit_code == 0
    assert "not translated: line 3: global_defs: settings of keepalived itself" in done.stderr
    assert "kind: VirtualIP" in done.stdout
    done = CliRunner().invoke(app, ["import", "keepalived", str(file), "--node", "N_1"])
    assert done.exit_code == 2
    file.write_text("#" * (256 * 1024 + 1))
    done = CliRunner().invoke(app, ["import", "keepalived", str(file), "--node", "n1"])
    assert done.exit_code == 1
    assert "expected one settings file of at most 256 KiB" in done.stderr
