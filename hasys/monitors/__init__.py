"""Monitors: what is watched beside a group's own resources, and what follows when it is not well.

- ``port.py``         what a monitor is given, and what it finds
- ``evaluation.py``   from findings to states and actions: counters, start delay, restarts, recovery. Pure
- ``watcher.py``      the task of one monitor: looks at its interval, within its timeout, and never twice at once
- ``catalogue.py``    which check serves which spec
- one file per check; each looks once and says what it found

A check may hang: it is cancelled at its timeout and counts as failed. Only checks that cannot block run in the event
loop; the others run in threads that are left behind, or in processes that are killed.
"""
