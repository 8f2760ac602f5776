"""Bugs that App Mesh had and we do not repeat (reference §9.2; `RM` is its public roadmap).

Each test is named by what used to go wrong.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from by_hand import (
    gateway,
    gateway_route,
    http,
    listener,
    mesh,
    mesh_spec,
    node,
    route,
    router,
    service,
    tcp,
)
from oracle import Oracle
from real_envoy import Envoy, free_port

from appmesh_xds import proto, spec
from appmesh_xds.facts import Endpoint
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.snapshot import Snapshot, translate
from appmesh_xds.spec.checks import check
from appmesh_xds.spec.convert import convert
from appmesh_xds.translator import Translator

FILES = {"file": {"certificateChain": "/c.pem", "privateKey": "/k.pem"}}
CLOUD_MAP = {"awsCloudMap": {"namespaceName": "ns", "serviceName": "one"}}
HEALTH_CHECK = {
    "protocol": "http",
    "path": "/ping",
    "healthyThreshold": 2,
    "unhealthyThreshold": 2,
    "intervalMillis": 5000,
    "timeoutMillis": 2000,
}


def _message(resources: Any, name: str) -> Any:
    """One resource of a snapshot, by its name."""
    (found,) = (one.message() for one in resources if one.name == name)
    return found


def _chains(snapshot: Snapshot, name: str) -> dict[str, Any]:
    return {chain.name: chain for chain in _message(snapshot.listeners, name).filter_chains}


def _egress_host(snapshot: Snapshot, port: int, name: str) -> Any:
    hosts = _message(snapshot.routes, f"rds_egress_http_{port}").virtual_hosts
    (host,) = (one for one in hosts if one.name == name)
    return host


def test_http_and_http2_services_on_one_port_do_not_spoil_the_listener(oracle: Oracle) -> None:
    """RM#175: two chains with one match; Envoy refused the whole listener and the node got nothing more."""
    given = mesh(
        node("one", http(8080)),
        node("two", listener("http2", 8080)),
        service("one.mesh", node="one"),
        service("two.mesh", node="two"),
        node("client", backends=("one.mesh", "two.mesh")),
    )
    snapshot = translate(given, "virtualNode/client")
    assert not snapshot.errors
    assert sorted(_chains(snapshot, "lds_egress_0.0.0.0_15001")) == ["amazonaws", "egress_8080"]
    for name in ("one.mesh", "two.mesh"):
        assert _egress_host(snapshot, 8080, name).routes
    assert oracle.accepts(snapshot)


@pytest.mark.parametrize("filter_type", ["ALLOW_ALL", "DROP_ALL"])
def test_tls_to_others_than_aws_is_let_out_under_allow_all(filter_type: str, oracle: Oracle) -> None:
    """RM#79: the chain for *.amazonaws.com took port 443 for itself, and other names died on it."""
    given = mesh(mesh_spec(egressFilter={"type": filter_type}), node("client"))
    snapshot = translate(given, "virtualNode/client")
    chains = _chains(snapshot, "lds_egress_0.0.0.0_15001")
    assert list(chains["amazonaws"].filter_chain_match.server_names) == ["*.amazonaws.com"]
    of_443 = [chain for chain in chains.values() if chain.filter_chain_match.destination_port.value == 443]
    without_names = [chain for chain in of_443 if not chain.filter_chain_match.server_names]
    assert len(without_names) == (1 if filter_type == "ALLOW_ALL" else 0)
    for chain in without_names:
        config: Any = proto.unpack(chain.filters[0].typed_config)
        assert config.cluster == "cds_egress_m_mesh-allow-all"
    assert oracle.accepts(snapshot)


