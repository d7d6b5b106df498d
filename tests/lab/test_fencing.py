"""The second level: a lost node with a frozen guard is switched off before its programs start elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.lab.powerswitch import PowerSwitch
from hasys.lab.shell import until
from tests.lab.stage import GROUP, Act

pytestmark = pytest.mark.lab

SERVER = "http.server"
FENCING = """apiVersion: hasys/v1
kind: Fencing
metadata: {{name: {node}}}
spec:
  agent: {agent}
  options: {{plug: {node}}}
  action: Off
  delay: 0s
  wait: 1h
"""


def test_programs_of_a_frozen_node_start_elsewhere_once_a_power_switch_has_it_off(act: Act, tmp_path: Path) -> None:
    stage, lab = act.stage, act.stage.lab
    lost, other = stage.machine(act.active), stage.machine(act.standby)
    two_at_once = []

    def power(plug: str, on: bool) -> None:
        assert (plug, on) == (act.active, False)
        two_at_once.append(bool(other.processes(SERVER)))
        lab.power_off(plug)

    with PowerSwitch(tmp_path, power, lambda plug: stage.machine(plug).on) as switch:
        stage.cluster.apply(FENCING.format(node=act.active, agent=switch.agent))
        try:
            lost.freeze("guard")
            lost.drop()
            until(lambda: not lost.on, 20, "the power switch")
            stage.wait_holder(act.standby, 30)
            until(lambda: other.processes(SERVER), 20, "the programs elsewhere")
            told = act.told("NodeFenced", act.active, f"{act.standby}: {switch.agent}: off ", "status ")
        finally:
            stage.cluster.hasys("delete", "fencing", act.active)
    assert switch.asked == [("off", act.active), ("status", act.active)]
    assert two_at_once == [False], "until then the programs ran on the lost node alone"
    act.told("FenceStarted", act.active)
    assert " s" in told
    assert stage.cluster.wait_running(GROUP) == act.standby
