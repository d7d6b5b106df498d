"""Simulation of the whole store: the real core, journal, state machine, watch hub and lease protocol of 3 and 5 nodes.

One process, virtual time; network, disks, processes and clocks fail as the seed's plan says. Every step is checked.
``python -m tests.sim.store --minutes 10 --seed 1`` runs histories; a seed replays exactly (see ``__main__``).
"""