def test_a_backend_on_443_and_the_aws_chain_share_the_port(oracle: Oracle) -> None:
    """RM#79 again: two chains of one match would be refused, a wider range would never be reached."""
    given = mesh(
        mesh_spec(egressFilter={"type": "ALLOW_ALL"}),
        node("one", tcp(443)),
        service("one.mesh", node="one"),
        node("client", backends=("one.mesh",)),
    )
    snapshot = translate(given, "virtualNode/client")
    chains = _chains(snapshot, "lds_egress_0.0.0.0_15001")
    assert sorted(chains) == ["amazonaws", "egress_443", "mesh_allow_all", "no_loop"]
    ranges = {
        name: str(chains[name].filter_chain_match.prefix_ranges) for name in ("amazonaws", "egress_443")
    }
    assert ranges["amazonaws"] == ranges["egress_443"]
    assert oracle.accepts(snapshot)


def test_trust_without_names_is_not_an_empty_list_of_names(oracle: Oracle) -> None:
    """RM#331: a combined validation context with an empty list, which Envoy refused."""
    validation = {"trust": {"sds": {"secretName": "ROOTCA"}}}
    tls = {"mode": "STRICT", "certificate": {"sds": {"secretName": "id"}}, "validation": validation}
    snapshot = translate(
        mesh(node("server", http(8080, tls=tls))), "virtualNode/server", Options(sds_socket="/s")
    )
    chain = _chains(snapshot, "lds_ingress_0.0.0.0_15000")["ingress_8080"]
    context: Any = proto.unpack(chain.transport_socket.typed_config)
    common = context.common_tls_context
    assert common.WhichOneof("validation_context_type") == "validation_context_sds_secret_config"
    assert context.require_client_certificate.value is True
    assert oracle.accepts(snapshot)


def test_an_empty_list_of_names_is_refused_by_us() -> None:
    """RM#331, said by the spec itself: it would switch the check off."""
    empty = {
        "trust": {"file": {"certificateChain": "/ca.pem"}},
        "subjectAlternativeNames": {"match": {"exact": []}},
    }
    conversion = convert(empty, spec.TlsValidationContext)
    assert [problem.path for problem in conversion.problems] == ["$.subjectAlternativeNames.match.exact"]


@pytest.mark.parametrize("keep", ["DISABLED", "ENABLED"])
def test_a_gateway_waits_as_long_as_the_slowest_route_whatever_the_host(keep: str, oracle: Oracle) -> None:
    """RM#376: with the client's host name kept, the first hop gave up after 15 s."""
    given = mesh(
        node("one", http(8080)),
        router("r", http(80)),
        route("r", "slow", ("one", 1), timeout={"perRequest": {"unit": "s", "value": 90}}),
        route(
            "r",
            "fast",
            ("one", 1),
            match={"prefix": "/fast"},
            timeout={"perRequest": {"unit": "s", "value": 2}},
        ),
        service("one.mesh", router="r"),
        gateway("g", http(9080)),
        gateway_route("g", "all", "one.mesh", rewrite={"hostname": {"defaultTargetHostname": keep}}),
    )
    snapshot = translate(given, "virtualGateway/g")
    (host,) = _message(snapshot.routes, "rds_ingress_http_9080").virtual_hosts
    assert [route.route.timeout.seconds for route in host.routes] == [90]
    assert oracle.accepts(snapshot)


def test_a_connection_reset_is_retried_by_default() -> None:
    """RM#284: connections from the pool to instances that were scaled down gave 503."""
    given = mesh(
        node("one", http(8080)), service("one.mesh", node="one"), node("client", backends=("one.mesh",))
    )
    (only,) = _egress_host(translate(given, "virtualNode/client"), 8080, "one.mesh").routes
    assert "reset" in only.route.retry_policy.retry_on.split(",")
    assert only.route.retry_policy.num_retries.value == 2


def test_a_node_made_anew_under_an_old_name_is_not_the_old_one() -> None:
    """RM#50: clients kept what they had been told of the node that was deleted."""
    given = mesh(
        node("one", http(8080)), service("one.mesh", node="one"), node("client", backends=("one.mesh",))
    )
    translator = Translator()
    before = {one.proxy: one for one in translator.translate_all(given)}
    without = given.without("virtualNode/one")
    translator.update(without)
    again = without.replace(node("one", http(8080), serviceDiscovery={"dns": {"hostname": "elsewhere"}}))
    translator.update(again)
    after = translator.snapshot("virtualNode/client")
    assert after == translate(again, "virtualNode/client")
    name = "cds_egress_m_one_http_8080"
    old, new = (_message(one.clusters, name) for one in (before["virtualNode/client"], after))
    hosts = [
        one.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address
        for one in (old, new)
    ]
    assert hosts == ["one.local", "elsewhere"]


