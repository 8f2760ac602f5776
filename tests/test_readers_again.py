"""Reading the same paths again: only what changed is read, and what is equal stays the same object."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_meshes import node

from appmesh_xds.readers import Reader, Reading, cache

TEMPLATE = """
Resources:
  Front:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: shop
      VirtualNodeName: {name}
      Spec:
        Listeners: [{{PortMapping: {{Port: {port}, Protocol: http}}}}]
        ServiceDiscovery: {{DNS: {{Hostname: shop.local}}}}
"""


@pytest.fixture(autouse=True)
def _exact_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change files quicker than they would have to be to be trusted; here, times are exact."""
    monkeypatch.setattr(cache, "_STEP", 0)


class Watched:
    """A folder with a reader, and how often files of it are read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.reader = Reader(folder, mesh="shop")
        self.read_files: list[str] = []
        read_bytes = cache.read_bytes

        def counting(path: str) -> Any:
            self.read_files.append(os.path.basename(path))
            return read_bytes(path)

        monkeypatch.setattr(cache, "read_bytes", counting)

    def write(self, name: str, *resources: dict[str, Any] | str) -> None:
        text = [r if isinstance(r, str) else json.dumps(r) for r in resources]
        # Another inode each time: the clock of a file system may stand still between two writes.
        (self.folder / "new").write_text("\n---\n".join(text))
        os.replace(self.folder / "new", self.folder / name)

    def read(self) -> tuple[Reading, list[str]]:
        """The reading, and the files that were opened for it."""
        self.read_files.clear()
        return self.reader.read(), list(self.read_files)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def _by_key(reading: Reading) -> dict[str, Any]:
    assert reading.problems == ()
    return {resource.key: resource for resource in reading.resources}


def test_only_changed_files_are_read(watched: Watched) -> None:
    watched.write("a.json", node("a"))
    watched.write("b.yaml", node("b"), node("c"))
    first, opened = watched.read()
    assert opened == ["a.json", "b.yaml"]
    again, opened = watched.read()
    assert opened == [] and again is first
    watched.write("b.yaml", node("b"), node("c", 9090))
    after, opened = watched.read()
    assert opened == ["b.yaml"]
    one, two = _by_key(first), _by_key(after)
    assert [two[f"virtualNode/{n}"] is one[f"virtualNode/{n}"] for n in "abc"] == [True, True, False]
    assert two["virtualNode/c"].spec.listeners[0].port_mapping.port == 9090


def test_a_touched_file_keeps_all_it_holds(watched: Watched) -> None:
    watched.write("a.yaml", node("a"))
    first, _ = watched.read()
    os.utime(watched.folder / "a.yaml", (1, 1))
    after, opened = watched.read()
    assert opened == ["a.yaml"]
    assert after.resources[0] is first.resources[0]


def test_a_file_renamed_over_another_with_its_times_and_size(watched: Watched) -> None:
    watched.write("a.json", node("a", 8080))
    os.utime(watched.folder / "a.json", (1000, 1000))
    watched.read()
    watched.write("a.json.new", node("a", 9090))
    os.utime(watched.folder / "a.json.new", (1000, 1000))
    os.replace(watched.folder / "a.json.new", watched.folder / "a.json")
    after, opened = watched.read()
    assert opened == ["a.json"]
    assert _by_key(after)["virtualNode/a"].spec.listeners[0].port_mapping.port == 9090


def test_a_file_that_changed_a_moment_ago_is_not_trusted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_STEP", 3600)
    watched.write("a.json", node("a"))
    watched.read()
    assert watched.read()[1] == ["a.json"]


def test_files_that_come_and_go(watched: Watched) -> None:
    watched.write("a.json", node("a"))
    watched.write("b.json", node("b"))
    watched.read()
    (watched.folder / "b.json").unlink()
    watched.write("c.json", node("c"))
    assert sorted(_by_key(watched.read()[0])) == ["virtualNode/a", "virtualNode/c"]
    watched.write("b.json", node("b", 9090))
    reading, opened = watched.read()
    assert opened == ["b.json"]
    assert sorted(_by_key(reading)) == ["virtualNode/a", "virtualNode/b", "virtualNode/c"]


def test_templates_refer_to_each_other_and_are_still_kept(watched: Watched) -> None:
    watched.write("a.yaml", TEMPLATE.format(name="a", port=8080))
    watched.write("b.yaml", TEMPLATE.format(name="b", port=8080))
    first = _by_key(watched.read()[0])
    watched.write("b.yaml", TEMPLATE.format(name="b", port=9090))
    after, opened = watched.read()
    assert opened == ["b.yaml"]
    second = _by_key(after)
    assert second["virtualNode/a"] is first["virtualNode/a"]
    assert second["virtualNode/b"] != first["virtualNode/b"]


def test_problems_stay_until_they_are_solved(watched: Watched) -> None:
    watched.write("a.json", node("a"))
    watched.write("b.yaml", node("b", 99999))
    first, _ = watched.read()
    assert len(first.problems) == 1
    assert watched.read()[0].problems == first.problems
    watched.write("b.yaml", node("b"))
    assert watched.read()[0].problems == ()


def test_what_stands_twice_is_a_problem_each_time(watched: Watched) -> None:
    watched.write("a.json", node("a"))
    reader = Reader(watched.folder, watched.folder, mesh="shop")
    texts = [[p.message for p in reader.read().problems] for _ in range(2)]
    assert texts[0] == texts[1] and "of this name already" in texts[0][0]


def test_it_reads_what_read_reads(watched: Watched) -> None:
    from appmesh_xds import read

    watched.write("a.json", node("a"))
    watched.write("b.yaml", node("b"), "just: something", node("b"))
    watched.write("broken.yaml", "virtual: [")
    whole = read(watched.folder, mesh="shop")
    for _ in range(2):
        again, _ = watched.read()
        assert again.resources == whole.resources
        assert again.problems == whole.problems and len(again.problems) == 2
        assert again.files == whole.files


def test_folders_that_vanish_for_a_moment(watched: Watched, tmp_path: Path) -> None:
    watched.write("a.json", node("a"))
    first, _ = watched.read()
    watched.folder.rename(f"{tmp_path}.gone")
    gone, _ = watched.read()
    assert [problem.file for problem in gone.problems] == [str(tmp_path)]
    assert watched.read()[0] is gone
    Path(f"{tmp_path}.gone").rename(watched.folder)
    back, _ = watched.read()
    assert back.resources == first.resources and back.problems == ()


def test_a_file_that_cannot_be_read(watched: Watched) -> None:
    (watched.folder / "a.json").symlink_to(watched.folder / "nowhere")
    gone, _ = watched.read()
    assert "cannot be read" in str(gone.problems[0])
    assert watched.read()[0] is gone
