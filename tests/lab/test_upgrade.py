"""A version upgrade node by node, on real kernels, with clients asking all the time (``make upgrade``).

The older version is a commit of this repository, unpacked beside the present tree; both run on the same installed
packages. Which one a machine boots is a symbolic link beside its node.yaml, as a package manager would replace files.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from hasys.lab.cluster import Cluster, CommandFailed, address_manifest, application_manifest, group_manifest, group_of
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab, missing
from hasys.lab.shell import until
from tests.lab.stage import PORT, UNFELT, VIP, WEB_SERVER, WORST

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
OLD = os.environ.get("HASYS_OLD", "0a7e26e")
"""The commit that is upgraded from."""
OTHER_VIP = "10.77.0.101"
MOVED = 0.5
"""Seconds that a client may miss a group that is handed over."""
STEP = 60.0
"""Seconds for each step; far above what it takes, so that only a fault reaches it."""
GUARDED = ("store", "guard", "agent")

BOOT = ("sh", "-c", 'for last; do :; done; export PYTHONPATH=$(readlink -f "${last%/*}/code"); exec "$@"', "sh")
"""Words before a machine's boot command: the code beside its node.yaml (the command's last word) is what it imports."""

MANIFEST = (
    group_manifest("web", {"n1": 100, "n2": 50})
    + address_manifest(f"{VIP}/24")
    + application_manifest(WEB_SERVER)
    + group_manifest("other", {"n1": 50, "n2": 100})
    + address_manifest(f"{OTHER_VIP}/24", "other-ip", "other")
)


def _unpack(commit: str, folder: Path) -> None:
    """The tree of a commit; skipped where this repository does not have it, or it needs other packages."""
    git = ["git", "-C", str(ROOT)]
    made = subprocess.run([*git, "archive", commit, "hasys", "requirements.lock"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs the commit {commit} of this repository: {made.stderr.decode().strip()}")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=made.stdout, check=True)
    then, now = _pinned(folder / "requirements.lock"), _pinned(ROOT / "requirements.lock")
    others = sorted(name for name in then if then[name] != now.get(name))
    if others:
        pytest.skip(f"{commit} needs other versions of {', '.join(others)}: choose a later one with HASYS_OLD")


def _pinned(lock: Path) -> Mapping[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", lock.read_text("utf-8"), re.MULTILINE))


class Upgrade:
    """Two nodes and a witness of the old version, two groups (``web`` on n1, ``other`` on n2), and who asks them."""

    def __init__(self, lab: Lab, old: Path) -> None:
        self.lab, self.old = lab, old
        self.old_level = (old / "hasys/model/level.py").exists()  # then nothing that it does not know is at hand here
        self.cluster = Cluster(lab)
        for name in self.cluster.members:
            self.install(name, old)
        if '"timing"' not in (old / "hasys/config.py").read_text("utf-8"):
            self._name_the_profile_alone()
        self.cluster.start(prefix=BOOT)
        self.cluster.wait_ready()
        self.cluster.apply(MANIFEST)
        for group, node in (("web", "n1"), ("other", "n2")):
            self.cluster.wait_running(group, active=node)
        self.watch: Watch = lab.watch([VIP, OTHER_VIP], self.cluster.nodes)
        self.web: Probe = lab.http_probe(VIP, PORT)
        self.probes: Mapping[str, Probe] = {"web": lab.probe(VIP), "other": lab.probe(OTHER_VIP)}
        for probe in (self.web, *self.probes.values()):
            probe.wait_answer(10)
        self.began = time.monotonic()
        self._written = 0

    def _name_the_profile_alone(self) -> None:
        """In each node.yaml, as ``hasys init`` of a version did that knew no figures there."""
        for name in self.cluster.members:
            config = self.cluster.folder / name / "node.yaml"
            text, found = re.subn(r"^timing: \{[^}]*\}\n", "", config.read_text("utf-8"), flags=re.MULTILINE)
            assert found == 1
            config.write_text(text, "utf-8")

    # ------------------------------------------------------------ the two versions

    def install(self, name: str, code: Path) -> None:
        """From its next start on a process of that member runs this code."""
        link = self.cluster.folder / name / "code"
        made = link.with_name("code.new")
        made.symlink_to(code)
        made.rename(link)

    def version(self, name: str, role: str) -> str:
        """``old`` or ``new``: what the process of that role runs, as the kernel keeps its environment."""
        (pid,) = self.lab.machines[name].processes(role)
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        return "old" if f"PYTHONPATH={self.old}" in environment else "new"

    # ------------------------------------------------------------ steps of an upgrade

    def replace(self, name: str) -> None:
        """Stop a member in order, as ``systemctl restart`` does, and start the new version."""
        role = "witness" if name == "w" else "node"
        self.install(name, ROOT)
        before = self.lab.machines[name].kill(role, signal.SIGTERM)
        self._comes_back(name, role, before)
        self.settle()
        assert self.version(name, "store") == "new"

    def replace_in_place(self, name: str, *roles: str) -> None:
        """Replace processes of a member one by one, while what they started goes on."""
        self.install(name, ROOT)
        before = self.lab.machines[name].kill("node", signal.SIGKILL)  # the next one adopts its processes
        self._comes_back(name, "node", before)
        for role in roles:
            assert self.version(name, role) == "old"
            self._comes_back(name, role, self.lab.machines[name].kill(role, signal.SIGTERM))
            assert self.version(name, role) == "new"
            self.settle()

    def _comes_back(self, name: str, role: str, before: list[int]) -> None:
        machine = self.lab.machines[name]
        until(lambda: set(machine.processes(role)) - set(before), STEP, f"the next {role} of {name}")
        until(lambda: not set(machine.processes(role)) & set(before), STEP, f"the {role} of {name} to end")

    def switchover(self, group: str, to: str) -> None:
        """A planned move, which a client hardly feels."""
        asked = time.monotonic()
        self.cluster.hasys("switchover", group, "--to", to)
        self.settle()
        self.active(group, to)
        self.assert_felt(group, asked, MOVED)

    def lead(self, wanted: str) -> None:
        """Kill the leader's store until ``wanted`` leads."""
        for _ in range(10):
            if (leader := str(self.cluster.status()["cluster"]["leader"])) == wanted:
                return
            self.lab.machines[leader].kill("store")
            self._another_leader(leader)
            self.settle()
        raise AssertionError(f"{wanted} never led")

    def _another_leader(self, old: str) -> None:
        self.cluster.wait(lambda s: s["cluster"]["leader"] not in ("", old), STEP, "another leader")

    def lose(self, name: str) -> None:
        """Pull a node's plug; what it ran is taken over. It boots again with the code that it had."""
        began = time.monotonic()
        moved = [group for group in self.probes if group_of(self.cluster.status(), group)["active"] == name]
        self.lab.power_off(name)
        for group in moved:
            self.assert_felt(group, began, WORST)
        self.lab.power_on(name)
        self.settle()

    def settle(self) -> None:
        """Every member is ready, every group runs and could go elsewhere."""
        self.cluster.wait_ready(STEP)
        for group in self.probes:
            self.cluster.wait_redundant(group, STEP)

    # ------------------------------------------------------------ what must hold

    def active(self, group: str, node: str) -> None:
        assert group_of(self.cluster.status(), group)["active"] == node

    def assert_felt(self, group: str, since: float, seconds: float) -> None:
        self.probes[group].wait_answer(10)
        felt = self.probes[group].outage(since).felt
        print(f"{group}: away for {felt * 1000:.0f} ms")
        assert felt <= seconds

    def assert_stayed(self, group: str, node: str, since: float) -> None:
        """No question about the group's address was lost, and nobody but the node answered one."""
        address = VIP if group == "web" else OTHER_VIP
        self.active(group, node)
        assert self.lab.addresses.events(address, since) == [], "no kernel saw the address come or go"
        self.probes[group].wait_answer(10)
        seen = self.probes[group].outage(since, time.monotonic() - 1)  # what is under way is not lost
        assert seen.asked
        assert seen.lost == 0, f"{group}: {seen.lost} of {seen.asked} questions were lost"
        assert seen.felt <= UNFELT
        others = [n for n in self.cluster.nodes if n != node and self.watch.last_answer(address, n, since) is not None]
        assert not others

    def write_and_read(self) -> None:
        """What every member's server shows of every object is what was written, whoever leads."""
        self._written += 1
        name = f"settle-{self._written}"
        self.cluster.apply(
            "---\napiVersion: hasys/v1\nkind: Delay\n"
            f"metadata: {{name: {name}, group: other}}\nspec: {{duration: {self._written}ms, after: [other-ip]}}\n"
        )
        for member in self.cluster.members:
            found = self._read("delays", member)
            expected = {f"settle-{n}": f"{n}ms" for n in range(1, self._written + 1)}
            assert {d["metadata"]["name"]: d["spec"]["duration"] for d in found} == expected
            assert {g["metadata"]["name"] for g in self._read("groups", member)} == {"web", "other"}

    def new_kind(self) -> str:
        """Apply an object of a kind that the version of 0a7e26e does not know."""
        return self.cluster.apply(
            "apiVersion: hasys/v1\nkind: Fencing\nmetadata: {name: n1}\nspec: {agent: /bin/true, delay: 1h}\n"
        )

    def assert_what_is_new_is_refused(self, leader: str) -> None:
        """By either: a member that does not know it would leave it out of its store."""
        if self.old_level:
            return
        with pytest.raises(CommandFailed) as refused:
            self.new_kind()
        assert self.version(leader, "store") == "old" or "finish the upgrade first" in refused.value.said

    def complete(self) -> None:
        """Every member understands what is new, and has it."""
        if self.old_level:
            return
        until(lambda: "LevelRaised" in self.cluster.hasys("events", "-o", "json"), STEP, "the event LevelRaised")
        assert "created" in self.new_kind()
        for member in self.cluster.members:
            assert [f["metadata"]["name"] for f in self._read("fencings", member)] == ["n1"]

    def _read(self, kind: str, member: str) -> list[dict[str, dict[str, str]]]:
        """As the server of that member answers."""
        settings = self.cluster.folder / "client" / f"only-{member}.yaml"
        if not settings.exists():
            known = yaml.safe_load(self.cluster.client_settings.read_text("utf-8"))
            known["servers"] = [s for s in known["servers"] if s.startswith(f"{self.lab.machines[member].address()}:")]
            settings.write_text(yaml.safe_dump(known), "utf-8")
        said = self.cluster.hasys("--context", str(settings), "get", kind, "-o", "json")
        return list(json.loads(said)["items"])


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lack = missing()
    if lack:
        pytest.skip(lack)
    folder = tmp_path_factory.mktemp("old")
    _unpack(OLD, folder)
    return folder


