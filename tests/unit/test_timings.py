"""What a profile's name means, what may be chosen, and what was stored before: over every version the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.api.convert import settle_timing, timing_of
from hasys.api.validation import check_objects
from hasys.config import NodeConfig, load
from hasys.model.errors import ConfigRefused
from hasys.model.timing import BY_NAME, PROFILES, Timing
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb

ALONE = {
    "default": Timing(1.0, 0.115, 0.15, 0.35, 0.37, 0.49, 0.01, 0.02, 0.1),
    "fast": Timing(0.5, 0.04, 0.06, 0.13, 0.15, 0.24, 0.005, 0.01, 0.05),
    "wan": Timing(5.0, 0.4, 0.6, 1.4, 1.6, 2.6, 0.3, 0.1, 0.25),
}
"""Never to be changed: clusters have these names stored without figures, and members of other versions read them so."""
MEMBER = "cluster: c\nclusterId: c1\nnode: n1\nmembers:\n- {name: n1, addresses: [127.0.0.1]}\n"


def config(folder: Path, written: str) -> NodeConfig:
    for secret in ("node.key", "node.secret"):
        (folder / secret).touch(mode=0o600)
    (folder / "node.yaml").write_text(f"{MEMBER}{written}\n")
    return load(folder)


def spec(profile: str, **own: int) -> pb.ClusterSpec:
    """Own figures in milliseconds."""
    made = pb.ClusterSpec(profile=profile)
    for name, value in own.items():
        getattr(made.timing, name).FromMilliseconds(value)
    return made


@pytest.mark.parametrize("profile", PROFILES)
def test_a_name_that_stands_alone_means_what_it_always_meant(profile: str, tmp_path: Path) -> None:
    assert timing_of(spec(profile)) == BY_NAME[profile] == ALONE[profile]
    assert config(tmp_path, f"profile: {profile}").seed_timing() == ALONE[profile]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_may_be_chosen_and_is_stored_with_its_figures(profile: str) -> None:
    wanted = spec(profile)
    settle_timing(wanted, None)
    assert timing_of(wanted).admit() == PROFILES[profile]


def test_what_a_version_that_asked_less_has_stored_goes_on_and_cannot_be_chosen_anew() -> None:
    stored = spec("default", ttl=1500, heartbeat=100, keepalive=300, leader_fallback=350)
    assert timing_of(stored).keepalive == 0.3
    wanted = pb.Object(cluster=pb.Cluster(metadata=pb.Metadata(name="c"), spec=stored))
    found = {fault.field: fault.message for fault in check_objects([wanted], Machine())}
    assert found["spec.timing"] == "timing: 2 x keepalive = 600ms must be below leader_fallback = 350ms"


def test_own_figures_are_judged_over_the_profile_of_this_version() -> None:
    wanted = spec("default", ttl=1000)
    settle_timing(wanted, None)
    assert len(wanted.timing.ListFields()) == 1, "nothing is written out of what cannot be"
    found = check_objects([pb.Object(cluster=pb.Cluster(metadata=pb.Metadata(name="c"), spec=wanted))], Machine())
    assert any(fault.field == "spec.timing" and "= 987.5ms must be below" in fault.message for fault in found)


@pytest.mark.parametrize("timing", PROFILES.values(), ids=list(PROFILES))
def test_whatever_periods_a_longer_ttl_had_a_guard_that_keeps_them_is_not_called_silent(timing: Timing) -> None:
    slowest = replace(timing, ttl=20.0, keepalive=5.0).check()
    patient = timing.patient(slowest.ttl)
    assert patient.suspicion > slowest.keepalive
    assert patient.leader_fallback > 2 * slowest.keepalive


def test_figures_of_node_yaml_lie_over_the_profile(tmp_path: Path) -> None:
    figures = "timing: {ttl: 5.5s, leaderFallback: 1.5s, keepalive: 570ms}"
    timing = config(tmp_path, f"profile: wan\nwatchdog: {{mode: auto, timeout: 11s}}\n{figures}").seed_timing()
    assert timing == replace(PROFILES["wan"], ttl=5.5, leader_fallback=1.5, keepalive=0.57)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("timing: 3", "timing: expected a mapping of ttl, heartbeat, "),
        ("timing: {TTL: 1s}", "timing: expected a mapping of ttl, heartbeat, "),
        ("timing: {ttl: soon}", "timing.ttl: 'soon' is no duration: write it like 500ms"),
        ("timing: {ttl: 1}", "timing.ttl: expected text, got 1"),
        ("timing: {ttl: 300ms}", "timing: heartbeat + keepalive + election_max"),
    ],
)
def test_figures_that_mean_nothing_are_refused_with_their_field(tmp_path: Path, written: str, why: str) -> None:
    with pytest.raises(ConfigRefused, match=re.escape(why)):
        config(tmp_path, written)
