"""The oracle: one long-lived Envoy that says whether it would accept a snapshot.

    with Oracle(folder, certificates) as oracle:
        verdict = oracle.accepts(snapshot)
        assert verdict, verdict              # a rejected one prints Envoy's own words, by type

It is fed over one ADS stream (state of the world) by a server in this process, a few milliseconds a snapshot.
Snapshots are changed, as copies, in what an Envoy without a mesh around it could not do:

- listeners do not bind (`bind_to_port: false`), so that ports need not be free;
- files are replaced by stand-ins: certificates, keys and authorities (of secrets too) by some of
  `tests/pki.py`, logs by `/dev/null`;
- secrets of the local SDS service are handed out by this server, as stand-ins of the kind that is asked for;
- secrets of a static bootstrap (`Options.delivery` inline) come over ADS;
- listeners and route configurations are marked with a number, or Envoy would not look at one it had before;
- route configurations get `validate_clusters: true`, so that a dangling route is refused, which Envoy
  otherwise does for inline ones only.

Every deprecated field is an error (`envoy.features.fail_on_any_deprecated_feature`). DNS is answered by this
process, with "no such name", at once: clusters need that to warm. Addresses under health checks should be
loopback ones, so that the first check fails at once.

A rejection leaves Envoy between two states; the next snapshot then starts from an empty one. What Envoy never
checks (a dangling cluster of a TCP proxy, secrets of the wrong kind in our own hands) is for other tests.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from pki import Certificates
from real_envoy import Envoy

from appmesh_xds import proto
from appmesh_xds.names import SDS_CLUSTER
from appmesh_xds.resource import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, TYPE_NAMES
from appmesh_xds.snapshot import Snapshot

#: Without a word from Envoy for so long, what is pending is sent again (it may have come a moment before the
#: subscription did), in seconds.
_NUDGE = 0.5
#: And then it is stuck, which is a fault of the snapshot or of this file.
_STUCK = 20.0

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_SDS = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
_SHORT = {url: name for name, url in TYPE_NAMES.items()}


@dataclass(frozen=True)
class Verdict:
    """True when Envoy took every resource. `rejections` holds its text by type: `{"clusters": "..."}`."""

    rejections: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.rejections

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.rejections.items()) or "accepted"


@dataclass
class _Type:
    """One type of resource on the stream."""

    nonce: str = ""
    #: Names of Envoy's last request, and those of the request before our last response.
    asked: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()
    subscribed: bool = False


class Oracle:
    """Use as a context manager; see the module."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._folder = folder
        self._standins = _StandIns(certificates)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._types: dict[str, _Type] = {}
        self._resources: dict[str, list[Any]] = {}
        self._number = 0
        self._clean = False
        self._stopping = threading.Event()
        #: How many snapshots were judged.
        self.judged = 0

    # --- life ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Oracle:
        self._server = grpc.server(ThreadPoolExecutor(64, thread_name_prefix="oracle"))
        self._server.add_generic_rpc_handlers((_Handler({_ADS: self._ads, _SDS: self._sds}),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._dns = _NoSuchName()
        self._dns.start()
        self._envoy = Envoy(_bootstrap(port, self._dns.port), self._folder)
        try:
            self._envoy.start(wait_ready=False)
            self._empty()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._responses.put(None)
        self._envoy.stop()
        self._server.stop(0).wait()
        self._dns.stop()

    # --- judging ------------------------------------------------------------------------------------------

    def accepts(self, snapshot: Snapshot) -> Verdict:
        """Envoy's answer to the whole snapshot: clusters, endpoints, listeners, routes and secrets."""
        if not self._clean:
            self._empty()
        self.judged += 1
        # Not an update: some things of a listener cannot change in one (`enable_reuse_port`).
        self._resources[LISTENER] = []
        self._send(LISTENER)
        self._resources, wanted = self._standins.prepare(snapshot)
        verdict = self._push(wanted)
        self._clean = bool(verdict)
        return verdict

    def _empty(self) -> None:
        self._resources = {}
        verdict = self._push({})
        assert verdict, f"Envoy refuses an empty snapshot: {verdict}"
        self._clean = True

    def _push(self, wanted: Mapping[str, frozenset[str]]) -> Verdict:
        """`wanted`: the names of each type that the snapshot's own resources make Envoy ask for."""
        rejections: dict[str, str] = {}
        # Listeners refer to clusters: those must be warm, which is when Envoy answers.
        for first, rest in ((CLUSTER, (ENDPOINTS, SECRET)), (LISTENER, (ROUTES, SECRET))):
            waiting = {first, *(url for url in rest if wanted.get(url))}
            if first == CLUSTER:
                waiting.discard(SECRET)  # clusters wait for theirs anyhow; the others come with the listeners
                if not self._type(CLUSTER).subscribed:
                    self._until_subscribed(CLUSTER)
            self._send(first)
            for url in rest:
                if self._type(url).asked:
                    self._send(url)
            rejections.update(self._settle(waiting, wanted))
            if rejections:
                break
        return Verdict(rejections)

    def _until_subscribed(self, type_url: str) -> None:
        while not self._type(type_url).subscribed:
            self._receive(_STUCK)

    def _settle(self, waiting: set[str], wanted: Mapping[str, frozenset[str]]) -> dict[str, str]:
        """Answers Envoy's requests until it has taken or refused everything that is waited for."""
        rejections: dict[str, str] = {}
        deadline = time.monotonic() + _STUCK
        while waiting - {url for url, name in _SHORT.items() if name in rejections}:
            request = self._receive(_NUDGE)
            if request is None:
                if time.monotonic() > deadline:
                    names = ", ".join(sorted(_SHORT[url] for url in waiting))
                    raise AssertionError(f"no verdict on {names}\n{self._envoy.log_text()[-4000:]}")
                for url in waiting:
                    if url in (CLUSTER, LISTENER) or self._type(url).asked:
                        self._send(url)
                continue
            url, kind = request.type_url, self._type(request.type_url)
            current = request.response_nonce == kind.nonce != ""
            if current and request.HasField("error_detail"):
                rejections[_SHORT[url]] = request.error_detail.message
                if url in (CLUSTER, LISTENER):
                    break  # what depends on it may never be asked for
            elif current and url in waiting and wanted.get(url, frozenset()) <= kind.asked <= kind.answered:
                waiting.discard(url)
        return rejections

    # --- the stream ---------------------------------------------------------------------------------------

    def _type(self, type_url: str) -> _Type:
        return self._types.setdefault(type_url, _Type())

    def _receive(self, patience: float) -> Any:
        """The next request, answered if it names something new. None when there is none in time."""
        try:
            request = self._requests.get(timeout=patience)
        except queue.Empty:
            return None
        if request is None:  # a new stream: Envoy knows nothing of the old one
            self._types.clear()
            return None
        kind = self._type(request.type_url)
        kind.asked = frozenset(request.resource_names)
        if not kind.subscribed:
            kind.subscribed = True
            if request.type_url == LISTENER:
                self._send(LISTENER)
        if request.HasField("error_detail"):
            return request
        if not kind.asked:
            kind.answered = frozenset()
        elif not kind.asked <= kind.answered:
            self._send(request.type_url)
        return request

    def _send(self, type_url: str) -> None:
        kind = self._type(type_url)
        self._number += 1
        kind.nonce, kind.answered = str(self._number), kind.asked
        response = proto.DiscoveryResponse(version_info=kind.nonce, nonce=kind.nonce, type_url=type_url)
        response.resources.extend(self._resources.get(type_url, ()))
        self._responses.put(response.SerializeToString())

    def _ads(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def read() -> None:
            try:
                for request in requests:
                    self._requests.put(proto.DiscoveryRequest.FromString(request))
            except Exception:
                if not self._stopping.is_set():
                    self._requests.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (response := self._responses.get()) is not None:
            yield response

    def _sds(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """The local SDS service: a stand-in for every name, of the kind that the snapshot uses it as."""
        answered: frozenset[str] = frozenset()
        try:
            for data in requests:
                request = proto.DiscoveryRequest.FromString(data)
                names = frozenset(request.resource_names)
                if names == answered:
                    continue
                answered = names
                response = proto.DiscoveryResponse(version_info="1", nonce="1", type_url=SECRET)
                for name in sorted(names):
                    response.resources.append(proto.pack(self._standins.secret(name)))
                yield response.SerializeToString()
        except grpc.RpcError:
            return


class _Handler(grpc.GenericRpcHandler):
    """Bidirectional streams of raw bytes, by method."""

    def __init__(self, methods: Mapping[str, Any]) -> None:
        self._methods = {name: grpc.stream_stream_rpc_method_handler(call) for name, call in methods.items()}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(details.method)


class _NoSuchName(threading.Thread):
    """A DNS server that knows no name."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="dns")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            # A response, recursion available, NXDOMAIN; one question, which is all that is sent back.
            header = query[:2] + b"\x81\x83" + b"\x00\x01" + b"\x00\x00" * 3
            end = query.index(b"\x00", 12) + 5
            self._socket.sendto(header + query[12:end], sender)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self.join(5)
        self._socket.close()


# --- copies -----------------------------------------------------------------------------------------------


class _StandIns:
    """Makes the copies that Envoy is shown."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._number = 0
        #: Secrets of the local SDS service that are asked for as authorities.
        self._trusted: set[str] = set()

    def prepare(self, snapshot: Snapshot) -> tuple[dict[str, list[Any]], dict[str, frozenset[str]]]:
        """(resources by type as `Any`s, names by type that they make Envoy ask for)."""
        self._number += 1
        wanted: dict[str, set[str]] = {ENDPOINTS: set(), ROUTES: set(), SECRET: set()}
        listeners = [self._listener(one.message(), wanted) for one in snapshot.listeners]
        clusters = [self._cluster(one.message(), wanted) for one in snapshot.clusters]
        routes = []
        for one in snapshot.routes:
            message: Any = one.message()
            message.validate_clusters.value = True
            self._mark(message)
            routes.append(proto.pack(message))
        resources = {
            LISTENER: listeners,
            CLUSTER: clusters,
            ROUTES: routes,
            ENDPOINTS: [one.any() for one in snapshot.endpoints],
            SECRET: [self._secret(one.message()) for one in snapshot.secrets],
        }
        return resources, {url: frozenset(names) for url, names in wanted.items()}

    def _mark(self, message: Any) -> None:
        """Makes a message unlike the one before: Envoy does not look twice at what it has already, though
        the clusters it refers to may be gone."""
        message.metadata.filter_metadata["oracle"].fields["snapshot"].number_value = self._number

    def _secret(self, secret: Any) -> Any:
        """A secret of the snapshot; one that names files names stand-ins."""
        if secret.tls_certificate.private_key.filename:
            self._files(secret.tls_certificate)
            _watch(secret.tls_certificate, self._certificates.server.certificate)
        if secret.validation_context.trusted_ca.filename:
            secret.validation_context.trusted_ca.filename = str(self._certificates.authority)
            _watch(secret.validation_context, self._certificates.authority)
        return proto.pack(secret)

    def secret(self, name: str) -> proto.Secret:
        secret = proto.Secret(name=name)
        if name in self._trusted:
            secret.validation_context.trusted_ca.filename = str(self._certificates.authority)
        else:
            self._files(secret.tls_certificate)
        return secret

    def _listener(self, listener: Any, wanted: dict[str, set[str]]) -> Any:
        listener.bind_to_port.value = False
        self._mark(listener)
        for chain in listener.filter_chains:
            for one in chain.filters:
                config: Any = proto.unpack(one.typed_config)
                for log in config.access_log:
                    entry: Any = proto.unpack(log.typed_config)
                    entry.path = "/dev/null"
                    log.typed_config.CopyFrom(proto.pack(entry))
                if isinstance(config, proto.HttpConnectionManager) and config.HasField("rds"):
                    wanted[ROUTES].add(config.rds.route_config_name)
                one.typed_config.CopyFrom(proto.pack(config))
            self._transport_socket(chain, wanted)
        return proto.pack(listener)

    def _cluster(self, cluster: Any, wanted: dict[str, set[str]]) -> Any:
        if cluster.HasField("eds_cluster_config"):
            wanted[ENDPOINTS].add(cluster.name)
        self._transport_socket(cluster, wanted)
        return proto.pack(cluster)

    def _transport_socket(self, holder: Any, wanted: dict[str, set[str]]) -> None:
        if not holder.HasField("transport_socket"):
            return
        context: Any = proto.unpack(holder.transport_socket.typed_config)
        common = context.common_tls_context
        for certificate in common.tls_certificates:
            self._files(certificate)
        for reference in common.tls_certificate_sds_secret_configs:
            self._reference(reference, False, wanted)
        kind = common.WhichOneof("validation_context_type")
        if kind == "validation_context":
            if common.validation_context.HasField("trusted_ca"):
                common.validation_context.trusted_ca.filename = str(self._certificates.authority)
        elif kind == "validation_context_sds_secret_config":
            self._reference(common.validation_context_sds_secret_config, True, wanted)
        elif kind == "combined_validation_context":
            combined = common.combined_validation_context
            self._reference(combined.validation_context_sds_secret_config, True, wanted)
        holder.transport_socket.typed_config.CopyFrom(proto.pack(context))

    def _files(self, certificate: Any) -> None:
        certificate.certificate_chain.filename = str(self._certificates.server.certificate)
        certificate.private_key.filename = str(self._certificates.server.private_key)

    def _reference(self, reference: Any, trust: bool, wanted: dict[str, set[str]]) -> None:
        """Notes what a reference to a secret asks for; one to the bootstrap becomes one to ADS."""
        if not reference.HasField("sds_config"):
            reference.sds_config.ads.SetInParent()
            reference.sds_config.resource_api_version = 2
        if reference.sds_config.HasField("ads"):
            wanted[SECRET].add(reference.name)
        elif trust:
            self._trusted.add(reference.name)
        else:
            self._trusted.discard(reference.name)


def _watch(material: Any, file: Path) -> None:
    """The folder of a stand-in in place of the one that is watched, if one is."""
    if material.HasField("watched_directory"):
        material.watched_directory.path = str(file.parent)


def _bootstrap(port: int, dns_port: int) -> dict[str, Any]:
    def cluster(name: str) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        return {
            "name": name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
        }

    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "oracle", "cluster": "oracle"},
        "static_resources": {"clusters": [cluster("oracle"), cluster(SDS_CLUSTER)]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "oracle"}}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns_port}}],
            },
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "oracle",
                    "static_layer": {
                        "envoy.features.fail_on_any_deprecated_feature": True,
                        "re2.max_program_size.error_level": 1000,
                    },
                }
            ]
        },
    }
