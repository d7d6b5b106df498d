"""Valid inputs of the decoders: what a fuzzer begins with."""

from __future__ import annotations

import json

from hasys.lease.wire import Grant, Health, Hint, KeepAlive, Message, encode
from hasys.model import arp
from hasys.store.raft.links import frame
from hasys.store.raft.membership import Membership, pack_snapshot
from hasys.v1 import raft_pb2 as pb

CLAIMS = [
    arp.frame(2, b"\2\0\0\0\0\1", b"\n\0\0\x09", b"\n\0\0\x09"),
    b"\x88\0\0\0\x60\0\0\0" + b"\xfd" + bytes(15) + b"\2\1\2\0\0\0\0\1",
    b"\x45" + bytes(19) + b"\0\0\0\0\0\7\0\0" + bytes(16),
    b"\x81\0\0\0\0\7\0\0" + bytes(16),
]  # fmt: skip

KEPT = [
    b'{"boot": "b", "reports": [], "groups": {"web": 3}, "pid": 7, "startTime": 8}',
    b'{"web": 3, "db": 4}',
]

MANIFEST = """\
apiVersion: hasys/v1
kind: Group
metadata: {name: web, labels: {tier: front}}
spec:
  nodes: [{name: n1, priority: 100}, {name: n2, priority: 50}]
  failover: {mode: Manual, stopTimeout: 1m}
---
apiVersion: hasys/v1
kind: VirtualIP
metadata: {name: web-ip, group: web}
spec: {address: 192.0.2.100/24, interface: eth0}
---
apiVersion: hasys/v1
kind: Delay
metadata: {name: pause, group: web}
spec: {duration: 1.5s, after: [web-ip]}
---
apiVersion: hasys/v1
kind: Application
metadata: {name: web-app, group: web}
spec:
  after: [pause]
  run: {command: [python3, -m, http.server, "8080"], workingDirectory: /srv, stopTimeout: 5s}
  restart: {retries: 3, startTime: 1s, backoff: 500ms}
"""

NODE = {
    "cluster": "demo", "clusterId": "c1", "node": "n1", "profile": "default",
    "members": [
        {"name": "n1", "role": "Voter", "addresses": ["10.0.0.1", "10.1.0.1"]},
        {"name": "n2", "role": "Voter", "addresses": ["10.0.0.2"], "apiPort": 7411, "raftPort": 1, "leasePort": 2},
        {"name": "w", "role": "Witness", "addresses": ["fe80::1"]},
    ],
    "tls": {"ca": "ca.crt", "certificate": "node.crt", "key": "node.key"},
    "leaseSecret": "lease.secret", "nodeSecret": "node.secret", "dataDir": "data", "runDir": "/run/x",
}  # fmt: skip

CLIENT_YAML = b'cluster: demo\nservers: ["10.0.0.1:7411", "[::1]:7411"]\ntls: {ca: a, certificate: b, key: c}\n'

GUARD_LINES = [
    json.dumps({"id": 1, **body}).encode()
    for body in (
        {"op": "hello", "pid": 7, "cgroup": "/sys/fs/cgroup/hasys.x/agent"},
        {"op": "gate", "addresses": [{"interface": "eth0", "address": "10.0.0.9/24"}]},
        {
            "op": "plan", "group": "web", "epoch": 3, "version": 9,
            "entries": [
                {"kind": "address", "interface": "eth0", "address": "fd00::1", "resource": "ip"},
                {"kind": "cgroup", "path": "/sys/fs/cgroup/hasys.x/groups/web/app", "resource": "app"},
            ],
        },
        {"op": "permit", "group": "web", "epoch": 3},
        {"op": "release", "group": "web", "epoch": 3},
        {"op": "status"},
        {"op": "alive"},
        {"op": "swear", "group": "web", "epoch": 4, "cause": "by hand"},
        {"op": "forswear", "group": "web", "cause": "by hand"},
        {"op": "told", "serial": 5},
    )
]  # fmt: skip

BOOKS = [
    json.dumps(
        {
            "plans": [{"group": "web", "epoch": 3, "version": 9, "entries": [], "leftovers": [], "permitted": True}],
            "floors": {"web": 2}, "gate": [["eth0", "10.0.0.9"]], "agent": [7, 123, "/x"],
            "oaths": {"web": [4, 1.5, False, False]}, "reports": [[1, 2.5, "web", 4, True, "by hand"]],
        }
    ).encode()
]  # fmt: skip