@pytest.mark.parametrize(
    ("protocol", "offered", "asked"),
    [
        ("http", ["h2", "http/1.1"], ["http/1.1"]),
        ("http2", ["h2"], ["h2"]),
        ("grpc", ["h2"], ["h2"]),
        ("tcp", [], []),
    ],
)
def test_tls_says_which_protocol_it_carries(protocol: str, offered: list[str], asked: list[str]) -> None:
    """RM#226: without ALPN, gRPC and HTTP/2 clients from outside failed."""
    tls = {"mode": "STRICT", "certificate": FILES}
    given = mesh(
        node("one", listener(protocol, 8080, tls=tls)),
        service("one.mesh", node="one"),
        node("client", backends=("one.mesh",)),
    )
    chain = _chains(translate(given, "virtualNode/one"), "lds_ingress_0.0.0.0_15000")["ingress_8080"]
    server: Any = proto.unpack(chain.transport_socket.typed_config)
    assert list(server.common_tls_context.alpn_protocols) == offered
    cluster = _message(translate(given, "virtualNode/client").clusters, f"cds_egress_m_one_{protocol}_8080")
    client: Any = proto.unpack(cluster.transport_socket.typed_config)
    assert list(client.common_tls_context.alpn_protocols) == asked


def test_websocket_over_http2_is_offered(tmp_path: Any) -> None:
    """RM#465: clients saw no SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441), so HTTP/2 carried no WebSocket."""
    port = free_port()
    options = Options(
        delivery="inline", interception="none", ingress_port=port, egress_port=free_port(), admin_port=1
    )
    told = translate(mesh(node("one", http(8080))), "virtualNode/one", options).to_dict()
    bootstrap = {"static_resources": {"listeners": told["listeners"], "clusters": told["clusters"]}}
    with Envoy(bootstrap, tmp_path), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        stream = connection.makefile("rb")
        head = stream.read(9)
        assert head[3] == 4, "the first frame is SETTINGS"
        body = stream.read(int.from_bytes(head[:3], "big"))
    found = {int.from_bytes(body[i : i + 2], "big"): body[i + 2 : i + 6] for i in range(0, len(body), 6)}
    assert found.get(8) == b"\x00\x00\x00\x01"


def test_targets_that_listen_on_other_ports_than_the_router_are_kept(oracle: Oracle) -> None:
    """examples#93: such targets were dropped, and nothing said so."""
    given = mesh(
        node("one", http(8081)),
        node("two", http(8082)),
        router("r", http(80)),
        route("r", "both", ("one", 30), ("two", 70)),
        service("both.mesh", router="r"),
        node("client", backends=("both.mesh",)),
    )
    snapshot = translate(given, "virtualNode/client")
    assert not snapshot.problems
    (only,) = _egress_host(snapshot, 80, "both.mesh").routes
    weights = {one.name: one.weight.value for one in only.route.weighted_clusters.clusters}
    assert weights == {"cds_egress_m_one_http_8081": 30, "cds_egress_m_two_http_8082": 70}
    assert oracle.accepts(snapshot)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_what_is_left_out_is_said(protocol: str) -> None:
    """examples#93, its lesson: nothing disappears without a problem that names it."""
    given = mesh(
        node("one", listener(protocol, 8081)),
        router("r", listener(protocol, 80)),
        route("r", "both", ("one", 30), ("gone", 70), protocol=protocol),
        service("both.mesh", router="r"),
        node("client", backends=("both.mesh", "missing.mesh")),
    )
    said = {(one.resource, one.path): one.severity for one in translate(given, "virtualNode/client").problems}
    assert said == {
        ("virtualNode/client", "$.spec.backends[1].virtualService.virtualServiceName"): "warning",
        (
            "virtualRouter/r/route/both",
            f"$.spec.{protocol}Route.action.weightedTargets[1].virtualNode",
        ): "warning",
    }


