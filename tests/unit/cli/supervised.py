"""A supervisor over tiny children, run as a process of its own by the tests: RUN_DIR [child commands as JSON]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hasys.cli.supervisor import Plan, Role, Supervisor


def main() -> int:
    settings = json.loads(sys.argv[1])
    run_dir = Path(settings["run_dir"])
    child = [sys.executable, str(Path(__file__).with_name("tiny_child.py")), str(run_dir)]
    roles = [
        Role(name, [*child, name, *settings["modes"].get(name, [])], 0.3, **settings.get("more", {}).get(name, {}))
        for name in settings["roles"]
    ]
    hand_over = [*child, "hand-over", *settings["modes"]["hand-over"]] if "hand-over" in settings["modes"] else []
    return Supervisor(Plan(roles, run_dir, hand_over)).run()


if __name__ == "__main__":
    sys.exit(main())
