"""Output folders: whole or not at all, and never a file of somebody else's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appmesh_xds import folders
from appmesh_xds.errors import UsageError
from appmesh_xds.folders import MANIFEST, File, file_name, publish


def _put(
    folder: Path,
    *paths: str,
    writer: str = "w",
    replaces: Callable[[str], bool] = lambda _: True,
    content: bytes = b"new",
) -> tuple[str, ...]:
    return publish(folder, dict.fromkeys(paths, File(content)), writer=writer, replaces=replaces)


def _tree(folder: Path) -> list[str]:
    """Every file below, without the manifest."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(folder)) for path in files if path.name != MANIFEST)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("colors", "colors"),
        ("a.b_c-D9", "a.b_c-D9"),
        ("../../x", "%2E%2E%2F..%2Fx"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        (".appmesh-xds.json", "%2Eappmesh-xds.json"),
        ("a b~c", "a%20b%7Ec"),
        ("é", "%C3%A9"),
        ("a\0\n", "a%00%0A"),
    ],
)
def test_file_name(name: str, expected: str) -> None:
    assert file_name(name) == expected


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_file_names_are_safe_and_unique(names: list[str]) -> None:
    one, other = map(file_name, names)
    assert one != other
    assert len(one) <= 200 and "/" not in one and not one.startswith(".") and one.isascii()


def test_writes_files_with_their_modes(tmp_path: Path) -> None:
    files = {"a/b/c.yaml": File(b"1"), "key": File(b"2", 0o600)}
    assert publish(tmp_path / "deep" / "out", files, writer="w", replaces=lambda _: True) == ()
    out = tmp_path / "deep" / "out"
    assert (out / "a/b/c.yaml").read_bytes() == b"1"
    assert (out / "key").stat().st_mode & 0o777 == 0o600
    assert (out / "a/b/c.yaml").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [MANIFEST]


def test_removes_what_is_no_longer_needed_and_empty_folders(tmp_path: Path) -> None:
    _put(tmp_path, "a/1", "a/2", "b/3")
    (tmp_path / "a" / "mine").write_text("kept")
    assert sorted(_put(tmp_path, "c/4")) == ["a/1", "a/2", "b/3"]
    assert _tree(tmp_path) == ["a/mine", "c/4"]
    assert not (tmp_path / "b").exists()


def test_removes_nothing_of_other_writers_and_nothing_it_is_not_asked_for(tmp_path: Path) -> None:
    _put(tmp_path, "other", writer="bootstrap")
    _put(tmp_path, "m1/a", "m2/b")
    assert _put(tmp_path, "m1/c", replaces=lambda path: path.startswith("m1/")) == ("m1/a",)
    assert _tree(tmp_path) == ["m1/c", "m2/b", "other"]
    # What stayed is still known, and goes when a later run asks for it.
    assert _put(tmp_path, "m1/c") == ("m2/b",)


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UsageError, match="was not written by appmesh-xds"):
        _put(tmp_path, "b", "a")
    assert _tree(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "mine"


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "mesh").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="leads out of"):
        _put(out, "mesh/a")
    assert list(elsewhere.iterdir()) == []


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    _put(out, "a")
    victim.write_text("kept")
    (out / "link").symlink_to(tmp_path)
    (out / MANIFEST).write_text(
        json.dumps({"files": dict.fromkeys(("../victim", str(victim), "link/victim", "a", "", "x\0y"), "w")})
    )
    assert _put(out, "b") == ("a",)
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("text", ["{", "[]", '{"files": 1}', "\xff", "[" * 100_000])
def test_a_broken_manifest_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="not a manifest"):
        _put(tmp_path, "a")
    assert _tree(tmp_path) == []


@pytest.mark.parametrize("there_before", [True, False])
def test_a_failure_while_writing_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    out = tmp_path / "new" / "out"
    if there_before:
        _put(out, "a/1", content=b"old")
    write, written = folders._write, []

    def full(path: Path, file: File) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        write(path, file)

    monkeypatch.setattr(folders, "_write", full)
    with pytest.raises(UsageError, match="No space left"):
        _put(out, "a/1", "a/2", "a/3")
    assert len(written) == 2
    if there_before:
        assert _tree(out) == ["a/1"] and (out / "a/1").read_bytes() == b"old"
        assert {path.name for path in out.iterdir()} == {"a", MANIFEST}
    else:
        assert list(tmp_path.iterdir()) == []


def test_after_a_death_between_two_renames_the_next_run_knows_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path, "old")
    replace = os.replace

    def dies(source: Path, target: Path) -> None:
        if Path(target).name == "2":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        _put(tmp_path, "1", "2")
    monkeypatch.undo()
    assert _tree(tmp_path) == ["1", "old"]
    assert sorted(_put(tmp_path, "3")) == ["1", "2", "old"]
    assert _tree(tmp_path) == ["3"]


@pytest.mark.parametrize("bad", ["file", "file/below"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, bad: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=str(tmp_path / "file")):
        _put(tmp_path / bad, "a")
    assert (tmp_path / "file").read_text() == "x"


def test_content_does_not_print() -> None:
    assert "secret" not in repr(File(b"secret", 0o600))
