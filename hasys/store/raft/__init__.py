"""The embedded consensus engine: PySyncObj's Raft core, with journal, transport and timers of our own around it."""