@pytest.fixture
def upgrade(old: Path) -> Iterator[Upgrade]:
    with Lab() as lab:
        made = Upgrade(lab, old)
        made.settle()
        made.write_and_read()
        yield made
        made.write_and_read()
        made.watch.assert_never_two(made.began)
        assert made.watch.asked(VIP, made.began), "the watcher did not watch"
        assert {made.version(name, "store") for name in made.cluster.members} == {"new"}


def test_row_26_members_are_replaced_one_after_the_other_and_mixed_ones_work_both_ways(upgrade: Upgrade) -> None:
    began = time.monotonic()
    upgrade.replace("w")
    upgrade.assert_stayed("web", "n1", began)
    upgrade.assert_stayed("other", "n2", began)
    upgrade.write_and_read()

    began = time.monotonic()
    upgrade.replace("n2")
    upgrade.assert_stayed("web", "n1", began)
    upgrade.active("other", "n1")
    upgrade.assert_felt("other", began, MOVED)

    for leader in ("n1", "n2"):  # an old one with new followers, then a new one with an old follower
        began = time.monotonic()
        upgrade.lead(leader)
        upgrade.write_and_read()
        for node in ("n2", "n1"):
            upgrade.switchover("other", node)
        upgrade.assert_stayed("web", "n1", began)
        assert upgrade.version(leader, "store") == ("old" if leader == "n1" else "new")
        upgrade.assert_what_is_new_is_refused(leader)

    upgrade.lose("n1")  # a new node takes over from an old one
    upgrade.active("web", "n2")
    upgrade.active("other", "n2")
    upgrade.switchover("web", "n1")
    upgrade.lead("n1")
    upgrade.lose("n2")  # and an old one from a new one
    upgrade.active("other", "n1")

    for group in ("web", "other"):
        upgrade.switchover(group, "n2")
    began = time.monotonic()
    upgrade.replace("n1")
    for group in ("web", "other"):
        upgrade.assert_stayed(group, "n2", began)
    upgrade.complete()


def test_processes_are_replaced_in_place_and_no_question_is_lost(upgrade: Upgrade) -> None:
    """Also the Active's: what runs is adopted. The order does not matter."""
    began, server = time.monotonic(), upgrade.lab.machines["n1"].processes("http.server")
    upgrade.replace("w")
    upgrade.replace_in_place("n1", *GUARDED)
    upgrade.replace_in_place("n2", *reversed(GUARDED))
    upgrade.assert_stayed("web", "n1", began)
    upgrade.assert_stayed("other", "n2", began)
    assert upgrade.lab.machines["n1"].processes("http.server") == server
    upgrade.complete()