def _cloud_map(*endpoints: Endpoint) -> Mesh:
    given = mesh(
        node("one", http(8080, healthCheck=HEALTH_CHECK), serviceDiscovery=CLOUD_MAP),
        service("one.mesh", node="one"),
        node("client", backends=("one.mesh",)),
    )
    return given.replace(endpoints={"one": endpoints})


def test_endpoints_that_cloud_map_dropped_go_though_their_health_check_passes(oracle: Oracle) -> None:
    """RM#213: Envoy keeps such endpoints, and deploys gave 503 and 504."""
    snapshot = translate(_cloud_map(Endpoint(address="127.0.0.2")), "virtualNode/client")
    cluster = _message(snapshot.clusters, "cds_egress_m_one_http_8080")
    assert cluster.health_checks
    assert cluster.ignore_health_on_host_removal is True
    assert oracle.accepts(snapshot)


def test_a_change_of_endpoints_reaches_every_client_and_nothing_else() -> None:
    """RM#151, RM#362: clients went on with the endpoints of before."""
    before = _cloud_map(Endpoint(address="127.0.0.2"), Endpoint(address="127.0.0.3"))
    translator = Translator()
    list(translator.translate_all(before))
    changes = translator.update(before.replace(endpoints={"one": [Endpoint(address="127.0.0.4")]}))
    assert [(change.proxy, sorted(change.differences)) for change in changes] == [
        ("virtualNode/client", ["endpoints"])
    ]
    (change,) = changes
    assert change.snapshot is not None
    (assignment,) = (one.message() for one in change.snapshot.endpoints)
    (locality,) = assignment.endpoints  # type: ignore[attr-defined]
    found = [one.endpoint.address.socket_address.address for one in locality.lb_endpoints]
    assert found == ["127.0.0.4"]


def test_two_tcp_services_on_one_port_are_a_problem_and_not_a_silence(oracle: Oracle) -> None:
    """RM#195: the second was unusable, and nothing said so."""
    given = mesh(
        node("one", tcp(5432)),
        node("two", tcp(5432)),
        service("one.mesh", node="one"),
        service("two.mesh", node="two"),
        node("client", backends=("one.mesh", "two.mesh")),
    )
    snapshot = translate(given, "virtualNode/client")
    (error,) = snapshot.errors
    assert error.resource == "virtualService/two.mesh"
    assert "'one.mesh'" in error.message
    assert oracle.accepts(snapshot), "what is left is whole"


def test_a_backend_named_twice_is_said_and_used_once(oracle: Oracle) -> None:
    """RM#170: merged in silence, and an error of the client later."""
    given = mesh(
        node("one", http(8080)),
        service("one.mesh", node="one"),
        node("client", backends=("one.mesh", "one.mesh")),
    )
    (warning,) = check(given.virtual_nodes["client"])
    assert (warning.severity, warning.path) == ("warning", "$.spec.backends[1]")
    assert oracle.accepts(translate(given, "virtualNode/client"))


@pytest.mark.parametrize(
    ("hostname", "domains"),
    [
        # RM#365: `Host: a.example:9080` did not match.
        ({"exact": "A.example"}, ["a.example", "a.example:9080"]),
        # RM#384: a suffix is of whole labels.
        ({"suffix": ".example"}, ["*.example", "*.example:9080"]),
        ({"suffix": "example"}, ["*.example", "*.example:9080"]),
    ],
)
def test_a_gateway_serves_hosts_that_name_the_port(
    hostname: dict[str, str], domains: list[str], oracle: Oracle
) -> None:
    given = mesh(
        node("one", http(8080)),
        service("one.mesh", node="one"),
        gateway("g", http(9080)),
        gateway_route("g", "host", "one.mesh", match={"prefix": "/", "hostname": hostname}),
    )
    snapshot = translate(given, "virtualGateway/g")
    (host,) = _message(snapshot.routes, "rds_ingress_http_9080").virtual_hosts
    assert list(host.domains) == domains
    assert oracle.accepts(snapshot)
