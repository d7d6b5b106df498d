"""How many members there may be."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest

from hasys.api.server.calls import Call
from hasys.api.server.maintenance import MOST_MEMBERS, MOST_VOTERS, Maintenance
from hasys.config import Member, NodeConfig
from hasys.model.errors import Refused
from hasys.store.directory import Directory, spec_of
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from tests.unit.store.build import Log, group


@dataclass(frozen=True)
class Known:
    """A directory of these."""

    members: tuple[Member, ...]

    def get(self, name: str) -> Member | None:
        return next((m for m in self.members if m.name == name), None)


def check(others: list[Member], newcomer: Member) -> None:
    """What AddMember looks at before it changes anything."""
    maintenance = Maintenance.__new__(Maintenance)
    maintenance._directory = cast(Directory, Known(tuple(others)))
    maintenance._checked(api_pb2.AddMemberRequest(name=newcomer.name, spec=spec_of(newcomer)))


def member(number: int, role: str) -> Member:
    return Member(f"m{number}", role, (f"10.0.0.{number}",))


def test_a_tenth_voter_is_refused_and_may_come_as_observer() -> None:
    voters = [member(i, "Voter") for i in range(1, MOST_VOTERS + 1)]
    with pytest.raises(Refused, match="9 voters are the most: add m10 as an Observer"):
        check(voters, member(10, "Voter"))
    with pytest.raises(Refused, match="9 voters are the most"):
        check(voters, member(10, "Witness"))
    check(voters, member(10, "Observer"))
    check(voters, Member("m9", "Voter", ("10.0.0.99",)))  # other addresses of one that is there


def test_more_members_than_the_limit_are_refused() -> None:
    members = [member(i, "Observer") for i in range(1, MOST_MEMBERS + 1)]
    check(members[:-1], member(101, "Observer"))
    with pytest.raises(Refused, match="100 members: at most 100"):
        check(members, member(101, "Observer"))


def test_a_role_of_a_later_version_is_refused() -> None:
    maintenance = Maintenance.__new__(Maintenance)
    maintenance._directory = cast(Directory, Known(()))
    spec = spec_of(member(1, "Voter"))
    spec.role = cast("pb.NodeSpec.Role.ValueType", 99)
    with pytest.raises(Refused, match="m1: role 99 is unknown: use one of Voter, Witness, Observer"):
        maintenance._checked(api_pb2.AddMemberRequest(name="m1", spec=spec))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("n1", "group 'web' left n1, which may still have something of it: wait .* 'hasys fence-confirm n1'"),
        ("n2", "group 'web' left n2, which may still have something of it"),
        ("n3", "group 'web' runs on n3: 'hasys drain n3' first"),
        ("n4", "group 'web' can run on n4: take it out of its spec.nodes first"),
    ],
)
def test_a_node_that_a_group_has_left_is_not_said_to_run_it(name: str, why: str) -> None:
    log = Log()
    log.must(group("web", "n4"))
    log.assign(node="n3", epoch=3, previous_node="n2", previous_epoch=2, earlier=[pb.Holder(node="n1", epoch=1)])
    maintenance = Maintenance.__new__(Maintenance)
    maintenance._machine = log.machine
    with pytest.raises(Refused, match=why):
        maintenance._refuse_in_use(name)
    maintenance._refuse_in_use("n5")


@pytest.mark.anyio
async def test_two_nodes_of_a_policy_stay_the_two_they_are() -> None:
    """Every guard must say what it has the token of, and be asked."""
    maintenance = Maintenance.__new__(Maintenance)
    maintenance._directory = cast(Directory, Known((member(1, "Voter"), member(2, "Voter"))))
    maintenance._config = cast(NodeConfig, SimpleNamespace(policy="safe"))
    call = cast(Call, SimpleNamespace(caller=SimpleNamespace(must_be_admin=lambda what: None)))
    witness = member(3, "Witness")
    with pytest.raises(Refused, match="policy safe is for two nodes"):
        await maintenance.add_member(api_pb2.AddMemberRequest(name="m3", spec=spec_of(witness)), call)
    with pytest.raises(Refused, match="policy safe is for two nodes"):
        await maintenance.remove_member(api_pb2.RemoveMemberRequest(name="m2"), call)
