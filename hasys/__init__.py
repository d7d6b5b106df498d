"""hasys: consensus-backed failover for two servers and a witness."""

__version__ = "0.1.0"
"""The same as in pyproject.toml; here because reading it from there costs the guard 3 MB of locked memory."""
