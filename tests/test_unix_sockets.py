"""Unix sockets that are each one proxy's: who is served there, and how the files come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from served import Served
from test_cli import Run, run
from test_meshes import node
from test_security import ARN, Site
from test_serve import FRONT, ports, write
from test_serve_operations import _answers, _get, _metric, _until
from test_server_grpc import NODE, QUICK, _ends, _request, _sotw
from traces import snapshot

import appmesh_xds as am
from appmesh_xds.errors import UsageError
from appmesh_xds.resource import SECRET
from appmesh_xds.server.grpc import serve
from appmesh_xds.server.listeners import Listener
from appmesh_xds.server.session import Access, Peer
from appmesh_xds.server.source import Snapshots

__all__ = ["run"]

BACK = "mesh/shop/virtualNode/back"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


def _code(ask: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        ask()
    return refused.value.code()


@contextlib.contextmanager
def _stream(server: Served, where: Path) -> Iterator[Any]:
    """A stream whose client stays."""
    request = am.proto.DeltaDiscoveryRequest(type_url=SECRET)
    request.node.id = FRONT
    ended = threading.Event()

    def said() -> Iterator[bytes]:
        yield request.SerializeToString()
        ended.wait()

    path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
    with server.channel(where) as channel:
        try:
            yield channel.stream_stream(path)(said())
        finally:
            ended.set()


# --- who is served ------------------------------------------------------------------------------------------


def test_a_socket_is_one_proxys(tmp_path: Path, folder: Path) -> None:
    front, back = folder / "front", folder / "back = 100%"
    sockets = ("--unix", f"{front}=virtualNode/front", "--unix", f"{back}=mesh/shop@1/virtualNode/back")
    with Site(tmp_path).serve(*sockets) as server:
        assert server.out == (
            f"listening on 127.0.0.1:{server.port}, unix:{front}, unix:{back} (2 proxies of mesh shop)\n"
        )
        # Its keys come with it, by whatever name it calls itself.
        for name in (FRONT, f"arn:aws:appmesh:us-west-2:111122223333:{FRONT}"):
            key = server.ask(name, SECRET, ARN, socket=front)[ARN].tls_certificate.private_key
            assert key.inline_bytes.startswith(b"-----BEGIN ")
        assert server.ask(BACK, socket=back)
        # Nobody else is served there, and the port is as it was.
        for name, where in ((BACK, front), (FRONT, back)):
            assert _code(lambda: server.ask(name, socket=where)) is grpc.StatusCode.PERMISSION_DENIED  # noqa: B023
        assert ports(server) == ports(server, BACK) == {"8080"}
        with server.channel(front) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=20) == b"\x08\x01"
        assert server.stop() == 0
    log = server.err_text()
    assert f"connected node={FRONT} peer=unix:{front}\n" in log
    # Somebody has the keys: no warning. On the port they stay away all the same, see below.
    assert "keys are not served" not in log and "PRIVATE" not in log


def test_keys_stay_away_from_the_port(tmp_path: Path, folder: Path) -> None:
    with Site(tmp_path).serve("--unix", f"{folder}/front=virtualNode/front") as server:
        request = am.proto.DiscoveryRequest(type_url=SECRET, resource_names=[ARN])
        request.node.id = FRONT
        path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
        with server.channel() as channel:
            call = channel.stream_stream(path)(iter([request.SerializeToString()]))
            server.wait_for("unknown_secrets")
            call.cancel()


def test_it_is_seen_from_outside(tmp_path: Path, folder: Path) -> None:
    """Its streams are counted and listed like any other."""
    write(tmp_path / "mesh.json", node())
    where = folder / "front"
    admin = ("--admin-listen", "127.0.0.1:0")
    unix = ("--listen", "off", "--unix", f"{where}=virtualNode/front")
    with Served(tmp_path / "mesh.json", *unix, *admin, log=tmp_path / "log") as server:
        at = _answers(server)
        with _stream(server, where) as call:
            server.wait_for("connected ")
            _until(lambda: _metric(at, 'streams{protocol="delta"}') == 1, server)
            (stream,) = json.loads(_get(at, "/debug/proxies")[1])["proxies"]
            assert (stream["proxy"], stream["peer"]) == (FRONT, f"unix:{where}")
            call.cancel()


def test_a_proxy_that_is_not_there_yet(tmp_path: Path, folder: Path) -> None:
    write(tmp_path / "mesh.json", node("back"))
    where = folder / "front"
    arguments = (tmp_path / "mesh.json", "--watch", "--listen", "off", "--unix", f"{where}=virtualNode/front")
    with Served(*arguments, log=tmp_path / "log") as server:
        assert server.out == f"listening on unix:{where} (1 proxies of mesh shop)\n"
        warning = f"warning: virtualNode/front $: {where} is for it, and it is not in the mesh"
        assert warning in server.err_text()
        assert _code(lambda: server.ask(FRONT, socket=where)) is grpc.StatusCode.NOT_FOUND
        assert _code(lambda: server.ask(BACK, socket=where)) is grpc.StatusCode.PERMISSION_DENIED
        write(tmp_path / "mesh.json", node("back"), node())
        server.wait_for("loaded proxies=2")
        assert server.ask(FRONT, socket=where)
        write(tmp_path / "mesh.json", node("back"))
        server.wait_for("loaded proxies=1")
        assert server.err_text().count("is for it, and it is not") == 2


def test_meshes_that_share_a_name(tmp_path: Path, folder: Path) -> None:
    """`virtualNode/front` says which, while one mesh has it."""
    write(tmp_path / "mesh.json", node(), node(mesh="other"))
    any_, one = folder / "any", folder / "one"
    sockets = ("--unix", f"{any_}=virtualNode/front", "--unix", f"{one}=mesh/other/virtualNode/front")
    with Served(tmp_path / "mesh.json", *sockets, "--watch", log=tmp_path / "log") as server:
        hint = f"name the one: --unix {any_}=mesh/other/virtualNode/front"
        assert "and several meshes have it" in server.err_text() and hint in server.err_text()
        assert _code(lambda: server.ask(FRONT, socket=any_)) is grpc.StatusCode.PERMISSION_DENIED
        assert _code(lambda: server.ask(FRONT, socket=one)) is grpc.StatusCode.PERMISSION_DENIED
        assert server.ask("mesh/other/virtualNode/front", socket=one)
        write(tmp_path / "mesh.json", node())
        server.wait_for("loaded proxies=1")
        assert server.ask(FRONT, socket=any_)


def test_what_was_kept_is_served_on_it(tmp_path: Path, folder: Path) -> None:
    """Over broken specs, from the state of before."""
    write(tmp_path / "mesh.json", node())
    where = folder / "front"
    arguments = ("--state", tmp_path / "state", "--unix", f"{where}=virtualNode/front", "--drain", "0")
    with Served(tmp_path / "mesh.json", *arguments, log=tmp_path / "log") as server:
        assert server.stop() == 0
        (tmp_path / "mesh.json").write_text("{")
        server.start()
        assert server.ask(FRONT, socket=where)


# --- the files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((), 0o600),
        (("--unix-group", str(os.getgid())), 0o660),
        (("--unix-mode", "0666"), 0o666),
        (("--unix-mode", "640", "--unix-group", str(os.getgid())), 0o640),
    ],
)
def test_who_may_open_it(tmp_path: Path, folder: Path, arguments: tuple[str, ...], mode: int) -> None:
    """Of a socket for a proxy, and of one that `--listen` names."""
    write(tmp_path / "mesh.json", node())
    sockets = ("--listen", f"unix:{folder}/all", "--unix", f"{folder}/front=virtualNode/front")
    with Served(tmp_path / "mesh.json", *sockets, *arguments, log=tmp_path / "log"):
        found = {path.name: path.stat() for path in folder.iterdir()}
        assert {name: stat.S_IMODE(one.st_mode) for name, one in found.items()} == {
            "all": mode,
            "front": mode,
        }
        assert {one.st_gid for one in found.values()} == {os.getgid()}


def test_it_comes_whole_and_goes(tmp_path: Path, folder: Path) -> None:
    """One that was left behind is replaced, one that is served is not; at the end nothing is left."""
    write(tmp_path / "mesh.json", node())
    where = folder / "front"
    arguments = (tmp_path / "mesh.json", "--listen", "off", "--unix", f"{where}=virtualNode/front")
    with Served(*arguments, log=tmp_path / "log") as server:
        server.kill()
        assert where.is_socket(), "nothing was left behind"
        server.start()
        second = Served(*arguments, log=tmp_path / "log2")
        with pytest.raises(AssertionError, match="serve ended with 2"):
            second.start()
        assert f"cannot listen on unix:{where}: a server listens there" in second.err_text()
        assert server.ask(FRONT, socket=where)
        # Its clients are told that it ends, and whoever comes next can have the path.
        with _stream(server, where) as call:
            server.wait_for("connected ", times=2)
            server.signal(signal.SIGTERM)
            assert _code(lambda: list(call)) is grpc.StatusCode.UNAVAILABLE
        assert server.wait() == 0
    assert list(folder.iterdir()) == []


def test_a_successor_keeps_its_socket(folder: Path) -> None:
    """That another took the path meanwhile is not undone."""
    where = folder / "s"

    async def one_after_another() -> None:
        async with serve(Snapshots(), listen=f"unix:{where}", settings=QUICK):
            where.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(where))
        assert where.is_socket()

    asyncio.run(one_after_another())


@pytest.mark.parametrize("what", ["a file", "no folder", "too long", "a folder"])
def test_paths_that_cannot_be_used(folder: Path, what: str) -> None:
    """The one that could be used is taken back."""
    where, why = {
        "a file": (folder / "file", "what is there is no socket"),
        "a folder": (folder, "what is there is no socket"),
        "no folder": (folder / "gone" / "s", "No such file or directory"),
        "too long": (folder / ("x" * 120), "bytes too long for a unix socket"),
    }[what]
    (folder / "file").write_text("mine")

    async def start() -> None:
        listeners = [Listener("127.0.0.1:0"), Listener(f"unix:{folder}/good"), Listener(f"unix:{where}")]
        async with serve(Snapshots(), listen=listeners):
            raise AssertionError("it serves")

    with pytest.raises(UsageError, match=f"cannot listen on unix:{where}: .*{why}"):
        asyncio.run(start())
    assert [path.name for path in folder.iterdir()] == ["file"] and (folder / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--unix front", "--unix front: expected PATH=virtualNode/NAME"),
        ("--unix =virtualNode/front", "--unix =virtualNode/front: expected"),
        ("--unix a=virtualRouter/front", "--unix a=virtualRouter/front: expected"),
        ("--unix a=virtualNode/b --unix a=virtualNode/c", "--unix a: a socket is for one proxy"),
        ("--unix a=virtualNode/b --unix-mode 8", "8: expected an octal mode"),
        ("--unix a=virtualNode/b --unix-mode 01777", "01777: expected an octal mode"),
        ("--unix a=virtualNode/b --unix-group of-nobody", "there is no group of-nobody"),
        ("--unix-mode 600", "--unix-mode needs --unix"),
        ("--unix-group 0", "--unix-group needs --unix"),
        ("--listen off", "--listen off needs --unix"),
        (
            "--listen off --unix a=virtualNode/b --insecure-serve-keys",
            "--insecure-serve-keys does not go with",
        ),
        ("--listen off --unix a=virtualNode/b --tls-key x", "--tls-key does not go with --listen off"),
    ],
)
def test_wrong_usage(run: Run, arguments: str, text: str) -> None:
    done = run("serve", run.mesh(node()), *arguments.split())
    assert (done.status, done.out) == (2, "")
    assert text in done.err


# --- embedding ----------------------------------------------------------------------------------------------


def test_each_address_has_an_access_of_its_own(folder: Path) -> None:
    def nobody(peer: Peer, snapshot: am.Snapshot) -> Access:
        return Access.NONE

    async def both() -> None:
        listeners = [Listener("127.0.0.1:0", access=nobody), Listener(f"unix://{folder}/s")]
        source = Snapshots([snapshot(cds="a1")])
        async with serve(source, listen=listeners, settings=QUICK) as server:
            assert server.addresses == (f"127.0.0.1:{server.port}", f"unix:{folder}/s")
            for address, served in zip(server.addresses, (False, True), strict=True):
                async with grpc.aio.insecure_channel(address) as channel:
                    stream = _sotw(channel)
                    await stream.write(_request(node=NODE))
                    if served:
                        assert await asyncio.wait_for(stream.read(), 20)
                    else:
                        code, _ = await _ends(stream)
                        assert code is grpc.StatusCode.PERMISSION_DENIED
                    stream.cancel()

    asyncio.run(both())


def test_access_stands_in_each_listener() -> None:
    async def start() -> None:
        async with serve(Snapshots(), listen=[Listener("127.0.0.1:0")], access=lambda *_: Access.FULL):
            raise AssertionError("it serves")

    with pytest.raises(UsageError, match="stand in each Listener"):
        asyncio.run(start())
