"""Who should run what. Pure: values in, values out; no clock, no socket, no memory.

``decide(view, now)`` (decide.py) is the only entry. In the order a reader wants them:

- ``policy.py``      the role table: situation x policy -> outcome
- ``groups.py``      one function per outcome; moves in progress; phases and their events
- ``operations.py``  operators' commands: checked, begun, ended
- ``members.py``     states of nodes
- ``standing.py``    when a node counts as Ready or lost; ``choice.py`` which node is taken
- ``phase.py``, ``roles.py``  what people see; ``flow.py`` the order of resources
- ``effects.py``, ``draft.py``  what a decision is made of

The picture it looks at is ``hasys.model.view``; ``hasys/store/controllers.py`` makes it and writes the effects.
Every rule is told as a story in ``tests/scenarios/data``.
"""
