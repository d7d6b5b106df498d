"""``hasys history GROUP``: text, JSON and picture of a failover."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from tests.unit.api.test_timeline import lost_node
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster

SVG = "{http://www.w3.org/2000/svg}"


def fill(cluster: FakeCluster) -> None:
    for number, event in enumerate(lost_node()):
        event.metadata.name, event.metadata.resource_version = f"e{number}", number + 1
        cluster.put(event)


def test_the_text_shows_each_part_with_its_offset(hasys: Run, cluster: FakeCluster) -> None:
    fill(cluster)
    printed = hasys("history", "web").stdout
    assert "web: failover from n1 to n2, epoch 2, 2023-11-14T22:13:20.000Z: done after 1.2s" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["+700ms", "n3", "decided:", "failover", "from", "n1", "to", "n2"] in lines
    assert ["+1.01s", "50ms", "n2", "web-ip", "starts"] in lines


def test_without_a_group_there_is_the_list_alone(hasys: Run, cluster: FakeCluster) -> None:
    fill(cluster)
    assert "decided" not in hasys("history").stdout


def test_json_has_the_timeline_at_the_row_that_began_it(hasys: Run, cluster: FakeCluster) -> None:
    fill(cluster)
    rows = {row["what"]: row for row in json.loads(hasys("history", "web", "-o", "json").stdout)}
    line = rows["FailoverStarted"]["timeline"]
    assert (line["decided"], line["ended"], line["served"], line["clocks"]) == ("700ms", "1.2s", True, ["n3"])
    assert line["marks"][4] == {
        "offset": "1.01s", "end": "1.06s", "node": "n2", "reason": "ResourceStarted", "what": "web-ip starts",
    }  # fmt: skip
    assert "timeline" not in rows["GroupRunning"]


def test_the_picture_is_whole_reads_in_the_dark_and_fetches_nothing(
    hasys: Run, cluster: FakeCluster, tmp_path: Path
) -> None:
    fill(cluster)
    file = tmp_path / "web.svg"
    assert hasys("history", "web", "--svg", str(file)).exit_code == 0
    tree = ElementTree.parse(file).getroot()
    bars = [r for r in tree.iter(f"{SVG}rect") if r.get("class") != "paper"]
    assert len(bars) == 3 + 8, "a bar for each mark of both timelines"
    right = max(float(r.attrib["x"]) + float(r.attrib["width"]) for r in bars)
    assert 0 < right <= float(tree.attrib["width"])
    text = file.read_text()
    assert "prefers-color-scheme: dark" in text
    assert [tag for tag in ("href", "<script", "<image", "url(", "onload") if tag in text] == []


def test_foreign_text_stays_text_in_the_picture(hasys: Run, cluster: FakeCluster) -> None:
    for event in lost_node():
        event.cause = "</text><script>alert(1)</script>\x1b&"
        event.metadata.name = event.reason + str(event.epoch)
        cluster.put(event)
    printed = hasys("history", "web", "--svg", "-").stdout
    tree = ElementTree.fromstring(printed)
    assert [element.tag for element in tree.iter() if "script" in element.tag] == []
    assert "\\x1b" in printed


def test_a_picture_of_all_groups_is_refused_with_the_mend(hasys: Run, cluster: FakeCluster) -> None:
    result = hasys("history", "--svg", "x.svg")
    assert (result.exit_code, "name it" in result.stderr) == (2, True)
