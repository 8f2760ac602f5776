"""The rules among the fields of one resource: a row each, and the facts about Envoy that they rest on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest
from real_envoy import validate as envoy_validate

from appmesh_xds import spec
from appmesh_xds.spec import access_log, checks
from appmesh_xds.spec.checks import check
from appmesh_xds.spec.convert import convert
from appmesh_xds.spec.regex import MAX_PROGRAM_SIZE

Json = dict[str, Any]

NAMES: dict[str, Json] = {
    "mesh": {},
    "virtualNode": {"virtualNodeName": "n"},
    "virtualGateway": {"virtualGatewayName": "g"},
    "virtualService": {"virtualServiceName": "s.local"},
    "virtualRouter": {"virtualRouterName": "r"},
    "route": {"virtualRouterName": "r", "routeName": "a"},
    "gatewayRoute": {"virtualGatewayName": "g", "gatewayRouteName": "a"},
}


def resource(kind: str, body: Json, **names: str) -> spec.Data:
    value, problems = convert({"meshName": "m", **NAMES[kind], "spec": body, **names}, spec.BY_KIND[kind])
    assert value is not None, problems
    return value


def found(data: spec.Data) -> list[tuple[str, str, str]]:
    """(severity, path, message and hint) of each problem."""
    problems = check(data)
    assert all(p.resource == data.key for p in problems)
    return [(p.severity, p.path, f"{p.message} ({p.hint})") for p in problems]


# --- what the rows are made of --------------------------------------------------------------------

DISCOVERY = {"dns": {"hostname": "n.local"}}
CERTIFICATE = {"file": {"certificateChain": "/c.pem", "privateKey": "/k.pem"}}
TRUST = {"file": {"certificateChain": "/ca.pem"}}
TWO_POOLS = {"http": {"maxConnections": 1}, "http2": {"maxRequests": 1}}
SDS = {"sds": {"secretName": "s"}}


def seconds(value: int) -> Json:
    return {"unit": "s", "value": value}


def listener(protocol: str = "http", port: int = 80, **more: Any) -> Json:
    return {"portMapping": {"port": port, "protocol": protocol}, **more}


def node(*listeners: Json, **more: Any) -> spec.Data:
    return resource(
        "virtualNode", {"listeners": list(listeners or [listener()]), "serviceDiscovery": DISCOVERY, **more}
    )


def gateway(*listeners: Json, **more: Any) -> spec.Data:
    return resource("virtualGateway", {"listeners": list(listeners), **more})


def health(protocol: str = "http", **more: Any) -> Json:
    times = {"intervalMillis": 5000, "timeoutMillis": 2000, "healthyThreshold": 2, "unhealthyThreshold": 2}
    return {"protocol": protocol, "path": "/", **times, **more}


def bare_health(protocol: str, **more: Any) -> Json:
    return {key: value for key, value in health(protocol, **more).items() if key != "path" or more.get(key)}


def outlier(interval: int = 1, ejection: int = 1) -> Json:
    return {
        "interval": seconds(interval),
        "baseEjectionDuration": seconds(ejection),
        "maxEjectionPercent": 0,
        "maxServerErrors": 1,
    }


def tls(mode: str = "STRICT", **more: Any) -> Json:
    return {"mode": mode, "certificate": CERTIFICATE, **more}


def policy(**tls: Any) -> Json:
    return {"clientPolicy": {"tls": {"validation": {"trust": TRUST}, **tls}}}


def logging(**format_: Any) -> Json:
    return {"accessLog": {"file": {"path": "/dev/stdout", "format": format_}}}


ACTION = {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}


def http_route(match: Json, **more: Any) -> spec.Data:
    return resource("route", {"httpRoute": {"match": match, "action": ACTION, **more}})


def grpc_route(match: Json, **more: Any) -> spec.Data:
    return resource("route", {"grpcRoute": {"match": match, "action": ACTION, **more}})


def header(**more: Any) -> spec.Data:
    return http_route({"prefix": "/", "headers": [{"name": "x", **more}]})


def retry(**events: Any) -> Json:
    return {"maxRetries": 1, "perRetryTimeout": seconds(1), **events}


def target(service: str = "s.local", **more: Any) -> Json:
    return {"target": {"virtualService": {"virtualServiceName": service}}, **more}


def http_gateway_route(match: Json, **rewrite: Any) -> spec.Data:
    action = target(rewrite=rewrite) if rewrite else target()
    return resource("gatewayRoute", {"httpRoute": {"match": match, "action": action}})


def grpc_gateway_route(match: Json) -> spec.Data:
    return resource("gatewayRoute", {"grpcRoute": {"match": match, "action": target()}})


def service(name: str, **body: Any) -> spec.Data:
    return resource("virtualService", body, virtualServiceName=name)


L0 = "$.spec.listeners[0]"
FORMAT = "$.spec.logging.accessLog.file.format"
MATCH = "$.spec.httpRoute.match"
REWRITE = "$.spec.httpRoute.action.rewrite"
HOSTNAME = "$.spec.serviceDiscovery.dns.hostname"

#: (resource, severity, path, part of message and hint)
ROWS: list[tuple[spec.Data, str, str, str]] = [
    # --- unions: two members, none
    (node(listener(connectionPool=TWO_POOLS)),
     "error", f"{L0}.connectionPool.http2", "only one of `http` and `http2`"),
    (gateway(listener(connectionPool=TWO_POOLS)),
     "error", f"{L0}.connectionPool.http2", "only one of `http` and `http2`"),
    (gateway(listener(connectionPool={})), "error", f"{L0}.connectionPool", "`grpc`, `http` or `http2`"),
    (node(listener(timeout={"http": {}, "http2": {}})), "error", f"{L0}.timeout.http2", "only one"),
    (node(listener(timeout={})), "error", f"{L0}.timeout", "empty"),
    (node(listener(tls=tls(certificate={**CERTIFICATE, **SDS}))),
     "error", f"{L0}.tls.certificate.sds", "only one"),
    (node(listener(tls=tls(certificate={}))), "error", f"{L0}.tls.certificate", "`acm`, `file` or `sds`"),
    (node(listener(tls=tls(validation={"trust": {**TRUST, **SDS}}))),
     "error", f"{L0}.tls.validation.trust.sds", "only one of `file` and `sds`"),
    (node(listener(tls=tls(validation={"trust": {}}))),
     "error", f"{L0}.tls.validation.trust", "`file` or `sds`"),
    (gateway(listener(tls=tls(validation={"trust": {}}))),
     "error", f"{L0}.tls.validation.trust", "`file` or"),
    (node(backendDefaults=policy(certificate={**CERTIFICATE, **SDS})),
     "error", "$.spec.backendDefaults.clientPolicy.tls.certificate.sds", "only one"),
    (node(backendDefaults=policy(validation={"trust": {**TRUST, **SDS}})),
     "error", "$.spec.backendDefaults.clientPolicy.tls.validation.trust.sds", "only one of `file` and `sds`"),
    (node(logging={"accessLog": {}}), "error", "$.spec.logging.accessLog", "empty: needs `file`"),
    (node(logging=logging()), "error", FORMAT, "empty: needs `json` or `text`"),
    (node(logging=logging(text="x", json=[{"key": "a", "value": "b"}])),
     "error", f"{FORMAT}.text", "only one"),
    (node(backends=[{}]), "error", "$.spec.backends[0]", "empty: needs `virtualService`"),
    (resource("virtualNode", {"serviceDiscovery": {}, "listeners": [listener()]}),
     "error", "$.spec.serviceDiscovery", "empty: needs `awsCloudMap` or `dns`"),
    (service("s", provider={}), "error", "$.spec.provider", "empty: needs `virtualNode` or `virtualRouter`"),
    (service("s", provider={"virtualNode": {"virtualNodeName": "n"},
                            "virtualRouter": {"virtualRouterName": "r"}}),
     "error", "$.spec.provider.virtualRouter", "only one"),
    (header(match={"exact": "a", "prefix": "b", "suffix": "c"}),
     "error", f"{MATCH}.headers[0].match.prefix", "only one of `exact`, `prefix` and `suffix`"),
    (header(match={}), "error", f"{MATCH}.headers[0].match", "empty"),
    (resource("route", {}), "error", "$.spec", "`httpRoute`, `http2Route`, `grpcRoute` or `tcpRoute`"),
    (resource("route", {"tcpRoute": {"action": ACTION}, "grpcRoute": {"action": ACTION, "match": {}}}),
     "error", "$.spec.tcpRoute", "only one of `grpcRoute` and `tcpRoute`"),
    (resource("gatewayRoute", {"priority": 1}), "error", "$.spec", "empty"),
    # --- listeners
    (resource("virtualNode", {"listeners": [listener()]}),
     "error", "$.spec.serviceDiscovery", "a node with listeners needs service discovery"),
    (resource("virtualNode", {"serviceDiscovery": DISCOVERY}),
     "error", "$.spec.listeners", "service discovery cannot be set without a listener"),
    (node(listener(), listener(port=81), listener("tcp")),
     "error", "$.spec.listeners[2].portMapping.port", "port 80 is that of listeners[0]"),
    (gateway(listener(), listener()), "error", "$.spec.listeners[1].portMapping.port", "listeners[0]"),
    (resource("virtualRouter", {"listeners": [listener(), listener()]}),
     "error", "$.spec.listeners[1].portMapping.port", "listeners[0]"),
    (gateway(), "warning", "$.spec.listeners", "serves nobody"),
    (node(listener(timeout={"grpc": {}})),
     "error", f"{L0}.timeout.grpc", "speaks http, not grpc (move it to `timeout.http`"),
    (node(listener("tcp", connectionPool={"http": {"maxConnections": 1}})),
     "error", f"{L0}.connectionPool.http", "speaks tcp, not http (move it to `connectionPool.tcp`"),
    (gateway(listener("grpc", connectionPool={"http2": {"maxRequests": 1}})),
     "error", f"{L0}.connectionPool.http2", "speaks grpc, not http2"),
    (node(listener(healthCheck=health(port=81))),
     "error", f"{L0}.healthCheck.port", "must be the listener's port, 80"),
    (gateway(listener(healthCheck=health(port=81))),
     "error", f"{L0}.healthCheck.port", "must be the listener's port"),
    (node(listener(healthCheck=bare_health("grpc"))), "error", f"{L0}.healthCheck.protocol", "http2 or grpc"),
    (node(listener("tcp", healthCheck=health("tcp", path="/x"))),
     "warning", f"{L0}.healthCheck.path", "ignored"),
    (node(listener(healthCheck=bare_health("http"))),
     "warning", f"{L0}.healthCheck.path", "`/` is asked for"),
    (node(listener(healthCheck=health(path=""))), "warning", f"{L0}.healthCheck.path", "`/` is asked for"),
    (node(listener(healthCheck=health(path="x"))), "warning", f"{L0}.healthCheck.path", "starts with `/`"),
    (node(listener(tls=tls("DISABLED", validation={"trust": TRUST}))),
     "warning", f"{L0}.tls.validation", "clients are not checked"),
    (node(listener(outlierDetection=outlier(interval=0))),
     "error", f"{L0}.outlierDetection.interval", "longer than 0"),
    (node(listener(outlierDetection=outlier(ejection=0))),
     "error", f"{L0}.outlierDetection.baseEjectionDuration", "longer than 0"),
    (node(listener(timeout={"http": {"idle": {"value": 1}}})),
     "error", f"{L0}.timeout.http.idle.unit", "missing"),
    (node(listener(timeout={"http": {"idle": {"unit": "s"}}})),
     "error", f"{L0}.timeout.http.idle.value", "missing"),
    (node(listener(timeout={"http": {"idle": {}}})),
     "error", f"{L0}.timeout.http.idle.unit", "`unit` and `value`"),
    (node(listener(timeout={"http": {"perRequest": seconds(9_200_000_001)}})),
     "error", f"{L0}.timeout.http.perRequest.value", "at most 9200000000 s"),
    (node(backends=[{"virtualService": {"virtualServiceName": "a"}}] * 2),
     "warning", "$.spec.backends[1]", "the same service as backends[0]"),
    # --- names
    (service("*.local"), "error", "$.virtualServiceName", "'*' (wildcards"),
    (service("a b"), "error", "$.virtualServiceName", "cannot hold ' '"),
    (service("a/b"), "error", "$.virtualServiceName", "cannot hold '/'"),
    (service("a%b"), "error", "$.virtualServiceName", "cannot hold '%'"),
    (service("a\x00b"), "error", "$.virtualServiceName", "control character (U+0000)"),
    (service("aws.app-mesh.local"), "error", "$.virtualServiceName", "reserved"),
    (service("aws.appmesh"), "error", "$.virtualServiceName", "reserved"),
    (node(backends=[{"virtualService": {"virtualServiceName": "a*"}}]),
     "error", "$.spec.backends[0].virtualService.virtualServiceName", "wildcards"),
    (resource("gatewayRoute", {"httpRoute": {"match": {"prefix": "/"}, "action": target("a b")}}),
     "error", "$.spec.httpRoute.action.target.virtualService.virtualServiceName", "cannot hold ' '"),
    (node(serviceDiscovery={"dns": {"hostname": "a b"}}), "error", HOSTNAME, "cannot hold ' '"),
    (node(serviceDiscovery={"dns": {"hostname": "*.a"}}), "error", HOSTNAME, "cannot hold '*'"),
    (node(serviceDiscovery={"dns": {"hostname": "a:80"}}), "warning", HOSTNAME, "without a port"),
    (node(serviceDiscovery={"awsCloudMap": {"namespaceName": "a b", "serviceName": "c"}}),
     "error", "$.spec.serviceDiscovery.awsCloudMap.namespaceName", "cannot hold ' '"),
    (node(serviceDiscovery={"awsCloudMap": {"namespaceName": "a", "serviceName": "*"}}),
     "error", "$.spec.serviceDiscovery.awsCloudMap.serviceName", "cannot hold '*'"),
    (resource("virtualNode", {}, virtualNodeName="a\nb"), "error", "$.virtualNodeName", "U+000A"),
    (node(logging={"accessLog": {"file": {"path": "/a\x00"}}}),
     "error", "$.spec.logging.accessLog.file.path", "U+0000"),
    (node(listener(tls=tls(validation={"trust": TRUST,
                                       "subjectAlternativeNames": {"match": {"exact": ["a", "b\r"]}}}))),
     "error", f"{L0}.tls.validation.subjectAlternativeNames.match.exact[1]", "U+000D"),
    (header(name="a b"), "error", f"{MATCH}.headers[0].name", "'a b' is not a header's name"),
    (header(name="é"), "error", f"{MATCH}.headers[0].name", "not a header's name"),
    (header(name=":"), "error", f"{MATCH}.headers[0].name", "not a header's name"),
    (header(name=":status"), "warning", f"{MATCH}.headers[0].name", "no request has this header"),
    (header(match={"exact": "a\x00"}), "error", f"{MATCH}.headers[0].match.exact", "U+0000"),
    (grpc_route({"metadata": [{"name": "a b"}]}),
     "error", "$.spec.grpcRoute.match.metadata[0].name", "not a header"),
    # --- matches of routes
    (http_route({"prefix": "/", "path": {"exact": "/"}}),
     "error", f"{MATCH}.path", "there is a `prefix` already"),
    (http_route({}), "warning", MATCH, "every path matches"),
    (http_route({"port": 80}), "warning", MATCH, "every path matches"),
    (http_route({"prefix": "a"}), "error", f"{MATCH}.prefix", "must start with `/`"),
    (http_route({"prefix": ""}), "error", f"{MATCH}.prefix", "must start with `/`"),
    (http_route({"path": {"exact": "a"}}), "error", f"{MATCH}.path.exact", "must start with `/`"),
    (http_route({"path": {"exact": "/a?b=c"}}), "warning", f"{MATCH}.path.exact", "matches of their own"),
    (http_route({"prefix": "/a#b"}), "warning", f"{MATCH}.prefix", "can never match"),
    (http_route({"prefix": "/a//b"}), "warning", f"{MATCH}.prefix", "no path holds '//'"),
    (http_route({"prefix": "/a/../b"}), "warning", f"{MATCH}.prefix", "no path holds '/..'"),
    (http_route({"prefix": "/a\x00"}), "error", f"{MATCH}.prefix", "control character"),
    (http_route({"path": {"exact": "/a", "regex": "/a"}}), "error", f"{MATCH}.path.regex", "only one"),
    (http_route({"path": {}}), "error", f"{MATCH}.path", "empty: needs `exact` or `regex`"),
    (http_route({"path": {"regex": "/(?=a)"}}), "error", f"{MATCH}.path.regex", "no look-ahead"),
    (http_route({"path": {"regex": r"/(a)\1"}}), "error", f"{MATCH}.path.regex", "no back-references"),
    (http_route({"path": {"regex": "/a{1000}"}}), "error", f"{MATCH}.path.regex", "Envoy takes 1000"),
    (http_route({"path": {"regex": "^/a"}}), "warning", f"{MATCH}.path.regex", "end it in `.*`"),
    (http_route({"path": {"regex": "/a$"}}), "warning", f"{MATCH}.path.regex", "begin it with `.*`"),
    (http_route({"path": {"regex": "a.*"}}), "warning", f"{MATCH}.path.regex", "a path starts with `/`"),
    (header(match={"regex": "("}), "error", f"{MATCH}.headers[0].match.regex", "missing ): ("),
    (header(match={"range": {"start": 5, "end": 5}}),
     "error", f"{MATCH}.headers[0].match.range.end", "greater"),
    (http_route({"prefix": "/", "queryParameters": [{"name": "é" * 600}]}),
     "error", f"{MATCH}.queryParameters[0].name", "1024 bytes"),
    (grpc_route({"methodName": "m"}), "error", "$.spec.grpcRoute.match.methodName", "needs a `serviceName`"),
    # --- gateway routes
    (http_gateway_route({"port": 80}), "warning", MATCH, "every path matches"),
    (http_gateway_route({"prefix": "/", "path": {"exact": "/"}}),
     "error", f"{MATCH}.path", "a `prefix` already"),
    (http_gateway_route({"prefix": "x"}), "error", f"{MATCH}.prefix", "must start with `/`"),
    (http_gateway_route({"prefix": "/aws-appmesh/x"}), "error", f"{MATCH}.prefix", "reserved"),
    (http_gateway_route({"path": {"exact": "/aws-app-mesh"}}), "error", f"{MATCH}.path.exact", "reserved"),
    (http_gateway_route({"hostname": {}}), "error", f"{MATCH}.hostname", "needs `exact` or `suffix`"),
    (http_gateway_route({"hostname": {"exact": "a", "suffix": ".a"}}),
     "error", f"{MATCH}.hostname.suffix", "only one"),
    (http_gateway_route({"hostname": {"exact": "*.a"}}), "error", f"{MATCH}.hostname.exact", "wildcards"),
    (http_gateway_route({"hostname": {"suffix": "*.a"}}), "error", f"{MATCH}.hostname.suffix", "wildcards"),
    (http_gateway_route({"hostname": {"suffix": "a.b"}}),
     "warning", f"{MATCH}.hostname.suffix", "say so: `.a.b`"),
    (grpc_gateway_route({"port": 80}), "warning", "$.spec.grpcRoute.match", "every service matches"),
    (http_gateway_route({"path": {"exact": "/a"}}, prefix={"value": "/b/"}),
     "error", f"{REWRITE}.prefix", "use `rewrite.path`"),
    (http_gateway_route({"prefix": "/a"}, path={"exact": "/b"}),
     "error", f"{REWRITE}.path", "use `rewrite.prefix`"),
    (http_gateway_route({"hostname": {"exact": "a"}}, path={"exact": "/b"}),
     "error", f"{REWRITE}.path", "the route matches no `path`"),
    (http_gateway_route({"prefix": "/a"}, prefix={"value": "/b/", "defaultPrefix": "DISABLED"}),
     "error", f"{REWRITE}.prefix.value", "a `defaultPrefix` already"),
    (http_gateway_route({"prefix": "/a"}, prefix={"value": "/b"}),
     "error", f"{REWRITE}.prefix.value", "start and end with `/`"),
    (http_gateway_route({"prefix": "/a"}, prefix={"value": "b/"}),
     "error", f"{REWRITE}.prefix.value", "start and end with `/`"),
    (http_gateway_route({"path": {"exact": "/a"}}, path={}), "error", f"{REWRITE}.path.exact", "missing"),
    (http_gateway_route({"path": {"exact": "/a"}}, path={"exact": "b"}),
     "error", f"{REWRITE}.path.exact", "start with"),
    (http_gateway_route({"path": {"exact": "/a"}}, path={"exact": "/\n"}),
     "error", f"{REWRITE}.path.exact", "U+000A"),
    # --- retries and weights
    (http_route({"prefix": "/"}, retryPolicy=retry()), "error", "$.spec.httpRoute.retryPolicy", "no event"),
    (grpc_route({}, retryPolicy=retry()), "error", "$.spec.grpcRoute.retryPolicy", "no event"),
    (http_route({"prefix": "/"}, retryPolicy=retry(httpRetryEvents=["server-error", "gateway_error"])),
     "error", "$.spec.httpRoute.retryPolicy.httpRetryEvents[1]", "did you mean `gateway-error`?"),
    (http_route({"prefix": "/"}, retryPolicy=retry(httpRetryEvents=["5xx"])),
     "error", "$.spec.httpRoute.retryPolicy.httpRetryEvents[0]", "one of server-error"),
    (http_route({"prefix": "/"}, action={"weightedTargets": [{"virtualNode": "n", "weight": 0}] * 2}),
     "warning", "$.spec.httpRoute.action.weightedTargets", "answered with 503"),
    # --- access logs
    (node(logging=logging(text="%REQ(X)% %FOO%")), "error", f"{FORMAT}.text", "no command operator `%FOO%`"),
    (node(logging=logging(text="%PROTOCL%")), "error", f"{FORMAT}.text", "did you mean `%PROTOCOL%`?"),
    (node(logging=logging(text="100%")), "error", f"{FORMAT}.text", "`%` at character 4"),
    (gateway(listener(), logging=logging(text="%REQ%")),
     "error", f"{FORMAT}.text", "`%REQ%` needs a parameter"),
    (node(logging=logging(json=[{"key": "a", "value": "b"}, {"key": "c", "value": "%PROTOCOL(X)%"}])),
     "error", f"{FORMAT}.json[1].value", "takes no parameter"),
    (node(logging=logging(json=[{"key": "a", "value": "b"}, {"key": "a", "value": "c"}])),
     "warning", f"{FORMAT}.json[1].key", "the same key as json[0]"),
    (node(logging=logging(text="%CEL(request.path)%")), "error", f"{FORMAT}.text", "cannot be checked"),
    (node(logging=logging(text="%SPAN_ID%")), "warning", f"{FORMAT}.text", "1.36 does not know `%SPAN_ID%`"),
    (node(logging=logging(text="%REQUESTED_SERVER_NAME(SNI_ONLY)%")),
     "warning", f"{FORMAT}.text", "does not know `%REQUESTED_SERVER_NAME(…)%`"),
    (node(logging=logging(json=[])), "warning", f"{FORMAT}.json", "empty object"),
]  # fmt: skip


def _row_name(row: object) -> str | None:
    return row if isinstance(row, str) and row.startswith("$") else ""


@pytest.mark.parametrize(("data", "severity", "path", "text"), ROWS, ids=_row_name)
def test_a_rule(data: spec.Data, severity: str, path: str, text: str) -> None:
    problems = found(data)
    matching = [p for p in problems if p[:2] == (severity, path)]
    assert matching, problems
    assert any(text in message for _, _, message in matching), matching
    # What is wrong twice over may be said twice, at one place and nowhere else.
    others = {p for _, p, _ in problems} - {path}
    assert not {p for p in others if not p.startswith(path) and not path.startswith(p)}, problems


#: What real meshes hold, or what looks odd and is right.
FINE: list[spec.Data] = [
    resource("mesh", {"egressFilter": {"type": "ALLOW_ALL"}}),
    resource("virtualNode", {}),
    resource("virtualNode", {"logging": {}, "backends": [], "backendDefaults": {"clientPolicy": {}}}),
    node(listener(healthCheck=health(port=80), timeout={"http": {"perRequest": seconds(0)}})),
    node(listener("grpc", healthCheck=bare_health("grpc"))),
    node(listener("http2", healthCheck=bare_health("grpc"))),
    node(listener("tcp", healthCheck=bare_health("tcp"), timeout={"tcp": {"idle": seconds(9_200_000_000)}})),
    node(listener("http", healthCheck=bare_health("tcp"), outlierDetection=outlier())),
    node(listener(tls=tls("PERMISSIVE", certificate=SDS, validation={"trust": SDS}))),
    node(backendDefaults=policy(ports=[], certificate=SDS, enforce=False)),
    node(serviceDiscovery={"dns": {"hostname": "yelb_db."}}),
    node(serviceDiscovery={"dns": {"hostname": "2001:db8::1"}}),
    node(serviceDiscovery={"dns": {"hostname": "10.0.0.1"}}),
    node(logging=logging(text="[%START_TIME(%Y)%] %REQ(:METHOD?X)% 100%% é\n\x00")),
    node(logging=logging(json=[{"key": "a\n", "value": "%REQ(X-ID):8%-%BYTES_SENT%"}])),
    service("yelb-db"),
    service("s.local", provider={"virtualRouter": {"virtualRouterName": "r"}}),
    resource("virtualRouter", {}),
    http_route({"prefix": "/", "method": "GET", "scheme": "https", "port": 80}),
    http_route({"path": {"regex": "^/a/[0-9]+$"}}),
    http_route({"path": {"regex": "/v[12]/.*"}}),
    http_route({"prefix": "/..a/.b"}),
    http_route({"prefix": "/"}, retryPolicy=retry(tcpRetryEvents=["connection-error"])),
    http_route(
        {"prefix": "/"}, retryPolicy=retry(httpRetryEvents=["client-error"]) | {"perRetryTimeout": seconds(0)}
    ),
    http_route(
        {"prefix": "/"}, action={"weightedTargets": [{"virtualNode": "n", "weight": w} for w in (0, 7)]}
    ),
    header(name="X-Id", invert=True, match={"regex": ".*a$"}),
    header(name=":authority", match={"exact": "a\tb"}),
    header(match={"range": {"start": -5, "end": -4}}),
    grpc_route({}),
    grpc_route({"serviceName": "a.B", "methodName": "C"}, retryPolicy=retry(grpcRetryEvents=["internal"])),
    resource("route", {"tcpRoute": {"action": ACTION}, "priority": 0}),
    http_gateway_route({"hostname": {"suffix": ".a"}}, prefix={"defaultPrefix": "DISABLED"}),
    http_gateway_route(
        {"prefix": "/a"}, prefix={"value": "/"}, hostname={"defaultTargetHostname": "DISABLED"}
    ),
    http_gateway_route({"path": {"regex": "/a.*"}}, path={"exact": "/b"}),
    grpc_gateway_route({"hostname": {"exact": "a"}}),
]  # fmt: skip


@pytest.mark.parametrize("data", FINE, ids=range(len(FINE)))
def test_nothing_to_say(data: spec.Data) -> None:
    assert found(data) == []


def test_every_problem_at_once() -> None:
    data = node(
        listener(healthCheck=health(port=1), timeout={"tcp": {}}),
        listener(tls=tls(certificate={})),
        logging=logging(text="%A% %B%"),
    )
    assert sorted((p.severity, p.path) for p in check(data)) == [
        ("error", "$.spec.listeners[0].healthCheck.port"),
        ("error", "$.spec.listeners[0].timeout.tcp"),
        ("error", "$.spec.listeners[1].portMapping.port"),
        ("error", "$.spec.listeners[1].tls.certificate"),
        ("error", f"{FORMAT}.text"),
        ("error", f"{FORMAT}.text"),
    ]


def test_two_rewrites() -> None:
    """One of them fits the match, which is a second problem about the other."""
    data = http_gateway_route({"path": {"exact": "/a"}}, prefix={"value": "/c/"}, path={"exact": "/b"})
    assert [(p.path, p.message) for p in check(data)] == [
        (f"{REWRITE}.prefix", "the route matches a `path`"),
        (f"{REWRITE}.path", "there is a `prefix` already"),
    ]


def test_a_surrogate_from_python() -> None:
    data = spec.VirtualServiceData(
        mesh_name="m", virtual_service_name="a\ud800", spec=spec.VirtualServiceSpec()
    )
    assert [p.path for p in check(data)] == ["$.virtualServiceName"]
    assert "surrogate" in check(data)[0].message


def test_every_union_and_every_rule_is_of_a_spec_struct() -> None:
    structs = {getattr(spec, name) for name in spec.__all__ if name[0].isupper() and not name.isupper()}
    assert set(checks.ONE_OF) <= structs
    assert set(checks.RULES) <= structs
    for struct, members in checks.ONE_OF.items():
        assert set(members) <= set(struct.__struct_fields__)


def test_importing_the_specs_is_light() -> None:
    heavy = ["re2", "yaml", "ruamel", "google.protobuf", "grpc", "cryptography", "envoy_data_plane"]
    program = f"""
