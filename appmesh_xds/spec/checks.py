"""The rules that one resource's fields have among each other (reference §8.3).

A table says which struct has which rule; a walk over the struct tree runs them and knows the paths.
Rules look at values of the right types: run `convert` or `validate` on anything that may not be.

What passes without an error is accepted by Envoy once translated. Where a rule is stricter than App Mesh
was known to be, it warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from ..errors import Problem
from . import _listener_checks, _name_checks, _route_checks, common, gateway, node, route
from ._finding import Finding, camel, error, listed
from .data import DATA_TYPES, Data, VirtualServiceData

#: Structs of which exactly one member must be there, as the service model says (`union: true`).
UNIONS: Final[tuple[type[msgspec.Struct], ...]] = (
    common.AccessLog,
    common.LoggingFormat,
    common.ClientTlsCertificate,
    common.TlsValidationContextTrust,
    common.ListenerTlsCertificate,
    common.ListenerTlsValidationContextTrust,
    common.HeaderMatchMethod,
    node.Backend,
    node.ServiceDiscovery,
    node.ListenerTimeout,
    node.ConnectionPool,
    gateway.VirtualGatewayConnectionPool,
    route.VirtualServiceProvider,
)

#: Members of which exactly one must be there although the service model does not say so.
ONE_OF: Final[dict[type[msgspec.Struct], tuple[str, ...]]] = {
    # "Specify one" in the API's documentation, one type per router listener.
    route.RouteSpec: ("http_route", "http2_route", "grpc_route", "tcp_route"),
    gateway.GatewayRouteSpec: ("http_route", "http2_route", "grpc_route"),
    # The Kubernetes controller's webhooks refuse both and neither.
    route.HttpPathMatch: ("exact", "regex"),
    gateway.GatewayRouteHostnameMatch: ("exact", "suffix"),
    **{union: union.__struct_fields__ for union in UNIONS},
}

_Rule = Callable[[Any], Iterable[Finding]]

#: The rule of each struct that has one.
RULES: Final[dict[type[msgspec.Struct], _Rule]] = {
    VirtualServiceData: _name_checks.virtual_service,
    node.VirtualServiceBackend: _name_checks.backend_service,
    gateway.GatewayRouteVirtualService: _name_checks.target_service,
    gateway.GatewayRouteHostnameMatch: _name_checks.hostname_match,
    node.DnsServiceDiscovery: _name_checks.dns,
    node.AwsCloudMapServiceDiscovery: _name_checks.cloud_map,
    common.HeaderMatch: _name_checks.header,
    node.VirtualNodeSpec: _listener_checks.node,
    gateway.VirtualGatewaySpec: _listener_checks.gateway,
    route.VirtualRouterSpec: _listener_checks.router,
    node.Listener: _listener_checks.listener,
    gateway.VirtualGatewayListener: _listener_checks.listener,
    node.ListenerTls: _listener_checks.tls,
    node.OutlierDetection: _listener_checks.outlier_detection,
    common.Duration: _listener_checks.duration,
    common.LoggingFormat: _listener_checks.logging_format,
    route.HttpRouteMatch: _route_checks.http_match,
    gateway.HttpGatewayRouteMatch: _route_checks.gateway_http_match,
    route.HttpPathMatch: _route_checks.path_match,
    common.HeaderMatchMethod: _route_checks.header_value,
    common.MatchRange: _route_checks.match_range,
    route.HttpQueryParameter: _route_checks.query_parameter,
    route.GrpcRouteMatch: _route_checks.grpc_match,
    gateway.GrpcGatewayRouteMatch: _route_checks.gateway_grpc_match,
    gateway.HttpGatewayRoute: _route_checks.gateway_http_route,
    gateway.HttpGatewayRouteRewrite: _route_checks.rewrite,
    gateway.HttpGatewayRoutePrefixRewrite: _route_checks.prefix_rewrite,
    gateway.HttpGatewayRoutePathRewrite: _route_checks.path_rewrite,
    route.HttpRetryPolicy: _route_checks.retry_policy,
    route.GrpcRetryPolicy: _route_checks.retry_policy,
    route.RouteAction: _route_checks.action,
}

#: Text that may hold any character: what a log line is made of.
_FREE_TEXT: Final = {
    (common.LoggingFormat, "text"),
    (common.JsonFormatRef, "key"),
    (common.JsonFormatRef, "value"),
}


def check(data: Data, *, known: set[object] | None = None) -> tuple[Problem, ...]:
    """Every rule that the resource breaks, always in the same order. Problems carry the resource's key.

    `known` holds what breaks none.
    """
    if is_clean(data, known=known):
        return ()
    found: list[tuple[str, Finding]] = []
    _walk(data, "$", found)
    return tuple(
        Problem(
            resource=data.key,
            path=path + finding.at,
            message=finding.message,
            hint=finding.hint,
            severity=finding.severity,
        )
        for path, finding in found
    )


def is_clean(data: Data, *, printable: bool = False, known: set[object] | None = None) -> bool:
    """Whether `check` finds nothing: the same rules, without a thought for where things stand.

    `printable` says that no text holds a control character, as some files show at a glance. `known` is for
    many resources of one mesh: what was clean and comes often is not looked at again.
    """
    clean = _cleaner(type(data), printable or _is_printable(data))
    return clean is None or clean(data, set() if known is None else known)


def _is_printable(data: Data) -> bool:
    """Whether its texts are all plain ASCII: a quicker look than at each of them."""
    try:
        text = msgspec.json.encode(data)
    except UnicodeEncodeError:
        return False
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


def parts(data: Data) -> set[object]:
    """What `is_clean` may know of a resource that is clean: the structs in the lists of its spec."""
    found: set[object] = set()
    for member in data.spec.__struct_fields__:
        value = getattr(data.spec, member)
        if isinstance(value, tuple):
            found.update(value)
    return found


class _Plan(NamedTuple):
    """What there is to see in a type of struct: (attribute, `.member`) pairs, and its rules."""

    texts: tuple[tuple[str, str], ...]
    text_lists: tuple[tuple[str, str], ...]
    structs: tuple[tuple[str, str], ...]
    struct_lists: tuple[tuple[str, str], ...]
    one_of: tuple[str, ...]
    rule: _Rule | None


def _walk(struct: msgspec.Struct, path: str, found: list[tuple[str, Finding]]) -> None:
    texts, text_lists, structs, struct_lists, one_of, rule = _plan(struct.__class__)
    if one_of and sum([getattr(struct, member) is not None for member in one_of]) != 1:
        found.append((path, _not_exactly_one(struct, one_of)))
    if rule is not None:
        for finding in rule(struct):
            found.append((path, finding))  # noqa: PERF401  most rules find nothing, and this is hot
    for attribute, member in texts:
        text = getattr(struct, attribute)
        if text is not None and not text.isprintable():
            found.extend((path, finding) for finding in _name_checks.text_findings(text, member))
    for attribute, member in text_lists:
        for i, text in enumerate(getattr(struct, attribute) or ()):
            if not text.isprintable():
                at = f"{member}[{i}]"
                found.extend((path, finding) for finding in _name_checks.text_findings(text, at))
    for attribute, member in structs:
        part = getattr(struct, attribute)
        if part is not None:
            _walk(part, path + member, found)
    for attribute, member in struct_lists:
        for i, part in enumerate(getattr(struct, attribute) or ()):
            _walk(part, f"{path}{member}[{i}]", found)


def _not_exactly_one(struct: msgspec.Struct, members: tuple[str, ...]) -> Finding:
    there = [member for member in members if getattr(struct, member) is not None]
    if not there:
        return error("", f"empty: needs {listed(members)}")
    return error(
        f".{camel(there[1])}", f"only one of {listed(there, 'and')} may be set", "leave out all but one"
    )


@cache
def _plan(cls: type[msgspec.Struct]) -> _Plan:
    by_kind: dict[tuple[bool, type], list[tuple[str, str]]] = {}
    for field in _info(cls).fields:
        many, kind = _kind(field.type)
        if (cls, field.name) not in _FREE_TEXT:
            by_kind.setdefault((many, type(kind)), []).append((field.name, f".{field.encode_name}"))
    return _Plan(
        texts=tuple(by_kind.get((False, inspect.StrType), ())),
        text_lists=tuple(by_kind.get((True, inspect.StrType), ())),
        structs=tuple(by_kind.get((False, inspect.StructType), ())),
        struct_lists=tuple(by_kind.get((True, inspect.StructType), ())),
        one_of=ONE_OF.get(cls, ()),
        rule=RULES.get(cls),
    )


def _info(cls: type[msgspec.Struct]) -> inspect.StructType:
    return _infos()[cls]


@cache
def _infos() -> dict[type, inspect.StructType]:
    """What is in every struct of a spec. Asked for at once, which takes a tenth of asking for each."""
    found: dict[type, inspect.StructType] = {}
    waiting: list[inspect.Type] = [*inspect.multi_type_info(DATA_TYPES)]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, inspect.StructType) and kind.cls not in found:
            found[kind.cls] = kind
            waiting.extend(_kind(field.type)[1] for field in kind.fields)
    return found


def _kind(kind: inspect.Type) -> tuple[bool, inspect.Type]:
    """Whether a member is a list, and what it or its items are."""
    if isinstance(kind, inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return (True, kind.item_type) if isinstance(kind, inspect.VarTupleType) else (False, kind)


# --- the quick look -----------------------------------------------------------------------------------

_Cleaner = Callable[[Any, set[object]], bool]

#: What many resources of a mesh have in common, and what has much in it.
_OFTEN: Final = (node.Backend, node.Listener, route.HttpRetryPolicy)


@cache
def _cleaner(cls: type[msgspec.Struct], printable: bool) -> _Cleaner | None:
    """What `_walk` does for a type, and stops at the first finding. None where there is nothing to do."""
    plan = _plan(cls)
    one_of, rule = plan.one_of, plan.rule
    absent = len(one_of) - 1
    texts = () if printable else tuple(attribute for attribute, _ in plan.texts)
    text_lists = () if printable else tuple(attribute for attribute, _ in plan.text_lists)
    structs = _parts(cls, plan.structs, printable)
    struct_lists = _parts(cls, plan.struct_lists, printable)
    if not (one_of or rule or texts or text_lists or structs or struct_lists):
        return None

    def clean(struct: Any, known: set[object]) -> bool:
        if one_of and [getattr(struct, member) for member in one_of].count(None) != absent:
            return False
        if rule is not None:
            for _ in rule(struct):
                return False
        if texts or text_lists:
            for attribute in texts:
                text = getattr(struct, attribute)
                if text is not None and not text.isprintable():
                    return False
            for attribute in text_lists:
                for text in getattr(struct, attribute) or ():
                    if not text.isprintable():
                        return False
        for attribute, inner in structs:
            part = getattr(struct, attribute)
            if part is not None and not inner(part, known):
                return False
        for attribute, inner in struct_lists:
            for part in getattr(struct, attribute) or ():
                if not inner(part, known):
                    return False
        return True

    def clean_once(struct: Any, known: set[object]) -> bool:
        if struct in known:
            return True
        if not clean(struct, known):
            return False
        known.add(struct)
        return True

    return clean_once if cls in _OFTEN else clean


def _parts(
    cls: type[msgspec.Struct], members: tuple[tuple[str, str], ...], printable: bool
) -> tuple[tuple[str, _Cleaner], ...]:
    """Attributes that hold structs with something to look at in them."""
    types = {field.name: field.type for field in _info(cls).fields}
    found = [(attribute, _cleaner(_struct_within(types[attribute]), printable)) for attribute, _ in members]
    return tuple((attribute, inner) for attribute, inner in found if inner is not None)


def _struct_within(kind: inspect.Type) -> type[msgspec.Struct]:
    _, kind = _kind(kind)
    assert isinstance(kind, inspect.StructType)
    return kind.cls
