"""``log`` of node.yaml: form and bounds of what the processes write about themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hasys.config import Log, load
from hasys.model.errors import ConfigRefused

MEMBER = "cluster: c\nclusterId: c1\nnode: n1\nmembers:\n- {name: n1, addresses: [127.0.0.1]}\n"


def settings(folder: Path, written: str) -> Log:
    for secret in ("node.key", "node.secret"):
        (folder / secret).touch(mode=0o600)
    (folder / "node.yaml").write_text(f"{MEMBER}{written}\n")
    return load(folder).log


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", Log("text", 1 << 20, 1)),
        ("log: {format: json}", Log("json", 1 << 20, 1)),
        ("log: {format: json, size: 10MiB, keep: 5}", Log("json", 10 << 20, 5)),
        ("log: {size: 64KiB}", Log("text", 64 << 10, 1)),
    ],
)
def test_the_words_of_the_document_are_understood(tmp_path: Path, written: str, expected: Log) -> None:
    assert settings(tmp_path, written) == expected


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("log: json", "log: expected a mapping with format, size, keep"),
        ("log: {colour: red}", "log.colour: unknown field; known are format, size, keep"),
        ("log: {format: xml}", "log.format: 'xml': use text or json"),
        ("log: {size: 10}", "log.size: expected text, got 10"),
        ("log: {size: 10MB}", "log.size: '10MB': write it like 512KiB or 10MiB"),
        ("log: {size: 1KiB}", "from 64KiB to 100MiB"),
        ("log: {size: 999999MiB}", "from 64KiB to 100MiB"),
        ("log: {keep: 0}", "log.keep: 0: a number of files from 1 to 99"),
        ("log: {keep: yes}", "log.keep: True"),
    ],
)
def test_another_word_is_refused_with_file_field_and_mend(tmp_path: Path, written: str, why: str) -> None:
    with pytest.raises(ConfigRefused, match=re.escape(why)) as refused:
        settings(tmp_path, written)
    assert str(refused.value).startswith(str(tmp_path / "node.yaml"))
