"""`python -m core.doctor [-o json]`: is this installation well, and if not, what is to be done.

Exit code 0: it is; 1: it is not; 2: wrong call or setting.
"""

import asyncio
import json
import sys
from dataclasses import asdict

from core import checkup
from core.errors import SettingError
from core.process_protection import protect


async def examine(*, as_json: bool) -> int:
    """Print what each check finds; the exit code."""
    found = []
    async for finding in checkup.everything():
        found.append(finding)
        if not as_json:
            _tell(finding)
    ill = [finding for finding in found if not finding.ok]
    if as_json:
        sys.stdout.write(json.dumps({"ok": not ill, "checks": [asdict(finding) for finding in found]}, indent=2) + "\n")
    else:
        sys.stdout.write("all is well\n" if not ill else f"{len(ill)} of {len(found)} checks failed\n")
    return 1 if ill else 0


def _tell(finding: checkup.Finding) -> None:
    green, red, plain = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
    mark = f"{green}ok  {plain}" if finding.ok else f"{red}FAIL{plain}"
    sys.stdout.write(f"{mark} {finding.name:<12} {finding.says}\n")
    if finding.fix:
        sys.stdout.write(f"{'':17} fix: {finding.fix}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Examine the installation that the settings name."""
    if arguments not in ([], ["-o", "json"], ["-o", "table"]):
        sys.stderr.write("usage: python -m core.doctor [-o table|json]\n")
        return 2
    try:
        protect()
        return asyncio.run(examine(as_json=arguments == ["-o", "json"]))
    except SettingError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
