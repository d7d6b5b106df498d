"""Timelines of ``hasys history GROUP``: for people, for scripts, and as an SVG picture that reads in light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from hasys.api.convert import duration, show_duration, show_time
from hasys.api.timeline import Mark, Timeline
from hasys.model.lines import one_line

TIMELINE_COLUMNS = ("  OFFSET", "LASTED", "NODE", "WHAT")


def title(line: Timeline) -> str:
    """What the timeline tells, in one line."""
    route = f"from {line.previous} to {line.node}" if line.previous not in ("", line.node) else f"on {line.node}"
    end = "not finished" if line.ended is None else f"{'done' if line.well else 'not served'} after {_ms(line.ended)}"
    split = f"; the leader changed in between: clocks of {_clocks(line)}" if len(line.clocks) > 1 else ""
    return f"{line.group}: {line.what} {route}, epoch {line.epoch}, {_time(line)}: {end}{split}"


def timeline_rows(line: Timeline) -> Iterator[list[str | Text]]:
    """One row per mark, for a table."""
    for mark in line.marks:
        lasted = _ms(mark.lasted) if mark.lasted else ""
        yield [Text(f"{'+' + _ms(mark.begin):>10}"), Text(f"{lasted:>9}"), Text(mark.node or "-"), Text(mark.what)]


def timeline_json(line: Timeline) -> dict[str, Any]:
    """For scripts."""
    return {
        "group": line.group,
        "epoch": line.epoch,
        "what": line.what,
        "from": line.previous,
        "to": line.node,
        "cause": line.cause,
        "actor": line.actor,
        "begun": _time(line),
        "decided": _ms(line.decided),
        "ended": "" if line.ended is None else _ms(line.ended),
        "served": line.well,
        "clocks": list(line.clocks),
        "marks": [
            {"offset": _ms(m.begin), "end": _ms(m.end), "node": m.node, "reason": m.reason, "what": m.what}
            for m in line.marks
        ],
    }


def _ms(seconds: float) -> str:
    """To the tenth of a millisecond below ten of them, else to the millisecond."""
    return show_duration(duration(round(max(0.0, seconds), 4 if abs(seconds) < 0.01 else 3)))


def _time(line: Timeline) -> str:
    stamp = Timestamp()
    stamp.FromNanoseconds(line.begun)
    return show_time(stamp)


def _clocks(line: Timeline) -> str:
    return ", ".join(clock or "the node itself" for clock in line.clocks)


# ---------------------------------------------------------------- the picture
WIDTH, LEFT, RIGHT, ROW = 1000, 430, 90, 22
"""Pixels: whole width, the text's part, room for the last figure, height of a row."""
LATE = 2.0
"""What comes later than this many times the end stands at the edge, so that the rest keeps its room."""
_STYLE = """\
svg { color-scheme: light dark; font: 13px ui-sans-serif, system-ui, sans-serif }
.paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e } .grid { stroke: #d1d9e0 }
.noticing { fill: #cf5d12 } .step { fill: #0969da } .moment { fill: #1f2328 }
.end { fill: #1a7f37 } .bad { fill: #cf222e }
.head { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d }
  .noticing { fill: #f0883e } .step { fill: #4493f8 } .moment { fill: #e6edf3 }
  .end { fill: #3fb950 } .bad { fill: #f85149 }
}"""
_KINDS = {"Detected": "noticing", "GroupRunning": "end", "GroupDegraded": "end", "FirstAnswer": "end"}
_BAD = ("GroupFailed", "GroupBlocked", "ResourceFailed", "MonitorFailed", "Fenced")


def picture(lines: Sequence[Timeline]) -> str:
    """All timelines below one another, each with its own scale. Nothing in it comes from elsewhere; it runs nothing."""
    parts, top = [], 0
    for line in lines:
        height = ROW * (len(line.marks) + 2) + 14
        parts.append(f'<g transform="translate(0 {top})">\n{_drawn(line, height)}</g>')
        top += height
    if not lines:
        top, parts = 2 * ROW, [_text(12, ROW, "ink", "no change of its node is recorded")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" role="img">\n'
        f"<title>{_safe('; '.join(map(title, lines)) or 'no timeline')}</title>\n<style>\n{_STYLE}\n</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{top}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _drawn(line: Timeline, height: int) -> str:
    near = LATE * (line.ended or line.marks[-1].end)
    longest = max(mark.end for mark in line.marks if mark.end <= near) or 0.001
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts = [_text(12, ROW - 4, "ink head", title(line), 130)]
    for tick in _ticks(longest):
        x = LEFT + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{2 * ROW - 4}" y2="{height - 14}"/>')
        parts.append(_text(x, 2 * ROW - 8, "faint", _ms(tick) if tick else "0", anchor="middle"))
    for number, mark in enumerate(line.marks):
        parts.append(_bar(mark, (number + 2) * ROW, scale))
    return "\n".join(parts) + "\n"


def _bar(mark: Mark, y: int, scale: float) -> str:
    width = max(3.0, mark.lasted * scale)
    x = min(LEFT + mark.begin * scale, WIDTH - RIGHT - width)
    kind = "bad" if mark.reason in _BAD else _KINDS.get(mark.reason, "step" if mark.lasted else "moment")
    figure = f"{_ms(mark.begin)}, {_ms(mark.lasted)} long" if mark.lasted else _ms(mark.begin)
    beside = x + width + 5
    return "\n".join((
        _text(12, y + 15, "faint", mark.node, 10),
        _text(80, y + 15, "ink", mark.what, 54),
        f'<rect class="{kind}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}" rx="2">'
        f"<title>{_safe(f'{mark.what}: {figure}')}</title></rect>",
        _text(beside, y + 15, "faint", _ms(mark.lasted) if mark.lasted else _ms(mark.begin))
        if beside < WIDTH - RIGHT else _text(x - 5, y + 15, "faint", _ms(mark.begin), anchor="end"),
    ))  # fmt: skip


def _ticks(longest: float) -> Iterator[float]:
    """Round times: four to ten of them."""
    step = 0.0001
    for factor in (2, 2.5, 2) * 12:
        if longest / step <= 8:
            break
        step *= factor
    count = int(longest / step) + 1
    yield from (number * step for number in range(count))


def _text(x: float, y: float, kind: str, text: str, longest: int = 0, anchor: str = "") -> str:
    shown = text if not longest or len(text) <= longest else text[: longest - 1] + "…"
    where = f' text-anchor="{anchor}"' if anchor else ""
    more = f"<title>{_safe(text)}</title>" if shown != text else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{where}>{_safe(shown)}{more}</text>'


def _safe(text: str) -> str:
    return escape(one_line(text))
