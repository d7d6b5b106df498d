"""Leases: who may act for a group, and until when. Pure; docs/decisions/0001 and 0002."""
