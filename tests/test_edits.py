"""Random edits of a mesh, one after another, against Envoys that live through all of them.

After every few edits each Envoy runs on what it was served, byte for byte, and none ever refused anything:
a node and a gateway, over both variants of the protocol. The normal suite makes a hundred edits; at depth

    APPMESH_XDS_DEPTH=10000 pytest tests/test_edits.py

makes as many as are asked for (ten thousand take a quarter of an hour). Envoy is shown copies, as by the
oracle (`tests/oracle.py`), with `validate_clusters`: routes that come before their cluster, or outlive it,
are refused.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from google.protobuf import json_format
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oracle import _NoSuchName, _StandIns
from pki import Certificates
from real_envoy import Envoy
from strategies import MESH, NODES, meshes
from test_server_grpc import Running

from appmesh_xds import proto, render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource
from appmesh_xds.server.grpc import Server
from appmesh_xds.server.meshes import Meshes
from appmesh_xds.server.messages import GateTimeout, Nack, Refused
from appmesh_xds.server.session import Access, Session, Settings
from appmesh_xds.snapshot import Snapshot
from appmesh_xds.spec import MeshData

DEPTH = int(os.environ.get("APPMESH_XDS_DEPTH", "100"))
PROXIES = ("virtualNode/alpha", "virtualGateway/gateway")
#: Edits between two looks at what Envoy runs on.
_LOOK = 20
#: Copies that are remembered.
_COPIES = 5_000
PATIENCE = 30.0


class Copies(_StandIns):
    """What Envoy is shown of a snapshot. Of the same resource the same copy: only edits are changes."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__(certificates)
        self._made: dict[tuple[str, bytes], tuple[Resource, frozenset[tuple[str, bool]]]] = {}
        self._local: set[tuple[str, bool]] = set()

    def snapshot(self, snapshot: Snapshot) -> Snapshot:
        if len(self._made) > _COPIES:
            self._made.clear()
        local: set[tuple[str, bool]] = set()
        copies: dict[str, list[Resource]] = {}
        for url, resources in ((LISTENER, snapshot.listeners), (CLUSTER, snapshot.clusters)):
            copies[url] = []
            for one in resources:
                copy, secrets = self._copy(url, one)
                copies[url].append(copy)
                local |= secrets
        copies[ROUTES] = [self._copy(ROUTES, one)[0] for one in snapshot.routes]
        copies[SECRET] = [*snapshot.secrets, *(self._secret(*one) for one in sorted(local))]
        return msgspec.structs.replace(
            snapshot,
            listeners=tuple(copies[LISTENER]),
            clusters=tuple(copies[CLUSTER]),
            routes=tuple(copies[ROUTES]),
            secrets=tuple(copies[SECRET]),
        )

    def _copy(self, url: str, one: Resource) -> tuple[Resource, frozenset[tuple[str, bool]]]:
        key = (url, one.value)
        if key not in self._made:
            self._local = set()
            message: Any = one.message()
            if url == ROUTES:
                message.validate_clusters.value = True
            else:
                # Both change the message that they are given.
                wanted: dict[str, set[str]] = {ENDPOINTS: set(), ROUTES: set(), SECRET: set()}
                (self._listener if url == LISTENER else self._cluster)(message, wanted)
            self._made[key] = (Resource.of(message, one.origin), frozenset(self._local))
        return self._made[key]

    def _mark(self, message: Any) -> None:
        pass

    def _reference(self, reference: Any, trust: bool, wanted: dict[str, set[str]]) -> None:
        """Secrets of the local service come over ADS, each under a name of its kind."""
        if not reference.sds_config.HasField("ads"):
            self._local.add((reference.name, trust))
            reference.name = f"{'trust' if trust else 'certificate'} {reference.name}"
            reference.sds_config.ads.SetInParent()
            reference.sds_config.resource_api_version = 2

    def _secret(self, name: str, trust: bool) -> Resource:
        secret = proto.Secret(name=f"{'trust' if trust else 'certificate'} {name}")
        if trust:
            secret.validation_context.trusted_ca.filename = str(self._certificates.authority)
        else:
            self._files(secret.tls_certificate)
        return Resource.of(secret)


