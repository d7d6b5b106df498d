"""The one decision of hasys: given what is known, who should run what. Pure: no clock, no socket, no memory.

Level-based: it looks at the whole picture each time, so a lost wake-up or a lost write costs a moment and nothing else.
It never grants authority. It says who *should* act; the lease layer decides when that node *may*, so a wrong guess
here (a node called lost that lives) costs a move, never two Actives.

Read next: ``policy.py`` for the table, ``groups.py`` for its outcomes, ``operations.py`` for operators' commands.
"""

from __future__ import annotations

from hasys.model.view import View
from hasys.placement import fencing, groups, members, operations, redundancy
from hasys.placement.draft import Draft
from hasys.placement.effects import Decision


def decide(view: View, now: float) -> Decision:
    """What to write, and when to look again. ``now`` is on the clock of the view's times."""
    draft = Draft(view, now)
    for name in sorted(view.nodes):
        members.look(draft, name)
        fencing.look(draft, name)
    for op in view.operations:
        if not op.running:
            operations.begin(draft, op)
    for name in sorted(view.groups):
        groups.look(draft, name)
    for op in view.operations:
        if op.running:
            operations.watch(draft, op)
    redundancy.look(draft)
    return draft.decision()
