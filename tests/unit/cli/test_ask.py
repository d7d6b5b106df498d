"""``hasys init`` on a terminal: the same checks, one answer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys import config as node_config
from hasys.api.manifest import load
from tests.unit.cli.conftest import Run
from tests.unit.cli.pty import Terminal
from tests.unit.cli.systemctl import FakeSystemctl


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasys.cli.init._on_terminal", lambda: True)


def _answers(*lines: object) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.usefixtures("terminal")
def test_two_servers_are_asked_for_a_witness_and_the_folders_load(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    text = _answers(
        "shop", "2", "n1", "10.0.0.1", "10.1.0.1", "n2", "10.0.0.2,10.1.0.2", "y", "w", "10.0.0.3", "none", "fast",
        "10.0.0.100/24", "ens3", "web", out, "y",
    )  # fmt: skip
    result = hasys("init", text=text)
    assert result.exit_code == 0, result.output
    config = node_config.load(out / "n1")
    assert (config.cluster, config.profile) == ("shop", "fast")
    assert [(m.name, m.role, m.addresses) for m in config.members] == [
        ("n1", "Voter", ("10.0.0.1", "10.1.0.1")), ("n2", "Voter", ("10.0.0.2", "10.1.0.2")),
        ("w", "Witness", ("10.0.0.3",)),
    ]  # fmt: skip
    group, address = load([("web.yaml", (out / "web.yaml").read_text())]).objects
    assert [node.name for node in group.group.spec.nodes] == ["n1", "n2"]
    assert (address.virtual_ip.spec.address, address.virtual_ip.spec.interface.name) == ("10.0.0.100/24", "ens3")
    assert f"hasys apply -f {out / 'web.yaml'} --wait" in result.stdout


@pytest.mark.usefixtures("terminal")
def test_two_servers_without_a_witness_get_the_policy_safe(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    text = _answers("shop", "2", "n1", "10.0.0.1", "", "n2", "10.0.0.2", "", "n", "safe", "default", "", out, "y")
    result = hasys("init", text=text)
    assert result.exit_code == 0, result.output
    assert node_config.load(out / "n2").policy == "safe"
    assert sorted(path.name for path in out.iterdir()) == ["ca", "client", "n1", "n2"]


@pytest.mark.usefixtures("terminal")
def test_a_wrong_answer_is_explained_and_asked_again(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    (tmp_path / "used" / "ca").mkdir(parents=True)
    text = _answers(
        "Shop!", "shop", "2", "ca", "n1", "server.example", "10.0.0.1", "10.0.0.1", "10.1.0.1", "n1", "n2", "10.1.0.1",
        "10.0.0.2", "none", "n", "maybe", "safe", "slow", "default", "10.0.0.100", "10.0.0.1/24", "10.9.0.100/24",
        "eth 0", "eth0", "Web", "web", tmp_path / "used", out, "y",
    )  # fmt: skip
    result = hasys("init", text=text)
    assert result.exit_code == 0, result.output
    for why in (
        "'Shop!' is no DNS label", "'ca' cannot be a node's name", "'server.example' is no IP address",
        "n1: the same address twice", "two members are named 'n1'", "n1 and n2 both use 10.1.0.1:7411",
        "'maybe' is not", "'slow' is not", "10.0.0.1 is n1's own", "n1, n2: no address in 10.9.0.0/24",
        "spec.interface", "metadata.name", "exists: nothing is overwritten",
    ):  # fmt: skip
        assert why in result.stdout, why
    assert node_config.load(out / "n1").me.addresses == ("10.0.0.1", "10.1.0.1")


@pytest.mark.usefixtures("terminal")
def test_what_the_options_said_is_not_asked_again(hasys: Run, tmp_path: Path) -> None:
    options = ["--node", "n1=10.0.0.1", "--node", "n2=10.0.0.2", "--witness", "w=10.0.0.3", "--profile", "wan"]
    result = hasys("init", *options, "--out", tmp_path / "c", text=_answers("shop", "none", "y"))
    assert result.exit_code == 0, result.output
    config = node_config.load(tmp_path / "c" / "n1")
    assert (config.cluster, config.profile, len(config.members)) == ("shop", "wan", 3)


@pytest.mark.usefixtures("terminal")
def test_a_wrong_option_is_refused_before_anything_is_asked(hasys: Run) -> None:
    result = hasys("init", "--node", "n1=10.0.0.1", "--node", "n1=10.0.0.2", text="shop\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "two members are named 'n1'" in result.stderr


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("end", [["n"], []])
def test_a_no_and_the_end_of_input_write_nothing(hasys: Run, tmp_path: Path, end: list[str]) -> None:
    out = tmp_path / "shop"
    result = hasys("init", text=_answers("shop", "1", "n1", "10.0.0.1", "", "default", "", out, *end))
    assert result.exit_code == 1
    assert "Cluster shop, to be written to" in result.stdout
    assert not out.exists()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_member_with_systemd_it_goes_on_to_a_running_service(
    hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    systemctl = FakeSystemctl(tmp_path, monkeypatch)
    monkeypatch.setattr("hasys.cli.machine.is_here", lambda address: address == "240.0.0.1")
    monkeypatch.setattr("hasys.cli.install.UNIT_DIR", tmp_path)
    options = ["--cluster", "shop", "--node", "n1=240.0.0.1", "--node", "n2=240.0.0.2", "--witness", "w=240.0.0.3"]
    result = hasys("init", *options, text=_answers("default", "none", tmp_path / "c", "y", answer))
    assert result.exit_code == 0, result.output
    assert "This machine is n1. Install its service and start it now" in result.stdout
    assert ("hasys-shop-n1.service runs" in result.stdout) == (answer == "y")
    assert systemctl.asked[1:2] == (["enable --now hasys-shop-n1.service"] if answer == "y" else [])


def test_without_a_terminal_nothing_is_asked(hasys: Run) -> None:
    result = hasys("init", text="shop\n")
    assert result.exit_code == 2
    assert "--cluster, --node and --out are needed" in result.stderr


@pytest.mark.slow
def test_a_real_terminal_is_asked_step_by_step(tmp_path: Path) -> None:
    dialogue = [
        ("Name of the cluster [demo]: ", "shop"), ("How many servers run the service [2]: ", ""),
        ("Name of the server [n1]: ", ""), ("Address of n1 (IP, or IP:PORT): ", "240.0.0.1"),
        ("for heartbeats [none]: ", ""), ("Name of the server [n2]: ", ""),
        ("Address of n2 (IP, or IP:PORT): ", "240.0.0.1"), ("n1 and n2 both use 240.0.0.1:7411", None),
        ("Address of n2 (IP, or IP:PORT): ", "240.0.0.2"), ("for heartbeats [none]: ", ""),
        ("Is there a witness [Y/n]: ", ""), ("Name of the witness [w]: ", ""), ("Address of w", "240.0.0.3"),
        ("for heartbeats [none]: ", ""), ("(default, fast, wan) [default]: ", ""), ("[none]: ", "240.0.0.100/24"),
        ("Interface that gets it [eth0]: ", ""), ("Name of the group that has it [service]: ", ""),
        ("Folder to write to [./shop]: ", ""), ("group    service", None), ("Write it [Y/n]: ", None),
    ]  # fmt: skip
    with Terminal(["init"], {}, tmp_path) as terminal:
        for question, answer in dialogue:
            terminal.until(question)
            if answer is not None:
                terminal.press(f"{answer}\r")
        assert list(tmp_path.iterdir()) == []
        terminal.press("y\r")
        said = terminal.rest()
        assert terminal.process.returncode == 0, said
    assert "then: hasys apply -f shop/service.yaml --wait" in said
    assert node_config.load(tmp_path / "shop" / "n2").me.addresses == ("240.0.0.2",)
