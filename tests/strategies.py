"""Whole meshes at random, for Hypothesis: valid by the rules of `spec.checks`, every field reachable.

The strategies are derived from the spec structs themselves, bounds included, so that a new field is
generated without a word here. Three tables say what the types cannot:

- `_FIELDS`: where a value must come from a small pool, so that references resolve and addresses are
  loopback ones, or must be of a form (regular expressions, access-log formats);
- `checks.ONE_OF`: structs of which exactly one member is set;
- `_MENDS`: what makes a struct keep the rules between its fields. A mend changes a value that was drawn;
  nothing is thrown away.

`meshes()` then ties the resources together: ports that routes and targets name are mostly those of what they
lead to. Now and then they are not, on purpose.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import re2
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect
from msgspec.structs import replace

from appmesh_xds import spec
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.errors import errors_in
from appmesh_xds.facts import (
    Authority,
    Certificate,
    Endpoint,
    FileCertificate,
    FileTrust,
    Pem,
    PemTrust,
    SdsSecret,
)
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.spec import checks
from appmesh_xds.spec._route_checks import HTTP_RETRY_EVENTS
from appmesh_xds.spec.access_log import OPERATORS, format_findings
from appmesh_xds.spec.regex import regex_findings

MESH = "mesh"

# --- pools ----------------------------------------------------------------------------------------

#: Few names, so that references resolve; odd ones among them, because names stand in Envoy's verbatim.
NODES = ("alpha", "beta", "gamma_3", "Delta/../%20 é")
SERVICES = ("alpha.mesh.local", "beta", "BETA.mesh.local", "beta.mesh.local", "s_1.local:8080", "::1")
ROUTERS = ("router", "router-2", "r/oute/r")
GATEWAYS = ("gateway", "gate way")
ROUTES = ("route", "route-2", "a", "z/route")
PORTS = (80, 443, 8080, 8081, 9000, 15001, 65535)
CERTIFICATE_ARNS = ("arn:aws:acm:eu-west-1:111122223333:certificate/1", "arn:c:2", "arn:shared")
AUTHORITY_ARNS = ("arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/1", "arn:a:2", "arn:shared")
#: Loopback: health checks of what does not listen fail at once there.
ADDRESSES = ("127.0.0.2", "127.3.2.1", "::1", "0:0:0:0:0:0:0:1")
HOSTS = ("alpha.local", "beta.svc.cluster.local", "gamma.local.", "127.0.0.2", "::1", "a_b.local", "x" * 254)
REGEXES = ("/.*", "/v[0-9]+/items", r"/a\d{2,4}(?:/x)?", "[^/]+", "(?i)abc", r"\p{Greek}*", "a|b|", "", ".")

_TEXT = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
_ASCII = st.characters(min_codepoint=33, max_codepoint=126)
_TOKEN = st.sampled_from("!#$%&'*+-.^_`|~09azAZ")
_HOSTNAME = st.sampled_from("abcxyzABC019-_.")


def _text(least: int, most: int, alphabet: SearchStrategy[str] = _TEXT) -> SearchStrategy[str]:
    """Mostly short; now and then as long as may be."""
    short = st.text(alphabet, min_size=least, max_size=min(most, max(least, 12)))
    longest = alphabet.map(lambda character: (character * most)[:most])
    return st.one_of(short, short, short, longest)


def _paths(most: int) -> SearchStrategy[str]:
    known = st.sampled_from(
        ["/", "/a", "/a/", "/a/b", "/A", "/%2F", "/a//b", "/a/../b", "/a?b", "/é", "/\\1"]
    )
    return st.one_of(known, known, _text(0, most - 1).map(lambda text: "/" + text))


def _regex(text: str) -> str:
    return re2.escape(text)[:255] if errors_in(_as_problems(regex_findings(text, ""))) else text


def _regexes(most: int) -> SearchStrategy[str]:
    fuzz = st.text(st.sampled_from("ab/.*+?|()[]{}^$\\dw0,1-é"), min_size=1, max_size=20).map(_regex)
    return st.one_of(st.sampled_from([one for one in REGEXES if one]), fuzz)


class _AsProblem(NamedTuple):
    severity: str


def _as_problems(findings: Any) -> list[Any]:
    return [_AsProblem(finding.severity) for finding in findings]


_PARAMETERS = st.one_of(
    st.just(""),
    st.sampled_from(
        ["(X-H)", "(:path?host)", "(a:b)", "(WQ:PATH)", "(DS_RX_BEG:DS_RX_END:ms)", "(%Y)", "(ROUTE:a:b)"]
    ),
    st.text(_TEXT, max_size=6).map(lambda text: f"({text})"),
)
_OPERATOR = st.builds(
    "%{}{}{}%".format, st.sampled_from(sorted(OPERATORS)), _PARAMETERS, st.sampled_from(["", "", ":5"])
)


def _format(text: str, most: int) -> str:
    """Text that passes as an access-log format: what Envoy would refuse is written so that it is literal."""
    if errors_in(_as_problems(format_findings(text[:most], ""))):
        text = text.replace("%", "%%")[:most]
        if errors_in(_as_problems(format_findings(text, ""))):
            text = text.replace("%", "")
    return text[:most] or "x"


def _formats(most: int) -> SearchStrategy[str]:
    pieces = st.lists(st.one_of(_OPERATOR, st.text(_TEXT, max_size=5), st.just("\n")), min_size=1, max_size=4)
    one = st.one_of(_OPERATOR, pieces.map("".join), _text(1, most))
    return one.map(lambda text: _format(text, most))


# --- from types to strategies -------------------------------------------------------------------------

_Field = tuple[type[msgspec.Struct], str]


def _sample(*values: Any) -> SearchStrategy[Any]:
    return st.sampled_from(values)


_SERVICE = st.sampled_from(SERVICES)
_NODE = st.sampled_from(NODES)
_SANS = st.lists(
    st.one_of(_sample("a.local", "spiffe://m/n", "127.0.0.1", "::1", "*.local"), _text(1, 254)),
    min_size=1,
    max_size=3,
).map(tuple)

#: Fields whose values come from elsewhere than their type.
_FIELDS: dict[_Field, SearchStrategy[Any]] = {
    (spec.WeightedTarget, "virtual_node"): _NODE,
    (spec.WeightedTarget, "weight"): st.one_of(_sample(0, 1, 100), st.integers(0, 100)),
    (spec.VirtualNodeServiceProvider, "virtual_node_name"): _NODE,
    (spec.VirtualRouterServiceProvider, "virtual_router_name"): st.sampled_from(ROUTERS),
    (spec.VirtualServiceBackend, "virtual_service_name"): _SERVICE,
    (spec.GatewayRouteVirtualService, "virtual_service_name"): _SERVICE,
    (spec.AcmCertificate, "certificate_arn"): st.sampled_from(CERTIFICATE_ARNS),
    (spec.AcmTrust, "certificate_authority_arns"): st.lists(
        st.sampled_from(AUTHORITY_ARNS), min_size=1, max_size=3
    ).map(tuple),
    # A secret is a certificate or an authority; whoever hands it out knows which.
    (spec.SdsCertificate, "secret_name"): st.one_of(_sample("identity", "spiffe://m/n"), _text(1, 300)).map(
        lambda text: f"c{text}"
    ),
    (spec.SdsTrust, "secret_name"): st.one_of(_sample("ROOTCA", "spiffe://m"), _text(1, 300)).map(
        lambda text: f"t{text}"
    ),
    (spec.SubjectAlternativeNameMatchers, "exact"): _SANS,
    (spec.DnsServiceDiscovery, "hostname"): st.one_of(st.sampled_from(HOSTS), _text(1, 254, _HOSTNAME)),
    (spec.AwsCloudMapServiceDiscovery, "namespace_name"): _sample("ns", "ns.local"),
    (spec.AwsCloudMapServiceDiscovery, "service_name"): _sample("one", "two"),
    (spec.AwsCloudMapInstanceAttribute, "key"): _sample("stage", "zone"),
    (spec.AwsCloudMapInstanceAttribute, "value"): _sample("a", "b"),
    (spec.HeaderMatch, "name"): st.one_of(
        _sample("x-a", "X-B", ":path", ":method", ":authority", "cookie", "te"), _text(1, 50, _TOKEN)
    ),
    (spec.HeaderMatchMethod, "regex"): _regexes(255),
    (spec.HttpPathMatch, "regex"): _regexes(255),
    (spec.HttpPathMatch, "exact"): _paths(255),
    (spec.HttpRouteMatch, "prefix"): _paths(60 * 1024),
    (spec.HttpGatewayRouteMatch, "prefix"): _paths(60 * 1024),
    (spec.HealthCheckPolicy, "path"): st.one_of(_paths(300), _text(0, 300)),
    (spec.HttpGatewayRoutePathRewrite, "exact"): _paths(255),
    (spec.HttpGatewayRoutePrefixRewrite, "value"): _paths(254).map(lambda text: text.rstrip("/") + "/"),
    (spec.GatewayRouteHostnameMatch, "exact"): st.one_of(
        _sample("a.example", "A.example", "b.example"), _text(1, 253, _HOSTNAME)
    ),
    (spec.GatewayRouteHostnameMatch, "suffix"): st.one_of(
        _sample(".example", ".a.example", "example"), _text(1, 252, _HOSTNAME).map(lambda text: f".{text}")
    ),
    (spec.HttpRetryPolicy, "http_retry_events"): st.none()
    | st.lists(st.sampled_from(HTTP_RETRY_EVENTS), min_size=1, max_size=6).map(tuple),
    (spec.GrpcRetryPolicy, "http_retry_events"): st.none()
    | st.lists(st.sampled_from(HTTP_RETRY_EVENTS), min_size=1, max_size=6).map(tuple),
    # Envoy counts bytes.
    (spec.HttpQueryParameter, "name"): _text(1, 1024).map(
        lambda text: text.encode()[:1024].decode(errors="ignore")
    ),
    (spec.LoggingFormat, "text"): _formats(1000),
    (spec.JsonFormatRef, "value"): _formats(100),
    (spec.GrpcRouteMatch, "service_name"): st.one_of(_sample("pkg.Service", "a"), _text(1, 255)),
    (spec.GrpcGatewayRouteMatch, "service_name"): st.one_of(_sample("pkg.Service", "a"), _text(1, 255)),
}


#: Optional fields that are mostly there: without them a mesh has nothing to say.
_MOSTLY: set[_Field] = {
    (spec.VirtualNodeSpec, "listeners"),
    (spec.VirtualNodeSpec, "backends"),
    (spec.VirtualRouterSpec, "listeners"),
    (spec.VirtualServiceSpec, "provider"),
}


def _listener(one: Any) -> Any:
    """It speaks the protocol of its connection pool, or else of its timeout; the rest follows."""
    port, protocol = one.port_mapping.port, one.port_mapping.protocol
    parts = {name: getattr(one, name, None) for name in ("timeout", "connection_pool")}
    for part in parts.values():
        if part is not None:
            protocol = next(name for name in part.__struct_fields__ if getattr(part, name) is not None)
    changes: dict[str, Any] = {"port_mapping": replace(one.port_mapping, protocol=protocol)}
    if parts["timeout"] is not None and getattr(parts["timeout"], protocol) is None:
        changes["timeout"] = None
    check = one.health_check
    if check is not None:
        answers = check.protocol != "grpc" or protocol in ("http2", "grpc")
        changes["health_check"] = replace(
            check,
            port=None if check.port is None else port,
            protocol=check.protocol if answers else "http",
        )
    return replace(one, **changes)


def _unique_ports(one: Any) -> Any:
    by_port = {listener.port_mapping.port: listener for listener in one.listeners or ()}
    return replace(one, listeners=tuple(by_port.values()))


def _node(node: spec.VirtualNodeSpec) -> spec.VirtualNodeSpec:
    node = _unique_ports(node)
    if not node.listeners:
        return replace(node, service_discovery=None)
    if node.service_discovery is None:
        dns = spec.DnsServiceDiscovery(hostname="alpha.local")
        return replace(node, service_discovery=spec.ServiceDiscovery(dns=dns))
    return node


def _positive(one: spec.Duration) -> spec.Duration:
    return replace(one, value=one.value or 1)


def _range(one: spec.MatchRange) -> spec.MatchRange:
    start, end = sorted((one.start, one.end))
    return spec.MatchRange(start=start, end=end) if start < end else spec.MatchRange(start=0, end=1)


def _retry(one: Any) -> Any:
    if one.http_retry_events or one.tcp_retry_events or getattr(one, "grpc_retry_events", None):
        return one
    return replace(one, tcp_retry_events=("connection-error",))


def _http_match(one: Any) -> Any:
    return replace(one, path=None) if one.prefix is not None else one


def _gateway_route(route: spec.HttpGatewayRoute) -> spec.HttpGatewayRoute:
    rewrite = route.action.rewrite
    if rewrite is None:
        return route
    unfit = "prefix" if route.match.path is not None else "path"
    return replace(route, action=replace(route.action, rewrite=replace(rewrite, **{unfit: None})))


#: What makes a struct keep the rules between its fields.
_MENDS: dict[type[msgspec.Struct], Callable[[Any], Any]] = {
    spec.Listener: _listener,
    spec.VirtualGatewayListener: _listener,
    spec.VirtualNodeSpec: _node,
    spec.VirtualGatewaySpec: _unique_ports,
    spec.VirtualRouterSpec: _unique_ports,
    spec.Duration: lambda one: replace(
        one,
        unit=one.unit or "s",
        value=(one.value or 0) // (1000 if one.unit != "ms" else 1),
    ),
    spec.OutlierDetection: lambda one: replace(
        one, interval=_positive(one.interval), base_ejection_duration=_positive(one.base_ejection_duration)
    ),
    spec.MatchRange: _range,
    spec.HttpRetryPolicy: _retry,
    spec.GrpcRetryPolicy: _retry,
    spec.HttpRouteMatch: _http_match,
    spec.HttpGatewayRouteMatch: _http_match,
    spec.GrpcRouteMatch: lambda one: replace(one, method_name=one.method_name if one.service_name else None),
    spec.HttpGatewayRoute: _gateway_route,
    spec.HttpGatewayRoutePrefixRewrite: lambda one: replace(
        one, default_prefix=None if one.value is not None else one.default_prefix
    ),
    spec.HttpGatewayRoutePathRewrite: lambda one: replace(one, exact=one.exact or "/"),
}


@functools.cache
def struct(cls: type[Any]) -> SearchStrategy[Any]:
    """A struct with every field as its type and the tables above say."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    one_of = checks.ONE_OF.get(cls, ())
    fields = {field.name: _field(cls, field, one_of) for field in info.fields}
    if not one_of:
        made = st.builds(cls, **fields)
    else:
        others = {name: fields[name] for name in fields if name not in one_of}
        made = st.one_of(*(st.builds(cls, **{name: fields[name]}, **others) for name in one_of))
    return made.map(_MENDS[cls]) if cls in _MENDS else made


