"""The built package: sdist to wheel, what is in it, and that it works where no checkout is."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, with the build requirements of the environment."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_descriptors_types_and_notices(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("_envoy.bin", "proto.pyi", "py.typed", "proto.py"):
        assert f"appmesh_xds/{name}" in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert all(name.startswith(("appmesh_xds/", "appmesh_xds-")) for name in names)


def test_the_sdist_holds_sources_only(wheel: Path) -> None:
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "protos/envoy.txt" in names
    assert "protos/build.py" in names
    assert "appmesh_xds/_envoy.bin" not in names


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import appmesh_xds; from appmesh_xds import proto\n"
        f"assert appmesh_xds.__file__.startswith({str(tmp_path)!r})\n"
        "print(proto.Listener(name='x').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "x\n", done.stderr
