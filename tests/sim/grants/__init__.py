"""Simulation of the lease protocol: the real Granter and Keeper between modelled stores, kernels, clocks and networks.

``python -m tests.sim.grants --seconds 60 --seed 1`` runs histories; a seed replays exactly.
"""
