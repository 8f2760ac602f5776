"""`--cloud-map dns`: a real Envoy asks a name server, which the tests bring along, for nodes in Cloud Map."""

from __future__ import annotations

import socket
import socketserver
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apps import HttpApp, answering
from clients import get
from real_envoy import Envoy, free_port, poll_until
from test_cloud_map import color, front, service

import appmesh_xds as am
from appmesh_xds import render
from appmesh_xds.bootstrap import static_bootstrap

#: Types of DNS records.
A, AAAA = 1, 28
_RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


class NameServer:
    """Answers what it is told to, over UDP, and remembers the questions."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[str]] = {}
        self.asked: set[tuple[str, int]] = set()
        names = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                question, to = self.request
                to.sendto(names.answer(question), self.client_address)

        self.server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def answer(self, packet: bytes) -> bytes:
        end, labels = 12, []
        while length := packet[end]:
            labels.append(packet[end + 1 : end + 1 + length].decode())
            end += 1 + length
        kind = struct.unpack_from(">H", packet, end + 1)[0]
        asked = ".".join(labels).lower(), kind
        self.asked.add(asked)
        found = self.records.get(asked, [])
        family = socket.AF_INET if kind == A else socket.AF_INET6
        data = [socket.inet_pton(family, one) for one in found]
        # A response, its name a pointer to the question's, to be kept for a second.
        head = packet[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
        records = [struct.pack(">HHHIH", 0xC00C, kind, 1, 1, len(one)) + one for one in data]
        return head + packet[12 : end + 5] + b"".join(records)


@pytest.fixture
def names() -> Iterator[NameServer]:
    made = NameServer()
    with answering(made.server):
        yield made


def _bootstrap(mesh: am.Mesh, egress: int, names: NameServer) -> dict[str, Any]:
    options = am.Options(cloud_map="dns", interception="none", egress_port=egress)
    made = static_bootstrap(mesh, "virtualNode/front", options)
    assert made.snapshot.problems == ()
    server = {"address": "127.0.0.1", "port_value": names.server.server_address[1], "protocol": "UDP"}
    resolver = {
        "@type": _RESOLVER,
        "resolvers": [{"socket_address": server}],
        "dns_resolver_options": {"no_default_search_domain": True},
    }
    config = {"name": "envoy.network.dns_resolver.cares", "typed_config": resolver}
    bootstrap = {**render.to_dict(made.bootstrap), "typed_dns_resolver_config": config}
    for cluster in bootstrap["static_resources"]["clusters"]:
        cluster["dns_refresh_rate"] = "0.1s"  # five seconds otherwise
    return bootstrap


def test_every_address_of_the_service_is_used(tmp_path: Path, names: NameServer) -> None:
    """Applications on two loopback addresses and one port: Cloud Map's DNS has the address alone."""
    with HttpApp("color") as app:
        node = color(ipPreference="IPv4_ONLY")
        node["spec"]["listeners"][0]["portMapping"]["port"] = app.port
        mesh, egress = am.loads([front("color"), service(), node]), free_port()
        names.records["color.shop.internal", A] = ["127.0.0.1", "127.0.0.2"]
        with Envoy(_bootstrap(mesh, egress, names), tmp_path) as envoy:
            hosts = rf"cluster\.cds_egress_shop_color_http_{app.port}\.membership_total$"
            assert list(envoy.stats(hosts).values()) == [2]
            names.records["color.shop.internal", A] = ["127.0.0.1"]
            poll_until(lambda: list(envoy.stats(hosts).values()) == [1], envoy.log_text)
            assert get(egress, host="color.local").text == "color"
    assert names.asked == {("color.shop.internal", A)}, "no IPv6 was asked for"


def test_what_dns_does_not_have_is_not_served(tmp_path: Path, names: NameServer) -> None:
    """As of namespaces that are for API calls alone."""
    mesh, egress = am.loads([front("color"), service(), color()]), free_port()
    with Envoy(_bootstrap(mesh, egress, names), tmp_path):
        reply = get(egress, host="color.local")
        assert (reply.status, reply.text) == (503, "no healthy upstream")
    assert {name for name, _ in names.asked} == {"color.shop.internal"}
