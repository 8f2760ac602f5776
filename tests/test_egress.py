"""What cannot share a port, and two policies for one node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pairs import backend, data, listener, mesh, node, service

import appmesh_xds as am
from appmesh_xds import spec

Json = dict[str, Any]


def _front(*services: spec.Data, **more: Any) -> am.Mesh:
    names = [one.name for one in services if isinstance(one, spec.VirtualServiceData)]
    front = data("virtualNode", "front", {"backends": [backend(name) for name in names], **more})
    targets = [
        node("http", [listener(80)]),
        node("http2", [listener(80, "http2")]),
        node("tcp", [listener(80, "tcp")]),
        node("tcp2", [listener(80, "tcp")]),
        node("egress", [listener(15001)]),
    ]
    names_of_targets = ("http", "http2", "tcp", "tcp2", "egress")
    return mesh([front, *targets, *services], dict.fromkeys(names_of_targets, 1))


def _problems(of: am.Mesh, **options: Any) -> list[tuple[str, str]]:
    snapshot = am.translate(of, "virtualNode/front", am.Options(**options))
    return [(problem.resource, problem.message) for problem in snapshot.errors]


def _chains(of: am.Mesh) -> list[str]:
    (listener,) = am.translate(of, "virtualNode/front").to_dict()["listeners"]
    return [chain["name"] for chain in listener["filter_chains"]]


def test_http_services_share_a_port_whatever_their_version() -> None:
    of = _front(service("a.local", to_node="http"), service("b.local", to_node="http2"))
    assert _problems(of) == []
    assert _chains(of) == ["egress_80", "amazonaws"]
    (routes,) = am.translate(of, "virtualNode/front").to_dict()["routes"]
    assert [host["name"] for host in routes["virtual_hosts"]] == ["a.local", "b.local"]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("tcp", "tcp2", "tcp port 80 is taken by tcp service 'a.local'"),
        ("tcp", "http", "http port 80 is taken by tcp service 'a.local'"),
        ("http", "tcp", "tcp port 80 is taken by http service 'a.local'"),
    ],
)
def test_a_tcp_service_owns_its_port(first: str, second: str, message: str) -> None:
    of = _front(service("a.local", to_node=first), service("b.local", to_node=second))
    ((resource, text),) = _problems(of)
    assert resource == "virtualService/b.local"
    assert text.startswith(message)
    # The first is served all the same.
    assert _chains(of) == ["egress_80", "amazonaws"]


def test_names_that_are_one_host() -> None:
    of = _front(service("a.local", to_node="http"), service("A.local", to_node="http2"))
    ((resource, text),) = _problems(of)
    assert (resource, text) == (
        "virtualService/a.local",
        "the host 'a.local' is that of virtual service 'A.local' too",
    )


def test_the_egress_port_is_taken() -> None:
    of = _front(service("a.local", to_node="egress"))
    assert _problems(of) == [("virtualService/a.local", "port 15001 is the egress listener's own")]
    assert _problems(of, egress_port=15002) == []


def test_a_missing_service_is_left_out_and_named() -> None:
    of = _front(service("a.local", to_node="http"))
    front = of.virtual_nodes["front"]
    backends = (*(front.spec.backends or ()), msgspec.convert(backend("gone.local"), spec.Backend))
    of = of.replace(
        msgspec.structs.replace(front, spec=msgspec.structs.replace(front.spec, backends=backends))
    )
    snapshot = am.translate(of, "virtualNode/front")
    assert [(p.path, p.severity) for p in snapshot.problems] == [
        ("$.spec.backends[1].virtualService.virtualServiceName", "warning")
    ]
    with pytest.raises(am.TranslationErrors, match=r"gone\.local"):
        am.translate(of, "virtualNode/front", strict=True)


def test_a_tcp_backend_without_a_port_to_bind() -> None:
    of = _front(service("a.local", to_node="tcp"))
    snapshot = am.translate(of, "virtualNode/front", am.Options(interception="none"))
    (problem,) = snapshot.errors
    assert "--tcp-egress 80=PORT" in problem.hint
    assert _problems(of, interception="none", tcp_egress=((80, 8081),)) == []


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        ({"egress_port": 15000}, "the egress listener"),
        ({"admin_port": 15001}, "the admin endpoint"),
        ({"app_port": 15000}, "the ingress listener"),
    ],
)
def test_sockets_that_clash(options: Json, roles: str) -> None:
    of = mesh([node("front", [listener(80)])], {})
    ((_, message),) = _problems(of, **options)
    assert roles in message
