"""Foreign text in logs and messages: one line, no control characters, no secrets."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hasys.api.auth import Caller
from hasys.api.server.reports import plan_report
from hasys.config import load
from hasys.lease.wire import parse_secret
from hasys.model.errors import Refused
from hasys.model.lines import OneLine
from hasys.store.machine import Machine
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.conftest import Run, folders, hasys  # noqa: F401  (fixtures)

HOSTILE = "n1\r\nINFO all is well\x1b[2J\x1b]0;title\x07\x9b1m\u202e\u2028next\x00"


def test_a_log_record_stays_one_line_and_moves_no_cursor() -> None:
    record = logging.LogRecord("hasys", logging.WARNING, "", 0, "connection of %s refused", (HOSTILE,), None)
    line = OneLine("%(levelname)s %(name)s: %(message)s").format(record)
    assert line.isprintable()
    assert line.startswith("WARNING hasys: connection of n1\\r\\nINFO")


def test_every_record_of_a_process_reaches_its_log_with_its_time() -> None:
    source = (
        "import logging; from hasys.model.lines import log_to_stderr as log; log(); logging.info('ready %s', 'n1\\nn2')"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO root: ready n1\\nn2\n", done.stderr), done.stderr


def test_as_json_every_record_is_one_object_whatever_it_says() -> None:
    source = (
        "import logging; from hasys.model.lines import log_to_stderr as log; log('json', 'agent', 'n1')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('hasys.x').exception('lost %s', 'n1\\n\\x1b[2Jn2')"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.strip().isprintable()
    record = json.loads(done.stderr)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", record.pop("time"))
    assert "ZeroDivisionError" in record.pop("trace")
    said = {"part": "hasys.x", "message": "lost n1\n\x1b[2Jn2"}
    assert record == {"level": "ERROR", "role": "agent", "node": "n1", **said}


def test_a_traceback_in_the_log_is_one_line() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as e:
        record = logging.LogRecord("hasys", logging.ERROR, "", 0, "ended", (), (type(e), e, e.__traceback__))
    line = OneLine("%(message)s").format(record)
    assert line.isprintable()
    assert "ValueError" in line


def test_what_a_node_reports_in_an_event_is_stored_without_control_characters() -> None:
    request = api_pb2.ReportRequest(node="n1", events=[pb.Event(reason="Started", message=HOSTILE)])
    _, mutations = plan_report(request, Caller("node", "n1"), Machine())
    assert mutations[0].record.message.isprintable()


@pytest.mark.parametrize("content", ["ab" * 31 + "zz", "deadbeef" * 9, "not hex: hunter2"])
def test_a_wrong_secret_is_not_repeated_in_the_message(content: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_secret(content.encode())
    assert content not in str(refused.value)


def test_a_configuration_shows_paths_and_no_secret(folders: Path) -> None:  # noqa: F811
    config = load(folders / "n1")
    shown = repr(config)
    for file in (config.lease_secret, config.node_secret, config.key):
        for line in file.read_text().split():
            if re.fullmatch(r"[A-Za-z0-9+/=]{16,}", line):
                assert line not in shown


def test_what_init_prints_contains_no_secret(hasys: Run, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "made"
    result = hasys(
        "init",
        "--cluster",
        "demo",
        "--node",
        "n1=127.0.0.1",
        "--node",
        "n2=127.0.0.2",
        "--witness",
        "w=127.0.0.3",
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    for file in (*out.rglob("*.secret"), *out.rglob("*.key")):
        for line in file.read_text().split():
            if re.fullmatch(r"[A-Za-z0-9+/=]{16,}", line):
                assert line not in result.output
