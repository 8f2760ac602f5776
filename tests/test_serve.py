"""`appmesh-xds serve` as a process: what it says, what it follows, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from served import Served
from test_cli import ERROR, Run, run
from test_meshes import node

__all__ = ["run"]


def test_it_says_where_it_listens_and_ends_when_told(tmp_path: Path) -> None:
    (tmp_path / "mesh.json").write_text(json.dumps([node(), node("back")]))
    with Served(tmp_path / "mesh.json", log=tmp_path / "log") as server:
        assert server.out == f"listening on 127.0.0.1:{server.port} (2 proxies of mesh shop)\n"
        assert server.stop() == 0
    assert "Traceback" not in server.err_text()


def test_specs_that_do_not_load_are_problems(run: Run) -> None:
    path = run.file("mesh.json", "{")
    done = run("serve", path)
    assert (done.status, done.out) == (1, "")
    assert done.lines and f"{path}:1" in done.lines[0]


def test_a_proxy_with_errors_does_not_keep_the_others(tmp_path: Path) -> None:
    (tmp_path / "mesh.json").write_text(json.dumps([node(), ERROR]))
    with Served(tmp_path / "mesh.json", log=tmp_path / "log") as server:
        assert "2 proxies" in server.out
        assert "error:" in server.err_text() and "virtualNode/broken" in server.err_text()
