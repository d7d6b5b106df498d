"""Fence agents: what they are told, what is believed, what nobody may see. With a power switch of the lab, and with
agents of Debian's package where it is installed."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from hasys.lab.powerswitch import PowerSwitch
from hasys.resources import fence_agent
from hasys.resources.fence_agent import Failed, fence
from hasys.v1 import objects_pb2 as pb

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_agent, "PAUSE", 0.0)


class Rack:
    """Plugs that are on or off."""

    def __init__(self) -> None:
        self.on = {"n1": True}
        self.stuck = False

    def power(self, plug: str, on: bool) -> None:
        if not self.stuck:
            self.on[plug] = on


@pytest.fixture
def rack() -> Rack:
    return Rack()


@pytest.fixture
def switch(tmp_path: Path, rack: Rack) -> Iterator[PowerSwitch]:
    with PowerSwitch(tmp_path, rack.power, lambda plug: rack.on[plug], "open-sesame") as made:
        yield made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "n1.secret"
    file.write_text("# of the power switch\npassword=open-sesame\n")
    file.chmod(0o600)
    return file


def expose(file: Path) -> None:
    file.chmod(0o644)


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)


def spec(switch: PowerSwitch, secret: Path, **fields: object) -> pb.FencingSpec:
    return pb.FencingSpec(agent=str(switch.agent), options={"plug": "n1"}, secret_file=str(secret), **fields)  # type: ignore[arg-type]


async def test_a_reboot_is_one_action_and_is_believed(switch: PowerSwitch, secret: Path, rack: Rack) -> None:
    said = await fence(spec(switch, secret))
    assert switch.asked == [("reboot", "n1")]
    assert re.search(r": reboot \d+\.\d s$", said)
    assert rack.on["n1"]


async def test_off_is_confirmed_by_the_status(switch: PowerSwitch, secret: Path, rack: Rack) -> None:
    said = await fence(spec(switch, secret, action=pb.FencingSpec.Off))
    assert switch.asked == [("off", "n1"), ("status", "n1")]
    assert re.search(r": off \d+\.\d s, status \d+\.\d s$", said)
    assert not rack.on["n1"]


async def test_an_agent_that_reports_success_while_the_power_is_on_has_failed(
    switch: PowerSwitch, secret: Path, rack: Rack
) -> None:
    rack.stuck = True
    with pytest.raises(Failed, match="the power is on"):
        await fence(spec(switch, secret, action=pb.FencingSpec.Off))


async def test_a_failure_is_tried_again_and_told_without_the_secret(switch: PowerSwitch, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("password=swordfish\n")
    wrong.chmod(0o600)
    with pytest.raises(Failed, match=r"exit status 1: login .* with \*\*\* \(3 attempts\)"):
        await fence(spec(switch, wrong))


async def test_a_secret_that_others_can_read_is_not_used(switch: PowerSwitch, secret: Path) -> None:
    expose(secret)
    with pytest.raises(Failed, match="chmod 600"):
        await fence(spec(switch, secret))
    assert switch.asked == []


@pytest.mark.parametrize("line", ["password", "action=on"])
async def test_a_line_that_is_none_is_named(switch: PowerSwitch, secret: Path, line: str) -> None:
    rewrite(secret, f"login=x\n{line}\n")
    with pytest.raises(Failed, match=":2: expected a line like password"):
        await fence(spec(switch, secret))


async def test_an_agent_that_hangs_is_killed(tmp_path: Path) -> None:
    agent = tmp_path / "fence_hung"
    agent.write_text("#!/bin/sh\nexec sleep 1000\n")
    agent.chmod(0o755)
    answer = await fence_agent.run(str(agent), {"action": "off"}, 0.05)
    assert (answer.code, answer.said) == (124, "no answer within 0.05 s")


async def test_an_agent_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="apt-get install fence-agents"):
        await fence(pb.FencingSpec(agent="fence_of_nobody"))
    with pytest.raises(Failed, match="No such file"):
        await fence(pb.FencingSpec(agent=str(tmp_path / "gone")))


# ---------------------------------------------------------------- agents of Debian's package
def real(agent: str) -> str:
    path = Path("/usr/sbin") / agent
    if not path.is_file():
        pytest.skip(f"{path} is not there: apt-get install fence-agents")
    return agent


async def test_a_real_agent_switches_its_device_off(tmp_path: Path) -> None:
    """fence_dummy: the package's own agent whose device is a file."""
    device = tmp_path / "power"
    device.write_text("on")
    options = {"status_file": str(device), "type": "file"}
    said = await fence(pb.FencingSpec(agent=real("fence_dummy"), options=options, action=pb.FencingSpec.Off))
    assert device.read_text() == "off"
    assert said.startswith("fence_dummy: off ")
    assert (await fence_agent.run("/usr/sbin/fence_dummy", {**options, "action": "status"}, 30)).code == 2


async def test_a_real_agent_for_ipmi_is_told_secret_and_address(tmp_path: Path) -> None:
    """fence_ipmilan against a stand-in for ipmitool, which keeps the power in a file."""
    power, tool = tmp_path / "power", tmp_path / "ipmitool"
    power.write_text("on")
    tool.write_text(f"""#!/bin/sh
echo "$@" >>{tmp_path}/calls
case "$*" in
  *"power status"*) echo "Chassis Power is $(cat {power})";;
  *"power off"*) echo off >{power};;
  *"power on"*) echo on >{power};;
esac
""")
    tool.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("password=swordfish\n")
    secret.chmod(0o600)
    options = {"ip": "192.0.2.11", "username": "hasys", "lanplus": "1", "ipmitool_path": str(tool), "power_wait": "0"}
    wanted = pb.FencingSpec(
        agent=real("fence_ipmilan"), options=options, secret_file=str(secret), action=pb.FencingSpec.Off
    )
    await fence(wanted)
    assert power.read_text().strip() == "off"
    calls = (tmp_path / "calls").read_text()
    assert "-H 192.0.2.11" in calls
    assert "-U hasys" in calls


@pytest.mark.parametrize("agent", ["fence_dummy", "fence_ipmilan", "fence_virsh", "fence_apc", "fence_sbd"])
async def test_what_hasys_asks_for_is_in_the_metadata_of_real_agents(agent: str) -> None:
    answer = await metadata(f"/usr/sbin/{real(agent)}")
    assert {"off", "reboot", "status"} <= answer


async def test_the_agent_of_the_lab_conforms_too(switch: PowerSwitch) -> None:
    assert {"on", "off", "reboot", "status", "monitor", "metadata"} <= await metadata(str(switch.agent))


async def metadata(program: str) -> set[str]:
    """Names of the actions that an agent has."""
    assert shutil.which(program)
    done = await anyio.run_process([program], input=b"action=metadata\n")
    return {action.attrib["name"] for action in ET.fromstring(done.stdout).iter("action")}
