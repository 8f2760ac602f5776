"""What both variants of a stream do at their edges: events, limits, strange input, and bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from traces import snapshot

from appmesh_xds import proto
from appmesh_xds.resource import CLUSTER, ENDPOINTS, SECRET
from appmesh_xds.server import wire
from appmesh_xds.server.limits import TokenBucket
from appmesh_xds.server.messages import Memory
from appmesh_xds.server.protocol import (
    Ack,
    Connected,
    Delta,
    DeltaRequest,
    Limits,
    Nack,
    Refused,
    Request,
    Response,
    Sotw,
    Standing,
    UnknownType,
)
from appmesh_xds.server.redact import printable, redact

NODE = "mesh/m/virtualNode/n"
KEY = "-----BEGIN PRIVATE KEY-----\\nMIIEvSECRET\\n-----END PRIVATE KEY-----"


def test_the_first_message_says_who_it_is() -> None:
    stream = Sotw()
    assert stream.receive(Request(type_url=CLUSTER, node_id=NODE), 0) == [Connected(node_id=NODE)]
    assert stream.receive(Request(type_url=ENDPOINTS, node_id="mesh/m/virtualNode/other"), 0) == []
    assert stream.node_id == NODE


@pytest.mark.parametrize("stream", [Sotw(), Delta()])
def test_a_first_message_without_a_node_is_refused(stream: Sotw | Delta) -> None:
    message = Request(type_url=CLUSTER) if isinstance(stream, Sotw) else DeltaRequest(type_url=CLUSTER)
    (refused,) = stream.receive(message, 0)  # type: ignore[arg-type]
    assert refused == Refused(limit=False, text="the first message names no node")
    stream.update(snapshot(cds="a1"), 0)
    assert stream.refused and stream.respond(0) is None


def test_acks_and_nacks_are_events() -> None:
    stream = Sotw()
    stream.receive(Request(type_url=CLUSTER, node_id=NODE), 0)
    stream.update(snapshot(cds="a1,ab1"), 0)
    first = stream.respond(0)
    assert first is not None
    taken = Request(type_url=CLUSTER, nonce=first.nonce, version=first.version)
    assert stream.receive(taken, 2.5) == [
        Ack(type_url=CLUSTER, nonce=first.nonce, version=first.version, after=2.5)
    ]
    assert stream.receive(taken, 3) == [], "one response has one answer"
    made = snapshot(cds="a1,ab2")
    placed = made.clusters[1].at("virtualNode/n $.spec.backends[0]", "mesh")
    stream.update(msgspec.structs.replace(made, clusters=(made.clusters[0], placed)), 4)
    second = stream.respond(4)
    assert second is not None
    refused = Request(type_url=CLUSTER, nonce=second.nonce, error=f"ab: bad {KEY}\nmore")
    nack = Nack(
        type_url=CLUSTER,
        nonce=second.nonce,
        version=second.version,
        text="ab: bad [redacted]",
        resources=("ab",),
        origins=("virtualNode/n $.spec.backends[0]", "mesh"),
    )
    assert stream.receive(refused, 5) == [nack]
    assert stream.standing() == [
        Standing(
            type_url=CLUSTER,
            names=None,
            sent=second.version,
            sent_at=4,
            taken=first.version,
            taken_at=2.5,
            nack=nack,
            nack_at=5,
        )
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Error adding/updating cluster(s) z_80: Invalid path, z_8080: too", ("z_80", "z_8080")),
        ("z_8080: Invalid", ("z_8080",)),
        ("'z_80' is bad", ("z_80",)),
        ("xz_80 z_80-1 z_801", ()),
        ("z_801 and z_80", ("z_80",)),
    ],
)
def test_the_resources_that_a_refusal_names(text: str, names: tuple[str, ...]) -> None:
    stream = Delta()
    stream.receive(DeltaRequest(type_url=CLUSTER, node_id=NODE), 0)
    stream.update(snapshot(cds="z_801,z_80801"), 0)
    response = stream.respond(0)
    assert response is not None and response.names == ("z_80", "z_8080")
    (event,) = stream.receive(DeltaRequest(type_url=CLUSTER, nonce=response.nonce, error=text), 0)
    assert isinstance(event, Nack) and event.resources == names


# --- limits -------------------------------------------------------------------------------------------------


def test_too_many_names() -> None:
    limits = Limits(names=3)
    stream = Sotw(limits=limits)
    assert len(stream.receive(Request(type_url=ENDPOINTS, node_id=NODE, names=("a", "b", "c")), 0)) == 1
    (refused,) = stream.receive(Request(type_url=ENDPOINTS, names=tuple("abcd")), 0)
    assert refused == Refused(limit=True, text=f"4 names of {ENDPOINTS}, 3 can be")
    assert stream.receive(Request(type_url=ENDPOINTS), 0) == []


def test_too_many_names_little_by_little() -> None:
    stream = Delta(limits=Limits(names=3))
    stream.receive(DeltaRequest(type_url=ENDPOINTS, node_id=NODE, subscribe=("a", "b", "c")), 0)
    assert stream.receive(DeltaRequest(type_url=ENDPOINTS, subscribe=("d",), unsubscribe=("a",)), 0) == []
    (refused,) = stream.receive(DeltaRequest(type_url=ENDPOINTS, subscribe=("e",)), 0)
    assert isinstance(refused, Refused) and refused.limit


def test_too_many_versions() -> None:
    stream = Delta(limits=Limits(names=3))
    events = stream.receive(
        DeltaRequest(type_url=CLUSTER, node_id=NODE, versions=dict.fromkeys("abcd", "1")), 0
    )
    assert isinstance(events[-1], Refused)


def test_too_many_requests() -> None:
    stream = Sotw(limits=Limits(requests_per_second=10, burst=2))
    first = Request(type_url=CLUSTER, node_id=NODE)
    assert [len(stream.receive(first, now)) for now in (0, 0, 0.1, 0.2)] == [1, 0, 0, 0]
    assert stream.receive(first, 0.21) == [Refused(limit=True, text="more than 10 requests a second")]


def test_a_token_bucket_fills_up_to_its_burst() -> None:
    bucket = TokenBucket(rate=1, burst=3)
    assert [bucket.take(now) for now in (0, 0, 0, 0, 1, 1, 100, 100, 100, 100)] == [
        *(True, True, True, False),
        *(True, False),
        *(True, True, True, False),
    ]


def test_strange_types_are_reported_once_and_a_few() -> None:
    stream = Sotw()
    stream.receive(Request(type_url=CLUSTER, node_id=NODE), 0)
    events = [stream.receive(Request(type_url=f"t{n}\n"), 0) for n in (1, 1, *range(2, 100))]
    reported = [event for some in events for event in some]
    assert reported == [UnknownType(type_url=f"t{n}\\n") for n in range(1, 9)]


# --- text of clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Invalid path: /nope", "Invalid path: /nope"),
        ("Proto constraint validation failed: x\nkey: SECRET", "Proto constraint validation failed: x"),
        ("one\r\ntwo", "one"),
        ("before goo.gle/debugstr {SECRET}", "before "),
        (f"a {KEY} b", "a [redacted] b"),
        ("a -----BEGIN RSA PRIVATE KEY-----\\nSECRET", "a [redacted]"),
        ("-----BEGIN PRIVATE KEY-----\nSECRET", "[redacted]"),
        (f"{KEY} and {KEY}", "[redacted] and [redacted]"),
        ('"inline_bytes": "LS0tLS1CRUdJTiBQUklWQVRFSECRET=="', '"inline_bytes": "[redacted]"'),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("ünï\u2028", "\\xfcn\\xef\\u2028"),
        ("", ""),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_texts_are_short() -> None:
    assert redact("x" * 5_000_000) == "x" * 1021 + "..."
    assert redact("x" * 1024) == "x" * 1024
    assert len(redact("\x00" * 1024)) == 1024
    assert len(printable("é" * 2000)) == 1024


# --- bytes --------------------------------------------------------------------------------------------------


def test_responses_do_not_show_their_bytes() -> None:
    stream = Sotw()
    stream.receive(Request(type_url=SECRET, names=("s",), node_id=NODE), 0)
    stream.update(snapshot(sds="s1"), 0)
    response = stream.respond(0)
    assert response is not None and b"s1" in response.data
    assert "s1" not in repr(response)


def test_empty_resources_are_what_envoy_expects() -> None:
    endpoints = wire.empty_resource(ENDPOINTS, "a/ü")
    assert endpoints is not None
    assert endpoints.message() == proto.ClusterLoadAssignment(cluster_name="a/ü")
    assert endpoints.version == endpoints.of(endpoints.message()).version
    assert wire.empty_resource(SECRET, "s") is None


def test_requests_are_taken_apart() -> None:
    message = proto.DiscoveryRequest(
        type_url=CLUSTER, version_info="v", response_nonce="7", resource_names=["a", "b"]
    )
    message.node.id = NODE
    decoded = wire.request(message.SerializeToString())
    assert decoded == Request(
        type_url=CLUSTER, version="v", nonce="7", names=("a", "b"), error=None, node_id=NODE
    )
    message.error_detail.message = ""
    message.error_detail.code = 13
    assert wire.request(message.SerializeToString()).error == "", "an error without a text is one"


def test_delta_requests_are_taken_apart() -> None:
    message = proto.DeltaDiscoveryRequest(
        type_url=CLUSTER,
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        response_nonce="7",
        initial_resource_versions={"a": "1"},
    )
    message.error_detail.message = "no"
    decoded = wire.delta_request(message.SerializeToString())
    assert decoded == DeltaRequest(
        type_url=CLUSTER, subscribe=("a",), unsubscribe=("b",), nonce="7", versions={"a": "1"}, error="no"
    )


@pytest.mark.parametrize("decode", [wire.request, wire.delta_request])
@pytest.mark.parametrize("data", [b"\xff", b"\x1a\x05ab", b"\x22\x02\xff\xfe"])
def test_what_is_no_request_is_an_error(decode: object, data: bytes) -> None:
    assert callable(decode)
    with pytest.raises(ValueError, match=r"not a (Delta)?DiscoveryRequest"):
        decode(data)


def test_a_stream_leaves_nothing_when_all_was_taken() -> None:
    stream = Delta()
    stream.receive(DeltaRequest(type_url=CLUSTER, node_id=NODE), 0)
    stream.update(snapshot(cds="a1"), 0)
    response = stream.respond(0)
    assert response is not None
    assert stream.memory() == Memory(doubts={CLUSTER: {"a": "1"}})
    stream.receive(DeltaRequest(type_url=CLUSTER, nonce=response.nonce), 0)
    assert stream.memory() == Memory()


def test_deadlines() -> None:
    stream = Sotw(gate_timeout=30)
    assert stream.deadline is None
    stream.receive(Request(type_url=CLUSTER, node_id=NODE), 5)
    stream.update(snapshot(cds="a1"), 5)
    assert stream.deadline is None
    response = stream.respond(7)
    assert response is not None and stream.deadline == 37
    stream.receive(Request(type_url=CLUSTER, nonce=response.nonce), 8)
    assert stream.deadline is None
    assert stream.advance(100) == []


# --- ACKs as they come --------------------------------------------------------------------------------------


def _sotw_ack(response: Response, *names: str, **more: object) -> bytes:
    fields = {
        "type_url": response.type_url,
        "version_info": response.version,
        "response_nonce": response.nonce,
    }
    return proto.DiscoveryRequest(resource_names=names, **{**fields, **more}).SerializeToString()


def _sent(stream: Sotw | Delta) -> Response:
    response = stream.respond(0)
    assert response is not None
    return response


def _asking_for_endpoints() -> tuple[Sotw, Response]:
    stream = Sotw()
    stream.receive(Request(type_url=ENDPOINTS, names=("b", "a"), node_id=NODE), 0)
    stream.update(snapshot(eds="a1,b1"), 0)
    return stream, _sent(stream)


def test_an_ack_is_known_by_its_bytes() -> None:
    stream, response = _asking_for_endpoints()
    data = _sotw_ack(response, "b", "a")
    expected = Ack(type_url=ENDPOINTS, nonce=response.nonce, version=response.version, after=0.5)
    assert stream.acknowledge(data, 0.5) == expected
    assert stream.acknowledge(data, 0.6) is None, "one response has one answer"
    assert stream.respond(1) is None
    stream.update(snapshot(eds="a1,b2"), 1)
    assert list(_sent(stream).names) == ["a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda response: _sotw_ack(response, "a", "b"),
        lambda response: _sotw_ack(response, "b", "a", "c"),
        lambda response: _sotw_ack(response, "b", "a", response_nonce="9"),
        lambda response: _sotw_ack(response, "b", "a", version_info="old"),
        lambda response: _sotw_ack(response, "b", "a", error_detail={"message": "no"}),
        lambda response: _sotw_ack(response, "b", "a", node={"id": NODE}),
        lambda response: b"",
    ],
    ids=["another order", "one more", "nonce", "version", "refusal", "with its node", "nothing"],
)
def test_what_is_not_just_an_ack_is_parsed(change: Callable[[Response], bytes]) -> None:
    stream, response = _asking_for_endpoints()
    assert stream.acknowledge(change(response), 0) is None
    assert stream.memory().doubts, "it was taken for an answer"


def test_an_ack_after_another_wish_is_parsed() -> None:
    stream, response = _asking_for_endpoints()
    wish = Request(type_url=ENDPOINTS, names=("b",), version="", nonce=response.nonce)
    stream.receive(wish, 0)
    assert stream.acknowledge(_sotw_ack(response, "b", "a"), 0) is None


def test_an_ack_of_what_was_overtaken_is_parsed() -> None:
    stream, first = _asking_for_endpoints()
    stream.update(snapshot(eds="a2,b2"), 0)
    second = _sent(stream)
    assert stream.acknowledge(_sotw_ack(first, "b", "a"), 0) is None
    assert stream.acknowledge(_sotw_ack(second, "b", "a"), 0) is not None


def test_an_ack_of_delta_is_known_by_its_bytes() -> None:
    stream = Delta()
    stream.receive(DeltaRequest(type_url=CLUSTER, node_id=NODE), 0)
    stream.update(snapshot(cds="a1"), 0)

    def ack(response: Response) -> bytes:
        made = proto.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
        return made.SerializeToString()

    first = _sent(stream)
    taken = stream.acknowledge(ack(first), 0)
    assert taken == Ack(type_url=CLUSTER, nonce=first.nonce, version=first.version, after=0)
    stream.update(snapshot(cds="a2"), 0)
    second = _sent(stream)
    stream.update(snapshot(cds="a3"), 0)
    third = _sent(stream)
    assert [stream.acknowledge(ack(one), 0) for one in (second, third)] == [None, None]
    for one in (second, third):
        (event,) = stream.receive(DeltaRequest(type_url=CLUSTER, nonce=one.nonce), 0)
        assert isinstance(event, Ack) and event.version == one.version
    stream.update(snapshot(cds="a4"), 0)
    assert stream.acknowledge(ack(_sent(stream)), 0) is not None


def test_an_ack_after_the_refusal_of_the_stream_counts_no_more() -> None:
    stream, response = _asking_for_endpoints()
    stream.receive(Request(type_url=CLUSTER, names=tuple(map(str, range(6000)))), 0)
    assert stream.refused
    assert stream.acknowledge(_sotw_ack(response, "b", "a"), 0) is None


def test_a_refusal_tells_a_few_places_of_many() -> None:
    stream = Sotw()
    stream.receive(Request(type_url=CLUSTER, node_id=NODE), 0)
    made = snapshot(cds="a1")
    places = [f"virtualService/{number} $.spec" for number in range(40)]
    stream.update(msgspec.structs.replace(made, clusters=(made.clusters[0].at(*places),)), 0)
    (nack,) = stream.receive(Request(type_url=CLUSTER, nonce=_sent(stream).nonce, error="a: bad"), 0)
    assert isinstance(nack, Nack) and nack.origins == tuple(places[:16])
