"""The guard: keeps this node's lease, opens and closes the gate, fences. Small enough to trust; it outlives the agent.

Read in this order: :mod:`core` (what a grant, a plan, a failure lead to), :mod:`gate` (the lease of an address, which
the kernel keeps) with :mod:`ruleset` and :mod:`elements`, :mod:`fence`, :mod:`plan` (what survives a restart),
:mod:`protocol` and :mod:`desk` (the agent's requests), :mod:`main` (the process). The agent imports :mod:`client` and
:mod:`protocol` alone.
"""
