"""Drivers: pure parts in virtual time, processes and cgroups for real where the machine allows."""
