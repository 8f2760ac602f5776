"""What a server writes down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from appmesh_xds.resource import CLUSTER
from appmesh_xds.server import logs
from appmesh_xds.server.logs import EventLog, note
from appmesh_xds.server.messages import (
    Ack,
    Connected,
    Ended,
    GateTimeout,
    Nack,
    Refused,
    Response,
    UnknownSecrets,
    UnknownType,
)
from appmesh_xds.server.session import Peer

NODE = "mesh/m/virtualNode/n"
PEER = Peer("ipv4:10.0.0.1:4000", uris=("spiffe://m/n",))
KEY = "-----BEGIN PRIVATE KEY-----\\nMIIEvSECRET\\n-----END PRIVATE KEY-----"

NACK = Nack(
    type_url=CLUSTER,
    nonce="3",
    version="v3",
    text="bad: x=1",
    resources=("a", "b"),
    origins=("virtualNode/n $.spec",),
)


class Log:
    """The log on stderr, set up as the server sets it up."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._handlers: list[logging.Handler] = []

    def start(self, form: logs.Format = "text", level: int = logging.INFO) -> None:
        self._handlers.append(logs.set_up(form, level))

    def stop(self) -> None:
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
        logs.LOG.setLevel(logging.NOTSET)
        logging.getLogger().setLevel(logging.WARNING)

    def lines(self) -> list[str]:
        """Without the times."""
        return [line.partition(" ")[2] for line in self._capture.readouterr().err.splitlines()]

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._capture.readouterr().err.splitlines()]


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    result = Log(capsys)
    yield result
    result.stop()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Connected(node_id="anything"),
            f"info    connected node={NODE} peer=ipv4:10.0.0.1:4000 uris=spiffe://m/n",
        ),
        (
            NACK,
            f'error   nack node={NODE} type=clusters resources=a,b text="bad: x=1" version=v3 '
            'spec="virtualNode/n $.spec"',
        ),
        (UnknownSecrets(names=("a\n", "b")), f"error   unknown_secrets node={NODE} names=a,b"),
        (GateTimeout(), f"warning gate_timeout node={NODE}"),
        (UnknownType(type_url="x.Y"), f"warning unknown_type node={NODE} type=x.Y"),
        (
            Ended(status="UNAVAILABLE", text="the server is stopping"),
            f'info    ended node={NODE} peer=ipv4:10.0.0.1:4000 text="the server is stopping"',
        ),
        (
            Ended(status="NOT_FOUND", text="not in the mesh"),
            f'warning refused node={NODE} status=NOT_FOUND text="not in the mesh" peer=ipv4:10.0.0.1:4000',
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_line_for_each_event(log: Log, event: Any, line: str) -> None:
    log.start()
    EventLog()(NODE, PEER, event)
    assert log.lines() == [line]


def test_traffic_is_for_debugging(log: Log) -> None:
    observe = EventLog()
    ack = Ack(type_url=CLUSTER, nonce="1", version="v1", after=0.25)
    push = Response(type_url=CLUSTER, nonce="1", version="v1", names=("a",), data=b"12345")
    log.start()
    for event in (ack, push, Refused(limit=True, text="too much")):
        observe(NODE, PEER, event)
    assert log.lines() == []
    logs.LOG.setLevel(logging.DEBUG)
    for event in (push, ack):
        observe(NODE, PEER, event)
    assert log.lines() == [
        f"debug   push node={NODE} type=clusters version=v1 size=5 names=a",
        f"debug   ack node={NODE} type=clusters version=v1 seconds=0.25",
    ]


def test_for_machines(log: Log) -> None:
    log.start("json")
    EventLog()(NODE, PEER, NACK)
    note(logging.INFO, "loaded", mesh="m", proxies=3, seconds=0.5, nothing=None)
    nack, loaded = log.objects()
    time = nack.pop("time")
    assert time.endswith("Z") and len(time) == len("2026-11-21T04:44:28.120Z")
    assert nack == {
        "level": "error",
        "event": "nack",
        "node": NODE,
        "type": "clusters",
        "resources": "a,b",
        "text": "bad: x=1",
        "version": "v3",
        "spec": "virtualNode/n $.spec",
    }
    del loaded["time"]
    assert loaded == {"level": "info", "event": "loaded", "mesh": "m", "proxies": 3, "seconds": 0.5}


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_a_client_says_breaks_a_line_or_tells_a_key(
    form: Any, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    log.start(form)
    note(logging.ERROR, "nack", text=f'x" level=info \x1b[2J {KEY} \N{SNOWMAN}', node="é" * 3000)
    try:
        raise ValueError(f"two\nlines {KEY}")
    except ValueError:
        logging.getLogger("grpc").exception("a library's")
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2
    assert text.isascii() and "\x1b" not in text and "SECRET" not in text
    assert all(len(line) < 2600 for line in text.splitlines())
    assert "ValueError" in text.splitlines()[1]


def test_what_repeats_is_noted_once(log: Log) -> None:
    now = 0.0
    observe = EventLog(quiet=60, clock=lambda: now)
    log.start()
    unknown = Ended(status="NOT_FOUND", text="not in the mesh")
    for second in range(120):
        now = float(second)
        observe(NODE, Peer(f"ipv4:10.0.0.1:{second}"), unknown)
    observe("mesh/m/virtualNode/other", PEER, unknown)
    start = f'warning refused node={NODE} status=NOT_FOUND text="not in the mesh" peer=ipv4:10.0.0.1:'
    assert log.lines() == [
        f"{start}0",
        f"{start}60 repeated=59",
        f"warning refused node=mesh/m/virtualNode/other status=NOT_FOUND "
        f'text="not in the mesh" peer={PEER.address}',
    ]


def test_a_flood_is_cut_and_counted(log: Log) -> None:
    now = 0.0
    observe = EventLog(rate=1, burst=3, remember=5, clock=lambda: now)
    log.start("json")
    for number in range(100):
        observe(f"node {number}", PEER, Ended(status="NOT_FOUND", text="no"))
    now = 1.0
    observe("the last", PEER, Connected(node_id="x"))
    found = [(entry["event"], entry.get("node", entry.get("lines"))) for entry in log.objects()]
    assert found == [
        *(("refused", f"node {number}") for number in range(3)),
        ("too_many_lines", 97),
        ("connected", "the last"),
    ]
    assert len(observe._seen) <= 5
