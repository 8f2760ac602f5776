"""Whatever is translated without an error, Envoy accepts.

The normal suite tries 200 meshes. At depth, with as many as one has patience for (10,000 take twenty to
thirty minutes on one core, and half of that as two processes of 5,000, which draw seeds of their own):

    APPMESH_XDS_DEPTH=10000 pytest tests/test_oracle.py -k accepts_what

Each counter-example becomes a test of its own in `test_regressions.py`.
"""

from __future__ import annotations

import os
from typing import ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from msgspec import inspect
from oracle import Oracle
from strategies import meshes, options

from appmesh_xds import proto, spec
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.resource import Resource
from appmesh_xds.snapshot import Snapshot, translate

DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "200"))


class Tally:
    """How much of what was generated said something."""

    meshes = snapshots = faulty = 0
    #: (struct, member) pairs that were set in a mesh of which Envoy judged a proxy.
    fields: ClassVar[set[tuple[str, str]]] = set()


def _note_fields(struct: msgspec.Struct) -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if value is not None:
            Tally.fields.add((type(struct).__name__, name))
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, msgspec.Struct):
                _note_fields(one)


def _all_fields() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    waiting: list[type[msgspec.Struct]] = list(spec.DATA_TYPES)
    while waiting:
        cls = waiting.pop()
        for field in msgspec.structs.fields(cls):
            if (cls.__name__, field.name) not in found:
                found.add((cls.__name__, field.name))
                waiting.extend(_structs_in(inspect.type_info(field.type)))
    return found


def _structs_in(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    match kind:
        case inspect.StructType():
            return [kind.cls]
        case inspect.UnionType():
            return [cls for one in kind.types for cls in _structs_in(one)]
        case inspect.VarTupleType():
            return _structs_in(kind.item_type)
    return []


#: Names the owner of a shared mesh, which no resource of Envoy's holds.
_NOT_GENERATED = {(cls.__name__, "mesh_owner") for cls in spec.DATA_TYPES}


@settings(
    max_examples=DEPTH,
    deadline=None,
    database=None,
    derandomize="APPMESH_XDS_DEPTH" not in os.environ,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    print_blob=True,
)
@given(mesh=meshes(), options=options)
def accepts(oracle: Oracle, mesh: Mesh, options: Options) -> None:
    Tally.meshes += 1
    judged = oracle.judged
    for proxy in mesh.proxies():
        snapshot = translate(mesh, proxy, options)
        Tally.snapshots += 1
        if snapshot.errors:
            Tally.faulty += 1
            continue
        verdict = oracle.accepts(snapshot)
        if not verdict:
            told = "\n".join(repr(resource) for resource in mesh.resources())
            raise AssertionError(f"{proxy}: {verdict}\n{told}")
    if oracle.judged > judged:
        for resource in mesh.resources():
            _note_fields(resource)


def test_envoy_accepts_what_is_translated_without_an_error(oracle: Oracle) -> None:
    accepts(oracle)
    assert Tally.meshes >= DEPTH
    assert Tally.faulty < 0.5 * Tally.snapshots, "too many meshes are in error to say much"
    # Every field has its part; in few meshes the rarest may miss their turn.
    missing = sorted(_all_fields() - _NOT_GENERATED - Tally.fields)
    assert len(missing) <= (0 if DEPTH >= 2000 else 10), missing


# --- the oracle itself ------------------------------------------------------------------------------


def _snapshot(**resources: object) -> Snapshot:
    empty: dict[str, object] = {
        "listeners": (),
        "clusters": (),
        "routes": (),
        "endpoints": (),
        "secrets": (),
        "problems": (),
    }
    return Snapshot(mesh="m", mesh_owner=None, proxy="virtualNode/n", **{**empty, **resources})  # type: ignore[arg-type]


def _cluster(name: str = "c") -> proto.Cluster:
    cluster = proto.Cluster(name=name, type=0)
    cluster.connect_timeout.seconds = 1
    return cluster


def _listener(routes: str) -> proto.Listener:
    manager = proto.HttpConnectionManager(stat_prefix="x")
    manager.rds.route_config_name = routes
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = 2
    manager.http_filters.add(name="envoy.filters.http.router").typed_config.CopyFrom(
        proto.pack(proto.Router())
    )
    listener = proto.Listener(name="l")
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 80
    one = listener.filter_chains.add().filters.add(name="envoy.filters.network.http_connection_manager")
    one.typed_config.CopyFrom(proto.pack(manager))
    return listener


def _routes(cluster: str) -> proto.RouteConfiguration:
    routes = proto.RouteConfiguration(name="r")
    route = routes.virtual_hosts.add(name="h", domains=["*"]).routes.add()
    route.match.prefix = "/"
    route.route.cluster = cluster
    return routes


def _deprecated() -> proto.RouteConfiguration:
    routes = _routes("c")
    routes.virtual_hosts[0].routes[0].match.headers.add(name="x").exact_match = "old"
    return routes


def _no_timeout() -> proto.Cluster:
    cluster = _cluster()
    cluster.connect_timeout.seconds = 0
    return cluster


def _bad_endpoint() -> Snapshot:
    cluster = _cluster()
    cluster.type = 3
    cluster.eds_cluster_config.eds_config.ads.SetInParent()
    cluster.eds_cluster_config.eds_config.resource_api_version = 2
    assignment = proto.ClusterLoadAssignment(cluster_name="c")
    address = assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "no.address", 80
    return _snapshot(clusters=(Resource.of(cluster),), endpoints=(Resource.of(assignment),))


def _served(routes: proto.RouteConfiguration, cluster: proto.Cluster | None = None) -> Snapshot:
    return _snapshot(
        clusters=(Resource.of(cluster or _cluster()),),
        listeners=(Resource.of(_listener("r")),),
        routes=(Resource.of(routes),),
    )


@pytest.mark.parametrize(
    ("snapshot", "rejected", "text"),
    [
        pytest.param(_served(_routes("other")), "routes", "unknown cluster 'other'", id="dangling route"),
        pytest.param(_served(_deprecated()), "routes", "deprecated", id="deprecated field"),
        pytest.param(_served(_routes("c"), _no_timeout()), "clusters", "greater than 0s", id="no timeout"),
        pytest.param(_bad_endpoint(), "endpoints", "malformed IP address", id="endpoint"),
    ],
)
def test_oracle_refuses_and_recovers(oracle: Oracle, snapshot: Snapshot, rejected: str, text: str) -> None:
    for _ in range(2):
        verdict = oracle.accepts(snapshot)
        assert list(verdict.rejections) == [rejected]
        assert text in verdict.rejections[rejected]
        assert oracle.accepts(_served(_routes("c")))


def test_oracle_looks_at_each_snapshot_by_itself(oracle: Oracle) -> None:
    """The cluster of the snapshot before does not make a dangling route whole."""
    assert oracle.accepts(_served(_routes("d"), _cluster("d")))
    assert "routes" in oracle.accepts(_served(_routes("d"), _cluster("c"))).rejections
