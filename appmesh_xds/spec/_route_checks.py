"""Rules for routes and gateway routes: matches, rewrites, retries, targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from ._finding import Finding, error, warning
from .common import HeaderMatchMethod, MatchRange
from .gateway import (
    GrpcGatewayRouteMatch,
    HttpGatewayRoute,
    HttpGatewayRouteMatch,
    HttpGatewayRoutePathRewrite,
    HttpGatewayRoutePrefixRewrite,
    HttpGatewayRouteRewrite,
)
from .regex import regex_findings
from .route import (
    GrpcRetryPolicy,
    GrpcRouteMatch,
    HttpPathMatch,
    HttpQueryParameter,
    HttpRetryPolicy,
    HttpRouteMatch,
    RouteAction,
)

#: What a retry policy's `httpRetryEvents` can say (reference §4.2).
HTTP_RETRY_EVENTS: Final = ("server-error", "gateway-error", "client-error", "stream-error")
_RESERVED_PREFIXES: Final = ("/aws-appmesh", "/aws-app-mesh")
#: Envoy counts bytes here.
_QUERY_PARAMETER_NAME_MAX_BYTES: Final = 1024

#: Parts of a path that no request has when it is matched: the query is cut off, and Envoy normalises
#: (reference §1.3: normalize_path and merge_slashes are on).
_NEVER_IN_A_PATH: Final = re.compile(r"[?#\s]|//|/\.\.?(?=/|$)")


# --- matches --------------------------------------------------------------------------------------


def http_match(match: HttpRouteMatch) -> Iterator[Finding]:
    yield from _path_or_prefix(match)
    if match.prefix is None and match.path is None:
        # Seen in real files with only a port; Envoy's route needs a path of some kind.
        yield warning("", "neither `prefix` nor `path`: every path matches", "say `prefix: /`")


def gateway_http_match(match: HttpGatewayRouteMatch) -> Iterator[Finding]:
    yield from _path_or_prefix(match)
    if match.prefix is None and match.path is None and match.hostname is None:
        yield warning("", "no `prefix`, `path` or `hostname`: every path matches", "say `prefix: /`")
    exact = match.path.exact if match.path is not None else None
    for at, path in ((".prefix", match.prefix), (".path.exact", exact)):
        if path is not None and path.startswith(_RESERVED_PREFIXES):
            yield error(
                at, "paths that begin with `/aws-appmesh` or `/aws-app-mesh` are reserved for App Mesh"
            )


def _path_or_prefix(match: HttpRouteMatch | HttpGatewayRouteMatch) -> Iterator[Finding]:
    if match.prefix is not None:
        yield from _path(match.prefix, ".prefix")
        if match.path is not None:
            yield error(".path", "there is a `prefix` already", "a match has one of the two")


def _path(path: str, at: str) -> Iterator[Finding]:
    if not path.startswith("/"):
        yield error(at, "must start with `/`")
    elif found := _NEVER_IN_A_PATH.search(path):
        yield warning(
            at,
            f"can never match: no path holds {found[0]!r}",
            "query parameters have matches of their own" if found[0] == "?" else "",
        )


def path_match(match: HttpPathMatch) -> Iterator[Finding]:
    if match.exact is not None:
        yield from _path(match.exact, ".exact")
    if match.regex is not None:
        yield from regex_findings(match.regex, ".regex", path=True)


def header_value(method: HeaderMatchMethod) -> Iterator[Finding]:
    if method.regex is not None:
        yield from regex_findings(method.regex, ".regex")


def match_range(bounds: MatchRange) -> Iterator[Finding]:
    # Envoy takes it and never matches.
    if bounds.start >= bounds.end:
        yield error(".end", "must be greater than `start`", "the range ends before `end`")


def query_parameter(parameter: HttpQueryParameter) -> Iterator[Finding]:
    if len(parameter.name.encode(errors="replace")) > _QUERY_PARAMETER_NAME_MAX_BYTES:
        yield error(".name", f"longer than Envoy's {_QUERY_PARAMETER_NAME_MAX_BYTES} bytes")


def grpc_match(match: GrpcRouteMatch) -> Iterator[Finding]:
    if match.method_name is not None and match.service_name is None:
        yield error(".methodName", "needs a `serviceName`", "name the service of the method")


def gateway_grpc_match(match: GrpcGatewayRouteMatch) -> Iterator[Finding]:
    if match.service_name is None and match.hostname is None:
        yield warning("", "neither `serviceName` nor `hostname`: every service matches")


# --- rewrites -------------------------------------------------------------------------------------


def gateway_http_route(route: HttpGatewayRoute) -> Iterator[Finding]:
    rewrite = route.action.rewrite
    if rewrite is None:
        return
    if rewrite.prefix is not None and route.match.path is not None:
        yield error(".action.rewrite.prefix", "the route matches a `path`", "use `rewrite.path`")
    if rewrite.path is not None and route.match.path is None:
        what = "a `prefix`" if route.match.prefix is not None else "no `path`"
        yield error(".action.rewrite.path", f"the route matches {what}", "use `rewrite.prefix`")


def rewrite(rewrite: HttpGatewayRouteRewrite) -> Iterator[Finding]:
    if rewrite.prefix is not None and rewrite.path is not None:
        yield error(".path", "there is a `prefix` already", "a rewrite has one of the two")


def prefix_rewrite(rewrite: HttpGatewayRoutePrefixRewrite) -> Iterator[Finding]:
    if rewrite.value is None:
        return
    if rewrite.default_prefix is not None:
        yield error(".value", "there is a `defaultPrefix` already", "a rewrite has one of the two")
    if not (rewrite.value.startswith("/") and rewrite.value.endswith("/")):
        yield error(".value", "must start and end with `/`")


def path_rewrite(rewrite: HttpGatewayRoutePathRewrite) -> Iterator[Finding]:
    if rewrite.exact is None:
        yield error(".exact", "missing: the path to write")
    elif not rewrite.exact.startswith("/"):
        yield error(".exact", "must start with `/`")


# --- retries and targets --------------------------------------------------------------------------


def retry_policy(policy: HttpRetryPolicy | GrpcRetryPolicy) -> Iterator[Finding]:
    grpc = policy.grpc_retry_events if isinstance(policy, GrpcRetryPolicy) else None
    if not (policy.http_retry_events or policy.tcp_retry_events or grpc):
        yield error("", "no event to retry on", "name one in `httpRetryEvents` or `tcpRetryEvents`")
    for i, event in enumerate(policy.http_retry_events or ()):
        if event not in HTTP_RETRY_EVENTS:
            close = get_close_matches(event, HTTP_RETRY_EVENTS, n=1)
            hint = f"did you mean `{close[0]}`?" if close else "one of " + ", ".join(HTTP_RETRY_EVENTS)
            yield error(f".httpRetryEvents[{i}]", f"{event!r} is no event", hint)


def action(action: RouteAction) -> Iterator[Finding]:
    # Envoy refuses weights whose sum is 0; a direct answer takes their place (reference §10.17).
    if not any(target.weight for target in action.weighted_targets):
        yield warning(".weightedTargets", "every weight is 0: requests are answered with 503")
