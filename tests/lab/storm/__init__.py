"""Faults at random, two and three at once, on a live cluster; whatever happens, the promises hold (``make chaos``)."""
