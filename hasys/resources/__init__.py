"""Drivers: what a resource of each kind does to this machine. The only place that touches addresses and processes.

Each driver implements :class:`hasys.resources.port.Driver`. Drivers know nothing of the store, of groups' assignments
or of other resources: the reconciler decides when they start and stop.
"""
