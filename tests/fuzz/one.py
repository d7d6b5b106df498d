"""One target under the fuzzer, in a process of its own: ``python -m tests.fuzz.one TARGET CORPUS OPTION...``."""

from __future__ import annotations

import importlib
import logging
import sys

atheris = importlib.import_module("atheris")  # installed by `make fuzz` alone: nothing else may need it

with atheris.instrument_imports(include=["hasys", "yaml", "json"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Never returns: the fuzzer ends the process."""
    logging.disable()
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
