"""Machines out of Linux namespaces, with faults on demand and witnesses who cannot be fooled.

Used by ``hasys demo``, by tests/lab and by bench/. Nothing here touches the host's own network: switch, machines and
client live in namespaces of their own, named after the lab. Everything needs root.

========================  ==============================================================================
:mod:`hasys.lab.lab`      a lab: the switch, its machines, the client, and their removal
:mod:`hasys.lab.machine`  one machine: power, processes, freezing, usage
:mod:`hasys.lab.switch`   two networks, cables, silent drops, partitions
:mod:`hasys.lab.probe`    what a client sees: one question each 5 ms (a process of its own)
:mod:`hasys.lab.watch`    who holds an address: each machine asked by its MAC address (a process of its own)
:mod:`hasys.lab.verdict`  pure: outage and two-holder judgement over what those two recorded
:mod:`hasys.lab.cluster`  a hasys cluster in a lab
========================  ==============================================================================
"""