NOTES = [
    json.dumps(
        {
            "time": 1.5, "boot": "first", "held": {"web": 5}, "watchdog": "softdog",
            "fencing": [{"groups": {"web": 5}, "reason": "no lease", "blockers": ["/srv is in use"]}],
            "reports": [
                {"serial": 9, "time": 1.5, "reason": "GuardFenced", "groups": "web (epoch 5)", "epoch": 5, "cause": "x"}
            ],
        }
    ).encode(),
    b'{"boot": "first", "held": {"web": 5}, "watchdog": "none", "fencing": [], "reports": []}',
]  # fmt: skip

KEEPALIVED = b"""\
global_defs { router_id LVS_1 }
vrrp_sync_group BOTH { group { VI_1 } }
vrrp_instance VI_1
{
    state MASTER
    interface ens3
    priority 150
    virtual_ipaddress {
        192.0.2.10/24 dev ens4 label ens4:1   # two words
        2001:db8::5/64
    }
    track_script { chk }
    notify_master "/etc/keepalived/up.sh now"
    notify_backup /etc/keepalived/down.sh
}
"""

HA_SYS = b"""\
export HB_INTERVAL=1          # seconds
HB_FAIL_COUNT='3'
SHARED_DISK_MANAGEMENT_WAIT_TIME="30"
FAILOVER_CONDITION_MANAGEMENT=/opt/hasys/condition.sh
FCONDITION_WTIME=20
HOST=`hostname`
"""


def datagrams(key: bytes) -> list[bytes]:
    """One of each kind, without its MAC, behind the byte that asks for one."""
    messages: list[Message] = [
        KeepAlive("demo", "n1", "boot", 5, 99, (3, 4), 0.1, (("web", 3),), (("db", 2),), Health(armed=True)),
        KeepAlive("demo", "n1", "boot", 5, 99, (3, 4), 0.1, (("web", 3),), bound=(("web", 3), ("db", 1))),
        Grant("demo", "n2", 3, "n1", 5, 99, 12, 0.01, 1.0, (("web", 3, 9),), (("db", 4),)),
        Hint("demo", "n1", 5, 99, "n2"),
    ]
    return [b"\1" + encode(message, key)[:-16] for message in messages]


def stream() -> bytes:
    """Frames as other members send them: a vote, entries, a snapshot, proposals, greetings."""
    entries = [pb.Entry(term=2, command=b"\0x")]
    state = pack_snapshot(Membership.of_names(("n1", "n2", "n3")), b"")
    bodies: list[dict[str, object]] = [
        {"greeting": pb.Greeting(ask=True)},
        {"greeting": pb.Greeting(started=True)},
        {"pre_vote": pb.PreVote(attempt=1, last_index=1)},
        {"vote_request": pb.VoteRequest(last_index=1, last_term=0)},
        {"heartbeat": pb.Heartbeat(round=1, commit=1)},
        {"append": pb.Append(request=1, prev_index=1, prev_term=0, entries=entries, commit=2)},
        {"snapshot_chunk": pb.SnapshotChunk(index=5, index_term=2, total=3, data=b"abc")},
        {"snapshot_chunk": pb.SnapshotChunk(index=6, index_term=2, total=len(state), data=state)},
        {"heartbeat_answer": pb.HeartbeatAnswer(round=1, match=1, received=1)},
        {"append_answer": pb.AppendAnswer(request=1, match=1)},
        {"proposal": pb.Proposal(request=1, command=b"x")},
        {"proposal_answer": pb.ProposalAnswer(request=1, accepted=True, index=2, term=2)},
        {"vote": pb.Vote(silence=1.0)},
        {"timeout_now": pb.TimeoutNow()},
    ]
    messages = [pb.Message(term=2, incarnation=7, voting=True, **body) for body in bodies]  # type: ignore[arg-type]
    return b"".join(frame(message) for message in messages)


DRBD = [
    b"version: 8.4.11 (api:1/proto:86-101)\n 0: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----\n"
    b"    ns:0 nr:9 dw:9 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:32768\n 1: cs:Unconfigured\n",
    b'[{"name": "r0", "role": "Primary", "devices": [{"volume": 0, "minor": 0, "disk-state": "UpToDate", "size": 99}],'
    b' "connections": [{"name": "n2", "connection-state": "Connected", "peer-role": "Secondary", "peer_devices": ['
    b'{"volume": 0, "replication-state": "Established", "peer-disk-state": "UpToDate", "out-of-sync": 0}]}]}]',
]
"""What DRBD 8.4 writes to /proc/drbd, and what drbdsetup prints of DRBD 9."""