def _field(cls: type[Any], field: inspect.Field, one_of: Sequence[str]) -> SearchStrategy[Any]:
    kind = field.type
    optional = isinstance(kind, inspect.UnionType)
    if isinstance(kind, inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    made = _FIELDS[cls, field.name] if (cls, field.name) in _FIELDS else _of(kind)
    if field.name == "port":
        made = st.sampled_from((*PORTS[:5] * 4, *PORTS))
    if (cls, field.name) in _MOSTLY:
        there = made.filter(lambda value: value != ())
        return st.one_of(there, there, there, there, there, made, st.none())
    return st.none() | made if optional and field.name not in one_of else made


def _of(kind: inspect.Type) -> SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            return st.deferred(lambda: struct(kind.cls))
        case inspect.VarTupleType():
            most = min(3 if kind.max_length is None else kind.max_length, 3)
            return st.lists(_of(kind.item_type), min_size=kind.min_length or 0, max_size=most).map(tuple)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            assert kind.ge is not None and kind.le is not None
            low, high = kind.ge, kind.le
            few = st.integers(max(low, 0), min(high, max(low, 0) + 5000))
            return st.one_of(st.sampled_from([low, high]), few, few, st.integers(low, high))
        case inspect.StrType():
            return _text(kind.min_length or 0, kind.max_length or 100)
    raise NotImplementedError(f"no strategy for {kind}")


# --- facts and options --------------------------------------------------------------------------------


@functools.cache
def _pems() -> tuple[Pem, Pem]:
    authority = certificate_authority("strategies")
    return authority, issue_certificate(authority, ["a.local"])


def _certificates() -> SearchStrategy[Certificate]:
    return st.one_of(
        st.just(FileCertificate(certificate_chain="/c.pem", private_key="/k.pem")),
        st.just(SdsSecret(secret_name="cfact")),
        st.builds(lambda: _pems()[1]),
    )


def _authorities() -> SearchStrategy[Authority]:
    return st.one_of(
        st.just(FileTrust(certificate_chain="/ca.pem")),
        st.just(SdsSecret(secret_name="tfact")),
        st.builds(lambda: PemTrust(certificate_chain=_pems()[0].certificate_chain)),
    )


_ENDPOINT = st.builds(
    Endpoint,
    address=st.sampled_from(ADDRESSES),
    other_address=st.none() | st.sampled_from(ADDRESSES),
    port=st.none() | st.integers(1, 65535),
    health=_sample("HEALTHY", "UNHEALTHY"),
    attributes=st.lists(st.tuples(_sample("stage", "zone"), _sample("a", "b")), max_size=2).map(tuple),
)


def _known(keys: Sequence[str], values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Facts for most keys: a mesh without them is full of errors."""
    every = st.fixed_dictionaries(dict.fromkeys(keys, values))
    return st.one_of(*[every] * 12, st.dictionaries(st.sampled_from(keys), values))


def _pairs(least: int) -> SearchStrategy[tuple[tuple[int, int], ...]]:
    numbers = st.integers(least, least + 40)
    return st.dictionaries(st.sampled_from(PORTS), numbers, max_size=3).map(
        lambda given: tuple(given.items())
    )


#: Every TCP backend needs a port without interception; here they all have one.
_TCP_EGRESS = tuple((port, 16000 + index) for index, port in enumerate(PORTS))

options: SearchStrategy[Options] = st.builds(
    Options,
    delivery=_sample("ads", "inline"),
    interception=_sample("redirect", "redirect", "none"),
    bind=_sample(None, None, "0.0.0.0", "::", "127.0.0.1", "::1"),
    ingress_port=_sample(None, None, 14000),
    ingress_ports=st.just(()) | _pairs(17000),
    egress_port=_sample(15001, 15001, 15501),
    tcp_egress=st.one_of(*[st.just(_TCP_EGRESS)] * 4, _pairs(18000)),
    app_address=_sample(None, "127.0.0.1", "::1"),
    app_port=_sample(None, None, 8000),
    app_ports=st.just(()) | _pairs(19000),
    sds_socket=_sample(*["/run/sds.sock"] * 7, None),
    file_certificates=_sample("inline", "sds"),
    single_hop=st.booleans(),
    send_sni=st.booleans(),
    legacy_defaults=st.booleans(),
    app_mesh_metadata=st.booleans(),
    aws_egress=st.booleans(),
)


# --- whole meshes -------------------------------------------------------------------------------------


def _some(pool: Sequence[str], most: int, least: int = 0) -> SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(pool), min_size=least, max_size=most, unique=True)


def _pick(ports: Sequence[int], drawn: int | None, always: bool) -> int | None:
    """One of the ports, chosen by the one that was drawn; None only where none needs to be named."""
    if not ports or (drawn is None and not (always and len(ports) > 1)):
        return None
    return ports[(drawn or 0) % len(ports)]


def _tied(name: str, pool: Sequence[str], there: Sequence[str]) -> str:
    """A name that is there, chosen by the one that was drawn."""
    return there[pool.index(name) % len(there)] if there else name


class _Ties:
    """What there is to refer to, and resources whose references lead there."""

    def __init__(self, named: Mapping[type[Any], Sequence[str]]) -> None:
        self.nodes: Sequence[str] = named[spec.VirtualNodeData]
        self.services: Sequence[str] = named[spec.VirtualServiceData]
        self.routers: Sequence[str] = named[spec.VirtualRouterData]
        #: (kind, name) -> port mappings of its listeners.
        self.ports: dict[tuple[str, str], list[Any]] = {}

    def resource(self, one: Any) -> Any:
        """Call it by kind in the order of `_SPECS`: what is referred to comes first."""
        tied = one
        if isinstance(one, spec.VirtualNodeData):
            tied = replace(one, spec=self._node(one.spec))
        elif isinstance(one, spec.VirtualServiceData) and one.spec.provider is not None:
            tied = replace(one, spec=spec.VirtualServiceSpec(provider=self._provider(one.spec.provider)))
        self._note(tied)
        return tied

    def _note(self, one: Any) -> None:
        if isinstance(one, spec.VirtualServiceData):
            provider = one.spec.provider
            where = ("", "")
            if provider is not None and provider.virtual_node is not None:
                where = ("virtualNode", provider.virtual_node.virtual_node_name)
            elif provider is not None and provider.virtual_router is not None:
                where = ("virtualRouter", provider.virtual_router.virtual_router_name)
            self.ports[one.kind, one.name] = self.ports.get(where, [])
        else:
            self.ports[one.kind, one.name] = [
                x.port_mapping for x in getattr(one.spec, "listeners", None) or ()
            ]

    def _node(self, node: spec.VirtualNodeSpec) -> spec.VirtualNodeSpec:
        backends = []
        for backend in node.backends or ():
            assert backend.virtual_service is not None
            name = _tied(backend.virtual_service.virtual_service_name, SERVICES, self.services)
            backends.append(
                spec.Backend(virtual_service=replace(backend.virtual_service, virtual_service_name=name))
            )
        return node if node.backends is None else replace(node, backends=tuple(backends))

    def _provider(self, provider: spec.VirtualServiceProvider) -> spec.VirtualServiceProvider:
        if provider.virtual_node is not None:
            name = _tied(provider.virtual_node.virtual_node_name, NODES, self._serving())
            node = spec.VirtualNodeServiceProvider(virtual_node_name=name)
            return spec.VirtualServiceProvider(virtual_node=node)
        assert provider.virtual_router is not None
        name = _tied(provider.virtual_router.virtual_router_name, ROUTERS, self.routers)
        router = spec.VirtualRouterServiceProvider(virtual_router_name=name)
        return spec.VirtualServiceProvider(virtual_router=router)

    def route(self, route: spec.RouteData, listener: Any) -> spec.RouteData:
        """The route for one of its router's listeners, with targets and ports that exist."""
        member = next(name for name in checks.ONE_OF[spec.RouteSpec] if getattr(route.spec, name))
        body = getattr(route.spec, member)
        match = body.match or spec.TcpRouteMatch()
        if listener is not None:
            several = len(self.ports["virtualRouter", route.virtual_router_name]) > 1
            match = replace(match, port=listener.port if several or match.port else None)
        targets = tuple(map(self._target, body.action.weighted_targets))
        body = replace(body, match=match, action=spec.RouteAction(weighted_targets=targets))
        return replace(route, spec=replace(route.spec, **{member: body}))

    def _serving(self) -> list[str]:
        return [name for name in self.nodes if self.ports["virtualNode", name]]

    def _target(self, target: spec.WeightedTarget) -> spec.WeightedTarget:
        name = _tied(target.virtual_node, NODES, self._serving())
        ports = [x.port for x in self.ports.get(("virtualNode", name), [])]
        return replace(target, virtual_node=name, port=_pick(ports, target.port, always=True))

    def gateway_route(self, route: spec.GatewayRouteData) -> spec.GatewayRouteData:
        member = next(name for name in checks.ONE_OF[spec.GatewayRouteSpec] if getattr(route.spec, name))
        body = getattr(route.spec, member)
        own = [x.port for x in self.ports["virtualGateway", route.virtual_gateway_name]]
        match = replace(body.match, port=_pick(own, body.match.port, always=True))
        http = {
            name: [x.port for x in self.ports["virtualService", name] if x.protocol != "tcp"]
            for name in self.services
        }
        usable = [name for name, ports in http.items() if ports] or self.services
        name = _tied(body.action.target.virtual_service.virtual_service_name, SERVICES, usable)
        ports = http.get(name, [])
        target = spec.GatewayRouteTarget(
            virtual_service=spec.GatewayRouteVirtualService(virtual_service_name=name),
            port=_pick(ports, body.action.target.port, always=True),
        )
        body = replace(body, match=match, action=replace(body.action, target=target))
        return replace(route, spec=replace(route.spec, **{member: body}))


def _route_spec(protocol: str | None) -> SearchStrategy[spec.RouteSpec]:
    """A route of a type that suits a listener."""
    every = ("http_route", "http2_route", "grpc_route", "tcp_route")
    fitting = every if protocol is None else every[3:] if protocol == "tcp" else every[:3]
    priority = st.none() | st.integers(0, 1000)
    bodies = {"http_route": spec.HttpRoute, "http2_route": spec.HttpRoute, "grpc_route": spec.GrpcRoute}
    return st.one_of(
        *(
            st.builds(spec.RouteSpec, priority=priority, **{name: struct(bodies.get(name, spec.TcpRoute))})
            for name in fitting
        )
    )


@st.composite
def resources(draw: st.DrawFn) -> list[spec.Data]:
    """The resources of one mesh, valid each by itself and mostly together."""
    found: list[Any] = []
    if draw(st.booleans()):
        found.append(spec.MeshData(mesh_name=MESH, spec=draw(struct(spec.MeshSpec))))
    named: Mapping[type[Any], list[str]] = {
        spec.VirtualNodeData: draw(_some(NODES, 4, 2)),
        spec.VirtualRouterData: draw(_some(ROUTERS, 2, 1)),
        spec.VirtualServiceData: draw(_some(SERVICES, 4, 2)),
        spec.VirtualGatewayData: draw(_some(GATEWAYS, 1)),
    }
    ties, dangling = _Ties(named), draw(st.sampled_from([*[False] * 12, True]))
    for cls, names in named.items():
        attribute = next(
            name for name in cls.__struct_fields__ if name.endswith("_name") and name != "mesh_name"
        )
        for name in names:
            one = cls(mesh_name=MESH, **{attribute: name}, spec=draw(struct(_SPECS[cls])))
            tied = ties.resource(one)
            found.append(one if dangling else tied)
    for parent in named[spec.VirtualRouterData]:
        for name in draw(_some(ROUTES, 3, 1)):
            listeners = ties.ports["virtualRouter", parent]
            listener = draw(st.sampled_from(listeners)) if listeners else None
            body = draw(_route_spec(None if listener is None or dangling else listener.protocol))
            route = spec.RouteData(mesh_name=MESH, virtual_router_name=parent, route_name=name, spec=body)
            found.append(route if dangling else ties.route(route, listener))
    for parent in named[spec.VirtualGatewayData]:
        for name in draw(_some(ROUTES, 4, 1)):
            gateway_route = spec.GatewayRouteData(
                mesh_name=MESH,
                virtual_gateway_name=parent,
                gateway_route_name=name,
                spec=draw(struct(spec.GatewayRouteSpec)),
            )
            found.append(gateway_route if dangling else ties.gateway_route(gateway_route))
    return found


_SPECS: Mapping[type[Any], type[Any]] = {
    spec.VirtualNodeData: spec.VirtualNodeSpec,
    spec.VirtualServiceData: spec.VirtualServiceSpec,
    spec.VirtualRouterData: spec.VirtualRouterSpec,
    spec.VirtualGatewayData: spec.VirtualGatewaySpec,
}


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    """A mesh with its facts. Its resources are valid: `Mesh.of` would raise otherwise."""
    return Mesh.of(*draw(resources())).replace(
        certificates=draw(_known(CERTIFICATE_ARNS, _certificates())),
        authorities=draw(_known((*AUTHORITY_ARNS, *CERTIFICATE_ARNS), _authorities())),
        endpoints=draw(_known(NODES, st.lists(_ENDPOINT, max_size=3).map(tuple))),
    )
