"""The API server inside every store process."""

from hasys.api.server.serving import ApiServer

__all__ = ["ApiServer"]
