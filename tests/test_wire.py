"""Joining serialised messages gives what protobuf itself would have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appmesh_xds import proto
from appmesh_xds.envoy.shared import shared
from appmesh_xds.wire import field, split, varint

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300)


@given(texts, st.lists(st.tuples(texts, texts), max_size=4))
def test_a_route_configuration_is_its_name_and_its_hosts(name: str, hosts: list[tuple[str, str]]) -> None:
    whole = proto.RouteConfiguration(name=name)
    whole.virtual_hosts.extend(proto.VirtualHost(name=one, domains=[domain]) for one, domain in hosts)
    parts = [proto.VirtualHost(name=one, domains=[domain]).SerializeToString() for one, domain in hosts]
    joined = (field(1, name.encode()) if name else b"") + b"".join(field(2, part) for part in parts)
    assert joined == whole.SerializeToString(deterministic=True)


@given(texts, texts, texts, st.integers(0, 2**32 - 1), st.binary(max_size=400))
def test_a_cluster_takes_a_field_between_those_around_it(
    name: str, key: str, path: str, port: int, socket: bytes
) -> None:
    whole = proto.Cluster(name=name)
    whole.connect_timeout.seconds = port
    whole.metadata.filter_metadata[key].fields["k"].string_value = path
    address = whole.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = path, port
    before, after = split(whole.SerializeToString(deterministic=True), 24)
    whole.transport_socket.name = "tls"
    whole.transport_socket.typed_config.value = socket
    inner = whole.transport_socket.SerializeToString(deterministic=True)
    assert before + field(24, inner) + after == whole.SerializeToString(deterministic=True)


@given(st.integers(0, 2**64 - 1))
def test_varints(value: int) -> None:
    encoded = varint(value)
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(encoded)) == value
    assert all(byte & 0x80 for byte in encoded[:-1]) and not encoded[-1] & 0x80


@given(st.binary(max_size=60), st.integers(1, 40))
def test_what_is_no_message_is_split_or_refused(content: bytes, number: int) -> None:
    try:
        before, after = split(content, number)
    except ValueError:
        return
    assert before + after == content


def test_split_refuses_a_truncated_number() -> None:
    with pytest.raises(ValueError, match="does not end"):
        split(b"\x80", 24)


def test_shared_results_live_as_long_as_somebody_holds_them() -> None:
    class Result:
        pass

    calls = []

    @shared
    def make(one: str, other: int) -> Result:
        calls.append((one, other))
        return Result()

    held = make("a", 1)
    assert make("a", 1) is held
    assert make("a", 2) is not held
    assert calls == [("a", 1), ("a", 2)]
    del held
    assert make("a", 1) is not None
    assert calls == [("a", 1), ("a", 2), ("a", 1)]
