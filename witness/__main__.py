"""``hasys-witness --config DIR/w/node.yaml``: the store role alone, one process, no root, no supervisor.

Under systemd (hasys-witness.service beside this file) the init system restarts it; ``hasys witness run`` does the same
in the foreground with a supervisor of its own.
"""

from __future__ import annotations

import sys

from hasys.config import load
from hasys.model.errors import ConfigRefused, HasysError

USAGE = "usage: hasys-witness --config FILE   (node.yaml of the witness, as 'hasys init' wrote it)"


def main() -> int:
    """Run until SIGTERM. Exit status: 0 stopped, 1 refused or failed, 2 wrong usage."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(USAGE + "\n")
        return 0
    if len(arguments) != 2 or arguments[0] != "--config":
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        config = load(arguments[1])
        if config.me.role != "Witness":
            raise ConfigRefused(f"{config.path}: {config.name} is no witness: use 'hasys node run'")
        from hasys.store.main import run  # after the checks: a refusal answers at once

        run(config)
    except HasysError as e:
        sys.stderr.write(f"hasys-witness: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
