"""`appmesh-xds serve` as a process: what it says, what it follows, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from pki import Certificates
from served import PATIENCE, Served
from test_cli import ERROR, Run, run
from test_meshes import UNKNOWN, node

from appmesh_xds.errors import SpecErrors
from appmesh_xds.readers import Reader
from appmesh_xds.server.daemon import Daemon
from appmesh_xds.server.files import Files
from appmesh_xds.server.meshes import Meshes
from appmesh_xds.server.security import Security

__all__ = ["run"]

FRONT = "mesh/shop/virtualNode/front"


def write(path: Path, *resources: dict[str, Any]) -> None:
    """As editors do: beside, then renamed over."""
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(resources))
    os.replace(new, path)


def ports(server: Served, proxy: str = FRONT) -> set[str]:
    """The ports that the application of a node is served on."""
    names = "\n".join(server.ask(proxy))
    return set(re.findall("^cds_ingress_shop_.*_http_([0-9]+)$", names, re.MULTILINE))


def wait_ports(server: Served, port: int, proxy: str = FRONT) -> None:
    deadline = time.monotonic() + PATIENCE

    def now() -> set[str]:
        try:
            return ports(server, proxy)
        except grpc.RpcError as error:  # not there yet
            return {str(error.code())}

    while (found := now()) != {str(port)}:
        assert time.monotonic() < deadline, f"{found}, {server.err_text()}"
        time.sleep(0.02)


def test_it_says_where_it_listens_and_ends_when_told(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", node(), node("back"))
    with Served(tmp_path / "mesh.json", log=tmp_path / "log") as server:
        assert server.out == f"listening on 127.0.0.1:{server.port} (2 proxies of mesh shop)\n"
        assert ports(server) == {"8080"}
        with pytest.raises(grpc.RpcError) as refused:
            server.ask("mesh/shop/virtualNode/nobody")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert server.stop() == 0
    assert "Traceback" not in server.err_text()


def test_specs_that_do_not_load_are_problems(run: Run) -> None:
    path = run.file("mesh.json", "{")
    done = run("serve", path)
    assert (done.status, done.out) == (1, "")
    assert done.lines and f"{path}:1" in done.lines[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--listen", "0.0.0.0:0"), "is beyond loopback: it needs TLS"),
        (("--drain", "soon"), "soon: expected 0 to 86400 seconds"),
        (("--state", "/dev/null"), "--state /dev/null: "),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], text: str) -> None:
    done = run("serve", run.mesh(node()), *arguments)
    assert (done.status, done.out) == (2, "")
    assert text in done.err


def test_a_proxy_with_errors_does_not_keep_the_others(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", node(), ERROR)
    with Served(tmp_path / "mesh.json", log=tmp_path / "log") as server:
        assert "error:" in server.err_text() and "virtualNode/broken" in server.err_text()
        assert ports(server) == {"8080"}
        with pytest.raises(grpc.RpcError) as refused:
            server.ask("mesh/shop/virtualNode/broken")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_it_follows_its_files(tmp_path: Path) -> None:
    folder, facts = tmp_path / "mesh", tmp_path / "facts.yaml"
    folder.mkdir()
    facts.write_text("{}")
    write(folder / "a.json", node())
    write(folder / "b.json", node("back"))
    with Served(folder, "--facts", facts, "--watch", log=tmp_path / "log") as server:
        # An editor's save, a file in a new folder, and in place.
        write(folder / "a.json", node(port=8081))
        wait_ports(server, 8081)
        server.wait_for("loaded proxies=2 changed=1")
        assert server.err_text().count("loaded") == 1
        (folder / "more").mkdir()
        write(folder / "more" / "c.json", node("new"))
        server.wait_for("loaded proxies=3 changed=1")
        (folder / "a.json").write_text(json.dumps(node(port=8082)))
        wait_ports(server, 8082)

        # What is broken changes nothing, and is said once.
        write(folder / "b.json", node("back", 99999))
        server.wait_for("not_loaded")
        server.wait_for(r"problem text=.*/mesh/b\.json")
        write(folder / "a.json", node(port=8083))
        server.wait_for("not_loaded", times=2)
        assert ports(server) == {"8082"} and ports(server, "mesh/shop/virtualNode/back") == {"8080"}
        assert len(re.findall(r"problem text=.*/mesh/b\.json", server.err_text())) == 1
        write(folder / "b.json", node("back"))
        wait_ports(server, 8083)

        # A folder that vanishes for a moment; facts.
        folder.rename(tmp_path / "elsewhere")
        server.wait_for("not_loaded", times=3)
        assert ports(server) == {"8083"}
        (tmp_path / "elsewhere").rename(folder)
        write(folder / "a.json", node(tls=UNKNOWN))
        server.wait_for("problem text=.*virtualNode/front.*certificate")
        assert ports(server) == {"8083"}
        files = "{certificateChain: /a.crt, privateKey: /a.key}"
        arn = UNKNOWN["certificate"]["acm"]["certificateArn"]  # type: ignore[index]
        facts.write_text(f"certificates: {{'{arn}': {files}}}")
        wait_ports(server, 8080)
        assert server.stop() == 0
    text = server.err_text()
    assert "Traceback" not in text
    assert text.count(" connected ") == text.count(" ended ") > 5


def test_it_follows_links_that_are_swapped(tmp_path: Path) -> None:
    """Like a ConfigMap in a volume, and like a folder of releases."""
    for number in (1, 2):
        (tmp_path / f"release{number}").mkdir()
        write(tmp_path / f"release{number}" / "mesh.json", node(port=8080 + number))
    (tmp_path / "volume").mkdir()

    def swap(link: Path, target: str) -> None:
        (tmp_path / "new").symlink_to(target)
        os.replace(tmp_path / "new", link)

    swap(tmp_path / "volume" / "..data", "../release1")
    (tmp_path / "volume" / "mesh.json").symlink_to("..data/mesh.json")
    swap(tmp_path / "current", "release1")
    for path in (tmp_path / "volume", tmp_path / "current", tmp_path / "current" / "mesh.json"):
        with Served(path, "--watch", log=tmp_path / "log") as server:
            assert ports(server) == {"8081"}
            swap(tmp_path / "volume" / "..data", "../release2")
            swap(tmp_path / "current", "release2")
            wait_ports(server, 8082)
            swap(tmp_path / "volume" / "..data", "../release1")
            swap(tmp_path / "current", "release1")
            wait_ports(server, 8081)


def test_sighup_reads_again(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", node())
    with Served(tmp_path / "mesh.json", log=tmp_path / "log") as server:
        write(tmp_path / "mesh.json", node(port=8081))
        server.signal(signal.SIGHUP)
        wait_ports(server, 8081)


def test_the_last_good_snapshots_live_on(tmp_path: Path, certificates: Certificates) -> None:
    """A server that starts over broken specs serves what it served, less private keys."""
    mesh, state, facts = tmp_path / "mesh.json", tmp_path / "state", tmp_path / "facts.yaml"
    pem = {"certificateChain": str(certificates.server.certificate)}
    pem["privateKey"] = str(certificates.server.private_key)
    arn = UNKNOWN["certificate"]["acm"]["certificateArn"]  # type: ignore[index]
    facts.write_text(json.dumps({"certificates": {arn: {"pem": pem}}}))
    write(mesh, node(tls=UNKNOWN), node("back"), node("gone"))
    server = Served(mesh, "--facts", facts, "--state", state, "--watch", log=tmp_path / "log")
    with server:
        write(mesh, node(tls=UNKNOWN, port=8081), node("back"))
        wait_ports(server, 8081)
        server.kill()
    files = list(state.iterdir())
    assert state.stat().st_mode & 0o777 == 0o700 and len(files) == 2
    content = b"".join(path.read_bytes() for path in files)
    assert b"cds_ingress_shop_front_http_8081" in content and b"PRIVATE" not in content

    # All is broken; then one proxy is; then none.
    mesh.write_text("[")
    with server:
        assert server.out.endswith("(what was kept)\n") and "mesh.json:1" in server.err_text()
        assert ports(server) == {"8081"}
        facts.write_text("{}")
        write(mesh, node(tls=UNKNOWN, port=8082), node("new"))
        wait_ports(server, 8080, "mesh/shop/virtualNode/new")
        assert ports(server) == {"8081"}
        with pytest.raises(grpc.RpcError) as refused:
            server.ask("mesh/shop/virtualNode/back")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        write(mesh, node(port=8082), node("new"))
        wait_ports(server, 8082)

    # What is damaged is passed over.
    for path in state.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    mesh.write_text("[")
    with pytest.raises(AssertionError, match="ended with 1"):
        server.start()


def test_a_state_that_others_may_read_is_refused(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = run("serve", run.mesh(node()), "--state", tmp_path)
    assert done.status == 2 and f"chmod 700 {tmp_path}" in done.err


def test_a_fault_of_ours_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "mesh.json", node())
    daemon = Daemon(Files(Reader(tmp_path)), Meshes(), Security(listeners=()))
    assert daemon.start() == ()
    served = daemon.meshes.snapshot(FRONT)
    write(tmp_path / "mesh.json", node(port=8081))

    def fail(*_: object) -> None:
        raise RecursionError("of ours")

    with monkeypatch.context() as patch:
        patch.setattr(daemon.meshes, "update", fail)
        asyncio.run(daemon.reload())
    assert daemon.meshes.snapshot(FRONT) is served
    assert "could not be taken over" in caplog.text and "of ours" in caplog.text
    write(tmp_path / "mesh.json", node(port=8082))
    asyncio.run(daemon.reload())
    newest = daemon.meshes.snapshot(FRONT)
    assert newest is not None and newest is not served


@pytest.mark.parametrize("content", ["", "{", "[]", "# soon\n", "Resources: {}\n"])
def test_a_file_that_is_about_to_be_written_takes_nothing_away(content: str, tmp_path: Path) -> None:
    """A shell empties a file before it writes into it; and an error in the first line hides what it is."""
    file, other = tmp_path / "back.json", tmp_path / "front.json"
    write(file, node("back"))
    write(other, node("front"))
    files = Files(Reader(tmp_path))
    assert files.load() is not None
    file.write_text(content)
    for port in (8080, 8081):  # again, when something else changes meanwhile
        write(other, node("front", port=port))
        with pytest.raises(SpecErrors) as raised:
            files.load()
        (problem,) = raised.value.problems
        assert problem.file == str(file) and "held 1 App Mesh resource" in problem.message
        assert problem.hint == "when that is to go, remove the file"
    write(file, node("back"))
    loaded = files.load()
    assert loaded is not None and len(loaded.meshes[0].virtual_nodes) == 2
    file.unlink()
    loaded = files.load()
    assert loaded is not None and len(loaded.meshes[0].virtual_nodes) == 1
    # A file that never held anything is somebody else's.
    file.write_text(content)
    assert not [one for one in (files.load() or loaded).problems if one.severity == "error"]
