"""`python -m core.embedded start|stop|clean [directory]`: the servers by hand, for development."""

from __future__ import annotations

import sys
from pathlib import Path

from core.embedded import start, stop
from core.errors import TaskFlowError


def main(arguments: list[str]) -> int:
    """Do what is asked; the exit code."""
    match arguments:
        case ["start", *rest]:
            servers = start(Path(*rest or [".taskflow"]), postgres=True, redis=True)
            for name, value in servers.env().items():
                sys.stdout.write(f"export {name}='{value}'\n")
        case ["stop", *rest]:
            stop(Path(*rest or [".taskflow"]))
        case ["clean", *rest]:
            stop(Path(*rest or [".taskflow"]), delete=True)
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TaskFlowError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(2)
