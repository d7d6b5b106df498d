"""Settings, output, records, cgroup discovery: the small parts that drivers share."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from hasys.resources import output, process, settings
from hasys.resources.cgroup import Cgroup, find_mount
from hasys.resources.output import Outputs
from hasys.resources.port import Permanent
from hasys.resources.records import Records
from hasys.v1 import objects_pb2 as pb


def test_an_absent_setting_has_the_default_of_the_schema() -> None:
    spec = pb.ApplicationSpec()
    assert settings.retries(spec.restart) == 3
    assert settings.seconds(spec.restart, "start_time") == 1.0
    assert settings.seconds(spec.restart, "backoff") == 0.5
    assert settings.seconds(spec.run, "stop_timeout") == 10.0
    assert settings.text(spec.run, "stop_signal") == "SIGTERM"
    assert settings.seconds(pb.DelaySpec(), "duration") == 0.0


def test_a_written_zero_is_not_a_default() -> None:
    spec = pb.ApplicationSpec(restart=pb.Restart(retries=0))
    spec.restart.backoff.FromSeconds(0)
    assert settings.retries(spec.restart) == 0
    assert settings.seconds(spec.restart, "backoff") == 0.0


def test_an_interface_per_node_wins_over_the_one_for_all() -> None:
    both = pb.VirtualIPSpec(interface=pb.Interface(name="eth0", per_node={"n2": "ens3"}))
    assert settings.interface_on(both, "n1") == "eth0"
    assert settings.interface_on(both, "n2") == "ens3"
    assert settings.interface_on(pb.VirtualIPSpec(), "n1") == ""


@pytest.mark.parametrize("spelling", ["SIGUSR1", "usr1", "USR1", str(int(signal.SIGUSR1))])
def test_a_signal_has_several_spellings(spelling: str) -> None:
    assert process.signal_number(spelling) == signal.SIGUSR1


@pytest.mark.parametrize("spelling", ["SIGNOTHING", "0", "99", ""])
def test_what_is_no_signal_is_refused(spelling: str) -> None:
    with pytest.raises(Permanent, match="is no signal"):
        process.signal_number(spelling)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit status 0"),
        (-9, "killed by SIGKILL"),
        (-64 - 99, "killed by signal 163"),
        (127, "exit status 127 (the command was not found)"),
        (None, "ended"),
    ],
)
def test_the_end_of_a_process_is_put_into_words(code: int | None, words: str) -> None:
    assert process.ended(code) == words


def test_a_tail_is_bounded_in_bytes_whatever_the_program_printed(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes("ä€".encode() * 10_000 + b"\xff\xfe\0")
    tail = output.tail(file)
    assert 0 < len(tail.encode()) <= output.TAIL
    assert "\0" not in tail
    assert output.tail(tmp_path / "none") == ""


def test_the_last_line_skips_empty_ones(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("first\nlast \n\n  \n")
    assert output.last_line(file) == "last"


def test_what_is_kept_of_a_flood_are_whole_lines_from_its_end(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path)
    file = outputs.file("web", "app")
    lines = [f"{n:07}\n" for n in range(output.CUT_ABOVE)]
    with output.pipe_of(file).open("w") as pipe:
        for begin in range(0, len(lines), 1000):
            pipe.writelines(lines[begin : begin + 1000])
            pipe.flush()
            outputs.drain(file)
            assert file.stat().st_size <= output.CUT_ABOVE
    kept = file.read_text().splitlines()
    assert kept[-1] == f"{output.CUT_ABOVE - 1:07}"
    assert all(len(line) == 7 for line in kept)
    outputs.forget_group("web")


def test_a_removed_pipe_is_made_anew(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "output")
    outputs.file("web", "app")
    shutil.rmtree(tmp_path / "output")
    file = outputs.file("web", "app")
    with output.pipe_of(file).open("w") as pipe:
        pipe.write("here\n")
    outputs.drain(file)
    assert output.tail(file) == "here\n"
    outputs.forget_group("web")


def test_a_record_of_another_boot_says_nothing(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write("web", "app", {"pid": 7})
    assert records.read("web", "app") == {"pid": 7, "boot": records.boot}
    records.boot = "another"
    assert records.read("web", "app") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_record_says_nothing(tmp_path: Path, content: bytes) -> None:
    records = Records(tmp_path)
    records.write("web", "app", {})
    (tmp_path / "web" / "app.json").write_bytes(content)
    assert records.read("web", "app") is None


def test_the_cgroup_mount_is_found_and_its_absence_is_named(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
    assert find_mount(mounts) == Path("/sys/fs/cgroup/unified")
    mounts.write_text("cgroup2 /bare/sys/fs/cgroup cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert find_mount(mounts) == Path("/sys/fs/cgroup")
    mounts.write_text("cgroup2 /cg\\040roups cgroup2 rw 0 0\n")
    assert find_mount(mounts) == Path("/cg roups")
    mounts.write_text("")
    with pytest.raises(Permanent, match="cgroup2 is not mounted"):
        find_mount(mounts)


def test_a_missing_cgroup_is_empty(tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path / "none")
    assert (cgroup.populated(), cgroup.pids(), list(cgroup.children())) == (False, [], [])