class Shown:
    """A source that gives copies of what another source has."""

    def __init__(self, meshes: Meshes, copies: Copies) -> None:
        self._meshes = meshes
        self._copies = copies
        self._last: dict[str, tuple[Snapshot, Snapshot]] = {}
        # The server asks, and the test.
        self._lock = threading.Lock()

    def snapshot(self, node_id: str) -> Snapshot | None:
        snapshot = self._meshes.snapshot(node_id)
        if snapshot is None or snapshot.errors:
            return snapshot
        with self._lock:
            last = self._last.get(node_id)
            if last is None or last[0] is not snapshot:
                last = self._last[node_id] = (snapshot, self._copies.snapshot(snapshot))
            return last[1]

    def subscribe(self, changed: Any) -> Callable[[], None]:
        return self._meshes.subscribe(changed)


class Life:
    """A mesh that is edited, a server, and Envoys that follow."""

    def __init__(self, mesh: Mesh, certificates: Certificates, folder: Path) -> None:
        self.mesh = mesh
        self.edits = self.faulty = self.unserved = 0
        self.meshes = Meshes(Options(sds_socket="/run/sds.sock"))
        self.meshes.update(mesh)
        self._source = Shown(self.meshes, Copies(certificates))
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.envoys: dict[str, Envoy] = {}

    def __enter__(self) -> Life:
        with contextlib.ExitStack() as stack:
            # As many requests as it takes: edits come faster here than anywhere.
            settings = Settings(drain=0.05, gate_timeout=60)
            settings = msgspec.structs.replace(
                settings,
                limits=msgspec.structs.replace(settings.limits, requests_per_second=10_000, burst=50_000),
            )
            self.running = stack.enter_context(
                Running(self._source, access=lambda *_: Access.FULL, settings=settings)  # type: ignore[arg-type]
            )
            dns = _NoSuchName()
            dns.start()
            stack.callback(dns.stop)
            for proxy in PROXIES:
                for delta in (False, True):
                    name = f"{proxy} {'delta' if delta else 'sotw'}"
                    bootstrap = _bootstrap(proxy, self.running.port, dns.port, delta)
                    envoy = Envoy(bootstrap, self._folder / name.replace("/", "-"))
                    self.envoys[name] = envoy
                    stack.enter_context(envoy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def edit(self, other: Mesh, random: Random) -> None:
        """Takes over something of another mesh, or all of it, and drops something now and then."""
        self.edits += 1
        kept = [f"mesh/{MESH}", *PROXIES]
        if random.random() < 0.05:
            self.mesh = other
        else:
            theirs = [
                one for one in other.resources() if not isinstance(one, MeshData) or random.random() < 0.1
            ]
            chosen = random.sample(theirs, min(len(theirs), random.randint(1, 4)))
            facts: dict[str, Any] = {}
            if random.random() < 0.3:
                facts["endpoints"] = {node: other.endpoints.get(node, ()) for node in NODES}
            if random.random() < 0.1:
                facts |= {"certificates": other.certificates, "authorities": other.authorities}
            self.mesh = self.mesh.replace(*chosen, **facts)
        if random.random() < 0.3:
            gone = [one.key for one in self.mesh.resources() if one.key not in kept and one.kind != "mesh"]
            self.mesh = self.mesh.without(*random.sample(gone, min(len(gone), 1)))
        self.meshes.update(self.mesh)
        for proxy in PROXIES:
            newest = self.meshes._newest.get(f"mesh/{MESH}/{proxy}")
            self.unserved += newest is None
            self.faulty += newest is not None and bool(newest.errors)

    def look(self) -> None:
        """Every Envoy runs on what it was given, and refused nothing."""
        server: Server = self.running.server
        for name, envoy in self.envoys.items():
            proxy, _, mode = name.rpartition(" ")
            deadline = time.monotonic() + PATIENCE
            while True:
                session = _session(server, f"mesh/{MESH}/{proxy}", mode)
                wrong = "no stream" if session is None else _differences(self._source, session, envoy)
                if not wrong:
                    break
                assert time.monotonic() < deadline, (
                    f"{name} after {self.edits} edits: {wrong}\n{envoy.log_text()}"
                )
                time.sleep(0.02)
        bad = [e for kind in (Nack, Refused, GateTimeout) for e in self.running.seen(kind)]
        assert bad == [], f"after {self.edits} edits"
        self.running.events.clear()


def _session(server: Server, node_id: str, mode: str) -> Session | None:
    found = [s for s in server.sessions() if s.node == node_id and s.protocol == mode]
    return found[0] if len(found) == 1 and found[0].newest is not None else None


def _differences(source: Shown, session: Session, envoy: Envoy) -> str:
    """What an Envoy runs on that is not what its stream was given last; empty when they are the same."""
    assert session.newest is not None
    now = source.snapshot(session.newest.node_id)
    if now is not None and not now.errors and now is not session.newest:
        return "the newest snapshot is not the stream's yet"
    wanted, found = _wanted(session.newest), _running_on(envoy)
    # Envoy shows endpoints of every cluster; those of other kinds stand in the cluster, or come from DNS.
    eds = {name for name, cluster in wanted["clusters"].items() if "eds_cluster_config" in cluster}
    # And their health as it found it, where it checks.
    checks = {
        name for name in eds if {"health_checks", "outlier_detection"} & wanted["clusters"][name].keys()
    }
    for one in (wanted, found):
        one["endpoints"] = {
            name: [address[:2] for address in those] if name in checks else those
            for name, those in one["endpoints"].items()
            if name in eds
        }
    for kind, resources in wanted.items():
        for name in sorted(resources.keys() | found[kind].keys()):
            if resources.get(name) != found[kind].get(name):
                return f"{kind} {name!r}: served {resources.get(name)}, runs on {found[kind].get(name)}"
    return ""


def _wanted(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    def messages(url: str) -> dict[str, Any]:
        return {one.name: _masked(render.to_dict(one.message())) for one in snapshot.resources(url)}

    secrets = {name for one in (*snapshot.listeners, *snapshot.clusters) for name in _secret_names(one)}
    return {
        "listeners": messages(LISTENER),
        "clusters": messages(CLUSTER),
        "routes": messages(ROUTES),
        "endpoints": {one.name: _addresses(render.to_dict(one.message())) for one in snapshot.endpoints},
        "secrets": dict.fromkeys(secrets, True),
    }


def _running_on(envoy: Envoy) -> dict[str, dict[str, Any]]:
    """All that is active. What warms is `warming`, which nothing is that was served."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in ("listeners", "clusters", "routes", "endpoints")}
    found["secrets"] = {}
    for config in envoy.config_dump()["configs"]:
        for one in config.get("dynamic_listeners", ()):
            if "warming_state" in one:
                found["listeners"][f"{one['name']} warms"] = True
            if "active_state" in one:
                found["listeners"][one["name"]] = _parsed(proto.Listener, one["active_state"]["listener"])
        for one in config.get("dynamic_active_clusters", ()):
            found["clusters"][one["cluster"]["name"]] = _parsed(proto.Cluster, one["cluster"])
        for one in config.get("dynamic_warming_clusters", ()):
            found["clusters"][f"{one['cluster']['name']} warms"] = True
        for one in config.get("dynamic_route_configs", ()):
            routes = one["route_config"]
            found["routes"][routes["name"]] = _parsed(proto.RouteConfiguration, routes)
        for one in config.get("dynamic_endpoint_configs", ()):
            assignment = one["endpoint_config"]
            found["endpoints"][assignment["cluster_name"]] = _addresses(assignment)
        for one in config.get("dynamic_active_secrets", ()):
            found["secrets"][one["name"]] = True
        for one in config.get("dynamic_warming_secrets", ()):
            found["secrets"][f"{one['name']} warms"] = True
    return found


def _parsed(cls: type[Any], dump: dict[str, Any]) -> Any:
    plain = {key: value for key, value in dump.items() if key != "@type"}
    message = json_format.ParseDict(plain, cls(), descriptor_pool=cls.DESCRIPTOR.file.pool)
    return _masked(render.to_dict(message))


def _masked(value: Any) -> Any:
    """Without private keys, whose files Envoy does not show either."""
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items() if key != "private_key"}
    return [_masked(inner) for inner in value] if isinstance(value, list) else value


def _addresses(assignment: dict[str, Any]) -> list[tuple[str, int, str]]:
    return sorted(
        (
            ipaddress.ip_address(one["endpoint"]["address"]["socket_address"]["address"]).compressed,
            one["endpoint"]["address"]["socket_address"]["port_value"],
            # To Envoy unknown is healthy, and it shows one or the other.
            one.get("health_status", "UNKNOWN").replace("UNKNOWN", "HEALTHY"),
        )
        for locality in assignment.get("endpoints", ())
        for one in locality.get("lb_endpoints", ())
    )


def _secret_names(one: Resource) -> Iterator[str]:
    """Names of the secrets that a listener or a cluster refers to."""
    waiting: list[Any] = [render.to_dict(one.message())]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "sds_config" in value:
                yield value["name"]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _bootstrap(proxy: str, port: int, dns_port: int, delta: bool) -> dict[str, Any]:
    made = render.to_dict(ads_bootstrap(MESH, proxy, XdsServer(f"127.0.0.1:{port}"), Options(), delta=delta))
    strict = {"envoy.features.fail_on_any_deprecated_feature": True}
    made["layered_runtime"]["layers"].append({"name": "strict", "static_layer": strict})
    resolver = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    made["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": f"type.googleapis.com/{resolver}",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns_port}}],
        },
    }
    return made


def _first() -> Mesh:
    """Both proxies, with nothing to do."""
    import appmesh_xds as am

    listeners = [{"portMapping": {"port": 80, "protocol": "http"}}]
    spec: dict[str, Any] = {"listeners": listeners, "serviceDiscovery": {"dns": {"hostname": "localhost"}}}
    node = {"meshName": MESH, "virtualNodeName": "alpha", "spec": spec}
    gateway = {"meshName": MESH, "virtualGatewayName": "gateway", "spec": {"listeners": listeners}}
    return am.loads([node, gateway])


def test_envoys_live_through_every_edit(tmp_path: Path, certificates: Certificates) -> None:
    with Life(_first(), certificates, tmp_path) as life:

        @settings(
            max_examples=DEPTH,
            deadline=None,
            database=None,
            derandomize="APPMESH_XDS_DEPTH" not in os.environ,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(other=meshes(), seed=st.integers(0, 2**32))
        def edit(other: Mesh, seed: int) -> None:
            random = Random(seed)
            life.edit(other, random)
            if life.edits % _LOOK == 0:
                life.look()
            elif random.random() < 0.5:
                time.sleep(random.random() * 0.02)

        edit()
        # Both are of the mesh in the end, and something is served.
        life.mesh = life.mesh.replace(*_first().virtual_nodes.values(), *_first().virtual_gateways.values())
        life.meshes.update(life.mesh)
        life.look()
        assert life.edits >= DEPTH
        assert life.faulty < 0.75 * 2 * life.edits, "too many meshes are in error to say much"
        for envoy in life.envoys.values():
            refused = envoy.stats(r"(update_rejected|deprecated_feature_use)$")
            assert not any(refused.values()), refused
        print(json.dumps({"edits": life.edits, "faulty": life.faulty, "unserved": life.unserved}))
