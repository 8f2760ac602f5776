"""Everything that must pass: `python -m tests`. Further arguments go to pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHECKS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["pytest", "-n", "2", "-q", *sys.argv[1:]],
)


def main() -> int:
    for arguments in CHECKS:
        print("$ python -m", *arguments, flush=True)
        code = subprocess.call([sys.executable, "-m", *arguments], cwd=ROOT)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
