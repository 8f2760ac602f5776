"""A gateway's routes in one step: gateway route and virtual-router route combined into one.

App Mesh sent every request through two listeners. Here the second listener's decision is made at
translation: each gateway route is multiplied with the routes behind its service, and the match of the
latter, which is on the rewritten path, is turned into one on the client's path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import proto
from .gateway_routes import Rewrite, keeps_host, rewrites, set_path_rewrite
from .report import Report

if TYPE_CHECKING:
    from ..options import Options
    from ..resolve import Service
    from ..spec import GatewayRouteData
    from .backend import BackendPort


def direct_routes(
    gateway_route: GatewayRouteData,
    service: Service | None,
    ports: Iterable[BackendPort],
    options: Options,
    report: Report,
) -> list[proto.Route]:
    """The routes of a gateway route straight to the clusters behind its service, in the order tried.

    A combination that no single match can say is left out and reported as an error.
    """
    if service is None:
        return []
    result = []
    for outer in rewrites(gateway_route):
        for port in ports:
            for inner in port.routes():
                combined = _combine(outer, inner.match)
                if isinstance(combined, str):
                    report.error(
                        gateway_route.key,
                        "$.spec",
                        f"cannot be combined with a route of {service.data.name!r}: {combined}",
                        "use two hops (without --single-hop)",
                    )
                    continue
                if combined is None:
                    continue
                result.append(_route(gateway_route, service, combined, inner))
    return result


def _route(
    gateway_route: GatewayRouteData, service: Service, combined: Rewrite, inner: proto.Route
) -> proto.Route:
    route = proto.Route()
    route.CopyFrom(inner)
    route.match.CopyFrom(combined.match)
    if route.HasField("route"):
        set_path_rewrite(route.route, combined)
        if not keeps_host(gateway_route):
            route.route.host_rewrite_literal = service.data.name
    return route


def _combine(outer: Rewrite, inner: proto.RouteMatch) -> Rewrite | str | None:
    """A match on the client's path for `inner`, which is on the path that `outer` leaves.

    None when no path can satisfy both; a text when a single match cannot say it.
    """
    kind = outer.match.WhichOneof("path_specifier")
    if kind == "prefix":
        combined = _under_prefix(outer, inner)
    elif kind == "path":
        combined = _under_path(outer, inner)
    else:
        combined = _under_regex(outer, inner)
    if not isinstance(combined, Rewrite):
        return combined
    match = proto.RouteMatch()
    match.CopyFrom(combined.match)
    match.headers.extend([*outer.match.headers, *inner.headers])
    match.query_parameters.extend([*outer.match.query_parameters, *inner.query_parameters])
    return combined._replace(match=match)


def _under_prefix(outer: Rewrite, inner: proto.RouteMatch) -> Rewrite | str | None:
    """Client's path = prefix + rest, rewritten path = replacement + rest."""
    prefix = outer.match.prefix
    replacement = prefix if outer.prefix is None else outer.prefix
    kind = inner.WhichOneof("path_specifier")
    if kind == "prefix":
        if inner.prefix.startswith(replacement):
            longer = prefix + inner.prefix[len(replacement) :]
            return Rewrite(proto.RouteMatch(prefix=longer), prefix=inner.prefix)
        if replacement.startswith(inner.prefix):
            return Rewrite(proto.RouteMatch(prefix=prefix), prefix=replacement)
        return None
    if kind == "path":
        if not inner.path.startswith(replacement):
            return None
        whole = prefix + inner.path[len(replacement) :]
        return Rewrite(proto.RouteMatch(path=whole), path=inner.path)
    return (
        "a regular expression behind a prefix that is rewritten"
        if prefix != replacement
        else (_with_expression(prefix, inner))
    )


def _with_expression(prefix: str, inner: proto.RouteMatch) -> Rewrite:
    """A regular expression for the path, and the prefix beside it."""
    match = proto.RouteMatch()
    match.safe_regex.regex = inner.safe_regex.regex
    if prefix != "/":
        header = match.headers.add()
        header.name = ":path"
        header.string_match.prefix = prefix
    return Rewrite(match)


def _under_path(outer: Rewrite, inner: proto.RouteMatch) -> Rewrite | None:
    """One path only: whether the inner match takes it is known now."""
    rewritten = outer.match.path if outer.path is None else outer.path
    if not _matches(inner, rewritten):
        return None
    return Rewrite(proto.RouteMatch(path=outer.match.path), path=outer.path)


def _under_regex(outer: Rewrite, inner: proto.RouteMatch) -> Rewrite | str | None:
    match = proto.RouteMatch()
    match.safe_regex.regex = outer.match.safe_regex.regex
    if outer.path is not None:
        return Rewrite(match, path=outer.path) if _matches(inner, outer.path) else None
    kind = inner.WhichOneof("path_specifier")
    if kind == "path":
        if not _full_match(outer.match.safe_regex.regex, inner.path):
            return None
        return Rewrite(proto.RouteMatch(path=inner.path))
    header = match.headers.add()
    header.name = ":path"
    if kind == "prefix":
        if inner.prefix == "/":
            del match.headers[:]
        else:
            header.string_match.prefix = inner.prefix
    else:
        # The header holds the query string too, which the expression does not speak of.
        header.string_match.safe_regex.regex = rf"(?:{inner.safe_regex.regex})(?:\?.*)?"
    return Rewrite(match)


def _matches(match: proto.RouteMatch, path: str) -> bool:
    kind = match.WhichOneof("path_specifier")
    if kind == "prefix":
        return path.startswith(match.prefix)
    if kind == "path":
        return path == match.path
    return _full_match(match.safe_regex.regex, path)


def _full_match(expression: str, path: str) -> bool:
    import re2

    return re2.fullmatch(expression, path) is not None
