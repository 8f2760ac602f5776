"""What importing the library does to a process, which modules may import which, and what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import appmesh_xds

PACKAGE = Path(appmesh_xds.__file__).parent

HEAVY = (
    "boto3",
    "botocore",
    "grpc",
    "cryptography",
    "envoy_data_plane",
    "betterproto2",
    "yaml",
    "re2",
    "google.protobuf",
)
#: Modules that Envoy's generated code would bring along.
TOP_LEVEL = ("envoy", "validate", "xds", "udpa")


def _in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, appmesh_xds; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _in_a_process(code) == "[]\n"


def test_messages_stay_out_of_the_global_pool() -> None:
    code = f"""
import sys
import appmesh_xds
from appmesh_xds import proto
from google.protobuf import descriptor_pool
proto.Listener(name="x")
try:
    descriptor_pool.Default().FindMessageTypeByName("envoy.config.listener.v3.Listener")
    print("in the global pool")
except KeyError:
    print([m for m in {TOP_LEVEL!r} if m in sys.modules])
"""
    assert _in_a_process(code) == "[]\n"


@pytest.mark.parametrize("ours_first", [True, False])
def test_lives_beside_generated_envoy_modules(ours_first: bool) -> None:
    ours = "from appmesh_xds import proto; mine = proto.Listener(name='x')"
    theirs = "from envoy.config.listener.v3 import listener_pb2; other = listener_pb2.Listener(name='x')"
    first, second = (ours, theirs) if ours_first else (theirs, ours)
    code = f"""
{first}
{second}
crossed = proto.into(mine, listener_pb2.Listener)
assert crossed == other and type(crossed) is listener_pb2.Listener
print(proto.into(other, proto.Listener) == mine)
"""
    assert _in_a_process(code) == "True\n"


#: Lower layers first. A module imports from its own layer and from those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "names", "proto", "resource", "options", "wire"),
    ("spec",),
    ("facts",),
    ("mesh",),
    ("resolve",),
    ("envoy",),
    ("render",),
    ("snapshot",),
    ("patch", "reach"),
    ("translator",),
    ("readers",),
    (
        *("bootstrap", "certs", "cloud_map", "convert", "environment", "folders", "fragments"),
        *("secret_files", "writers"),
    ),
    ("lint", "betterproto", "testing", "changes", "trace"),
    ("server",),
    ("cli", "__main__"),
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def _module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their first name."""
    depth = len(path.relative_to(PACKAGE).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found.update(names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("appmesh_xds."):
            found.add((node.module or "").split(".")[1])
    return found & set(RANK)


def test_imports_point_downward() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py" or path.parent != PACKAGE
        for name in sorted(_imports(path))
        if RANK[name] > RANK[_module_of(path)]
    ]
    assert wrong == []


def test_every_module_has_a_layer() -> None:
    modules = {_module_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert modules - set(RANK) == set()


#: Pure: no clock, environment, file, socket or logger below the readers.
PURE = ("errors", "names", "options", "spec", "facts", "mesh", "resolve", "envoy", "resource", "snapshot")
IMPURE = {"time", "os", "socket", "logging", "pathlib", "subprocess", "random", "asyncio", "secrets"}


def test_the_core_is_pure() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if _module_of(path) not in PURE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [f"{path.name} imports {n}" for n in names if n.split(".")[0] in IMPURE]
    assert wrong == []


def test_public_names() -> None:
    assert sorted(appmesh_xds.__all__) == [
        "AppMeshXdsError",
        "Change",
        "Mesh",
        "Options",
        "Problem",
        "Reading",
        "Resource",
        "Snapshot",
        "SpecErrors",
        "TranslationErrors",
        "Translator",
        "UsageError",
        "envoy",
        "facts",
        "load",
        "loads",
        "read",
        "spec",
        "translate",
    ]
    for name in appmesh_xds.__all__:
        assert getattr(appmesh_xds, name).__doc__, name


def test_no_public_name_hides_a_module() -> None:
    modules = {_module_of(path) for path in PACKAGE.rglob("*.py")}
    functions = {name for name in appmesh_xds.__all__ if callable(getattr(appmesh_xds, name))}
    assert functions & modules == set()
