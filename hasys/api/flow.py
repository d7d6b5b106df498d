"""The arrows of ``after``: is the flow of a group free of circles?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def find_cycle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle among ``name -> names it comes after``, closed (first name again at the end), or an empty list. Names
    without an entry are ignored. The same input always gives the same circle."""
    done: set[str] = set()
    for start in sorted(arrows):
        path: list[str] = []
        on_path: set[str] = set()
        stack = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif name in on_path:
                return [*path[path.index(name) :], name]
            elif name not in done and name in arrows:
                path.append(name)
                on_path.add(name)
                stack.append((name, True))
                stack.extend((other, False) for other in sorted(arrows[name], reverse=True))
    return []