import sys
import appmesh_xds.spec.convert
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Envoy itself ---------------------------------------------------------------------------------

TYPES = "type.googleapis.com/envoy"
ROUTER = {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"}


def bootstrap(
    *, formats: tuple[str, ...] = (), match: Json | None = None, route: Json | None = None, **cluster: Any
) -> Json:
    """One listener, one route, one cluster; what a fact is about put in its place."""
    log_type = f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog"
    logs = [
        {
            "@type": log_type,
            "path": "/dev/null",
            "log_format": {"text_format_source": {"inline_string": text}},
        }
        for text in formats
    ]
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "http_filters": [{"name": "router", "typed_config": ROUTER}],
        "access_log": [{"name": "file", "typed_config": log} for log in logs],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "x",
                    "domains": ["*"],
                    "routes": [
                        {"match": match or {"prefix": "/"}, "route": {"cluster": "c", **(route or {})}}
                    ],
                }
            ]
        },
    }
    filters = [{"name": "h", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "static_resources": {
            "listeners": [{"name": "l", "address": address, "filter_chains": [{"filters": filters}]}],
            "clusters": [{"name": "c", "type": "STATIC", **cluster}],
        },
        "layered_runtime": {
            "layers": [{"name": "s", "static_layer": {"re2.max_program_size.error_level": MAX_PROGRAM_SIZE}}]
        },
    }


def format_problems(text: str) -> set[str]:
    return {finding.severity for finding in access_log.format_findings(text, "")}


def forms(name: str) -> list[str]:
    """An operator in the ways that our table allows."""
    form = access_log._FORMS.get(name, access_log._PLAIN)
    bare = [] if form.required else [f"%{name}%"]
    return bare + ([f"%{name}{form.example}%"] if form.example else [])


#: Formats at the edge of the syntax, all accepted.
ODD_FORMATS = (
    "%%", "%%%REQ(A)%", "%REQ(A)%%%", "%REQ(A%)%", "%REQ(?)%", "%REQ(A?)%", "%REQ(?B):0%",
    "%ENVIRONMENT(A)(B)%",
    "%START_TIME()%", "%START_TIME(%)%", "%PROTOCOL()%", "%FILTER_STATE(a:FIELD:b)%", "%FILTER_STATE(a:)%",
    "%METADATA(ROUTE)%", "%PATH(:PATH)%", "%PATH()%", "%REQ(A):18446744073709551615%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)%", "%RESPONSE_CODE_DETAILS(X)%",
)  # fmt: skip


def test_envoy_takes_the_formats_that_pass() -> None:
    # What stands inside these two only Envoy can judge, so they never pass.
    operators = sorted(access_log.OPERATORS - {"CEL", "COALESCE"})
    formats = [text for name in operators for text in forms(name)] + list(ODD_FORMATS)
    assert [text for text in formats if "error" in format_problems(text)] == []
    # What older Envoys do not know has a warning; all of them must take the rest.
    sure = [text for text in formats if not format_problems(text)]
    assert len(sure) > 130
    accepted, said = envoy_validate(bootstrap(formats=tuple(sure)))
    assert accepted, said


@pytest.mark.parametrize(
    "text",
    ["%", "100%", "%FOO%", "%protocol%", "%PROTOCOL", "%PROTOCOL %", "%PROTOCOL(A)%", "%PROTOCOL:3%", "%REQ%",
     "%REQ()%", "%REQ(A?B?C)%", "%REQ(A):x%", "%REQ(a b)%", "%REQ(:)%", "%REQ(A\n)%", "%%REQ(A)%", "%%%",
     "%REQ(A):18446744073709551616%", "%START_TIME:5%", "%METADATA(X:a)%", "%FILTER_STATE(a:BAD)%",
     "%FILTER_STATE(a:FIELD)%", "%FILTER_STATE(:PLAIN)%", "%PATH(X)%", "%COMMON_DURATION(A:B:s)%"],
)  # fmt: skip
def test_envoy_refuses_the_formats_that_do_not(text: str) -> None:
    assert "error" in format_problems(text)
    accepted, _ = envoy_validate(bootstrap(formats=(text,)))
    assert not accepted


def outlier_detection(**fields: str) -> Json:
    return {"outlier_detection": fields}


def http_check(path: str) -> Json:
    times = {"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1}
    return {"health_checks": [{**times, "http_health_check": {"path": path}}]}


def header_matcher(name: str, **match: Any) -> Json:
    return {"prefix": "/", "headers": [{"name": name, **match}]}


FACTS: list[tuple[Json, bool]] = [
    # What the comments beside the rules claim: Envoy takes it, or does not.
    (bootstrap(outlier_detection={"interval": "0s"}), False),
    (bootstrap(outlier_detection={"base_ejection_time": "0s"}), False),
    (bootstrap(outlier_detection={"base_ejection_time": "0.001s", "max_ejection_percent": 0}), True),
    (bootstrap(route={"timeout": "0s", "idle_timeout": "0s"}), True),
    (bootstrap(route={"retry_policy": {"retry_on": "reset", "per_try_timeout": "0s"}}), True),
    (bootstrap(route={"timeout": "9200000000s"}), True),
    (bootstrap(route={"timeout": "9300000000s"}), False),
    (bootstrap(**http_check("")), False),
    (bootstrap(**http_check("x")), True),
    (bootstrap(**http_check("/\n")), False),
    (bootstrap(match=header_matcher(":path", present_match=True)), True),
    (bootstrap(match=header_matcher("a\n", present_match=True)), False),
    (bootstrap(match=header_matcher("a", range_match={"start": "5", "end": "5"})), True),
    (
        bootstrap(match={"prefix": "/", "query_parameters": [{"name": "x" * 1025, "present_match": True}]}),
        False,
    ),
    (bootstrap(match={"safe_regex": {"regex": "/a{1000}"}}), False),
    (bootstrap(match={"safe_regex": {"regex": "/a{990}"}}), True),
    (bootstrap(match={"safe_regex": {"regex": "/(?=a)"}}), False),
    (bootstrap(match={"safe_regex": {"regex": "/(?<n>a)\\C\\Qb"}}), True),
    (bootstrap(route={"prefix_rewrite": "/\n"}), False),
    (bootstrap(route={"host_rewrite_literal": "a\x00"}), False),
    (bootstrap(route={"host_rewrite_literal": "a b"}), True),
]


@pytest.mark.parametrize(("config", "accepted"), FACTS, ids=range(len(FACTS)))
def test_envoy_does_what_the_rules_say(config: Json, accepted: bool) -> None:
    assert envoy_validate(config)[0] is accepted


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [("/a{990}", True), ("/a{1000}", False), ("/(?<n>a)", True), ("/(?=a)", False), (r"/\d+\pN", True)],
)
def test_our_re2_agrees_with_envoys(pattern: str, accepted: bool) -> None:
    errors = [p for p in check(http_route({"path": {"regex": pattern}})) if p.severity == "error"]
    assert (not errors) is accepted
    assert envoy_validate(bootstrap(match={"safe_regex": {"regex": pattern}}))[0] is accepted


def test_checks_take_whatever_converts() -> None:
    """A struct with every optional member absent, of every type that a rule looks at."""
    for struct, rule in checks.RULES.items():
        needed = [f for f in msgspec.structs.fields(struct) if f.required]
        if not needed:
            assert all(finding.message for finding in rule(struct())), struct
