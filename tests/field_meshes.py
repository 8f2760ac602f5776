"""Meshes in which every field of the API is written somewhere, for `fields.py`."""

from __future__ import annotations

from typing import Any

Request = tuple[str, dict[str, Any]]

SECOND = {"unit": "s", "value": 5}
FILES = {"certificateChain": "/own.crt", "privateKey": "/own.key"}
SAN = {"match": {"exact": ["a.local", "b.local"]}}


def _tls(certificate: dict[str, Any], trust: dict[str, Any] | None = None) -> dict[str, Any]:
    tls: dict[str, Any] = {"mode": "STRICT", "certificate": certificate}
    if trust is not None:
        tls["validation"] = {"trust": trust, "subjectAlternativeNames": SAN}
    return tls


ACM = {"acm": {"certificateArn": "arn:cert"}}
FILE = {"file": FILES}
SDS = {"sds": {"secretName": "own"}}
FILE_TRUST = {"file": {"certificateChain": "/ca.crt"}}
SDS_TRUST = {"sds": {"secretName": "ca"}}
ACM_TRUST = {"acm": {"certificateAuthorityArns": ["arn:ca"]}}


def _policy(trust: dict[str, Any], certificate: dict[str, Any] | None = None) -> dict[str, Any]:
    tls: dict[str, Any] = {
        "enforce": True,
        "ports": [8080],
        "validation": {"trust": trust, "subjectAlternativeNames": SAN},
    }
    if certificate is not None:
        tls["certificate"] = certificate
    return {"tls": tls}


def _log(text: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {"json": [{"key": "a", "value": "%PROTOCOL%"}]}
    if text:
        shape = {"text": "%RESPONSE_CODE%\n"}
    return {"accessLog": {"file": {"path": "/dev/stdout", "format": shape}}}


def _timeout(protocol: str) -> dict[str, Any]:
    times = {"idle": SECOND} if protocol == "tcp" else {"idle": SECOND, "perRequest": SECOND}
    return {protocol: times}


POOLS: dict[str, dict[str, Any]] = {
    "http": {"http": {"maxConnections": 5, "maxPendingRequests": 6}},
    "http2": {"http2": {"maxRequests": 5}},
    "grpc": {"grpc": {"maxRequests": 5}},
    "tcp": {"tcp": {"maxConnections": 5}},
}


def _check(protocol: str, port: int) -> dict[str, Any]:
    check = {
        "protocol": protocol,
        "port": port,
        "healthyThreshold": 2,
        "unhealthyThreshold": 3,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
    }
    return {**check, "path": "/ping"} if protocol in ("http", "http2") else check


OUTLIERS = {
    "baseEjectionDuration": SECOND,
    "interval": SECOND,
    "maxEjectionPercent": 50,
    "maxServerErrors": 5,
}


def _listener(port: int, protocol: str, **more: Any) -> dict[str, Any]:
    return {"portMapping": {"port": port, "protocol": protocol}, **more}


def _full(port: int, protocol: str, **more: Any) -> dict[str, Any]:
    return _listener(
        port,
        protocol,
        connectionPool=POOLS[protocol],
        timeout=_timeout(protocol),
        healthCheck=_check(protocol, port),
        outlierDetection=OUTLIERS,
        **more,
    )


def _node(name: str, **body: Any) -> Request:
    return "virtualNode", {"meshName": "m", "virtualNodeName": name, "spec": body}


def _dns(name: str, **more: Any) -> dict[str, Any]:
    return {"dns": {"hostname": f"{name}.local", **more}}


def _service(name: str, **provider: str) -> Request:
    if "node" in provider:
        made: dict[str, Any] = {"virtualNode": {"virtualNodeName": provider["node"]}}
    else:
        made = {"virtualRouter": {"virtualRouterName": provider["router"]}}
    return "virtualService", {"meshName": "m", "virtualServiceName": name, "spec": {"provider": made}}


def _router(name: str, port: int, protocol: str) -> Request:
    body = {"listeners": [_listener(port, protocol)]}
    return "virtualRouter", {"meshName": "m", "virtualRouterName": name, "spec": body}


def _route(router: str, name: str, **body: Any) -> Request:
    names = {"meshName": "m", "virtualRouterName": router, "routeName": name}
    return "route", {**names, "spec": body}


def _gateway_route(gateway: str, name: str, **body: Any) -> Request:
    names = {"meshName": "m", "virtualGatewayName": gateway, "gatewayRouteName": name}
    return "gatewayRoute", {**names, "spec": body}


def _backend(service: str, policy: dict[str, Any] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"virtualServiceName": service}
    if policy is not None:
        made["clientPolicy"] = policy
    return {"virtualService": made}


# --- matches --------------------------------------------------------------------------------------------

METHODS: tuple[dict[str, Any], ...] = (
    {"exact": "a"},
    {"prefix": "a"},
    {"suffix": "a"},
    {"regex": "a+"},
    {"range": {"start": 1, "end": 9}},
)
HEADERS = [{"name": f"x-{index}", "invert": False, "match": method} for index, method in enumerate(METHODS)]
QUERY = [{"name": "q", "match": {"exact": "1"}}]
TARGETS = {
    "weightedTargets": [
        {"virtualNode": "plain", "weight": 3, "port": 8080},
        {"virtualNode": "tls", "weight": 1},
    ]
}
RETRY: dict[str, Any] = {
    "maxRetries": 2,
    "perRetryTimeout": SECOND,
    "httpRetryEvents": ["gateway-error"],
    "tcpRetryEvents": ["connection-error"],
}
TIMES = {"idle": SECOND, "perRequest": SECOND}


def _http(**match: Any) -> dict[str, Any]:
    return {"match": {**match, "port": 80}, "action": TARGETS, "retryPolicy": RETRY, "timeout": TIMES}


def _routes() -> list[Request]:
    made: list[Request] = []
    for kind, router in (("httpRoute", "http"), ("http2Route", "http2")):
        full = {"headers": HEADERS, "queryParameters": QUERY, "method": "GET", "scheme": "http"}
        one_of = {"httpRetryEvents": ["server-error"]}
        made += [
            _route(router, "prefix", priority=1, **{kind: _http(prefix="/a", **full)}),
            _route(router, "exact", **{kind: _http(path={"exact": "/b"})}),
            _route(router, "regex", **{kind: _http(path={"regex": "/c.*"})}),
            _route(router, "retry", **{kind: {**_http(prefix="/r"), "retryPolicy": {**RETRY, **one_of}}}),
        ]
    metadata = {"metadata": HEADERS, "serviceName": "shop.Cart", "methodName": "Add", "port": 80}
    grpc_retry = {**RETRY, "grpcRetryEvents": ["unavailable"]}
    grpc = {"action": TARGETS, "retryPolicy": grpc_retry, "timeout": TIMES}
    made += [
        _route("grpc", "method", grpcRoute={"match": metadata, **grpc}),
        _route("grpc", "service", grpcRoute={"match": {"serviceName": "shop.Other"}, **grpc}),
    ]
    tcp_targets = {
        "weightedTargets": [
            {"virtualNode": "tcp", "weight": 3, "port": 6379},
            {"virtualNode": "tcp2", "weight": 1},
        ]
    }
    tcp = {"action": tcp_targets, "match": {"port": 6379}, "timeout": {"idle": SECOND}}
    made.append(_route("tcp", "all", tcpRoute=tcp))
    return made


# --- gateways -------------------------------------------------------------------------------------------


def _target(service: str, **more: Any) -> dict[str, Any]:
    return {"target": {"virtualService": {"virtualServiceName": service}, **more}}


def _gateway(name: str, listeners: list[dict[str, Any]], text: bool, policy: dict[str, Any]) -> Request:
    body = {"listeners": listeners, "logging": _log(text), "backendDefaults": {"clientPolicy": policy}}
    return "virtualGateway", {"meshName": "m", "virtualGatewayName": name, "spec": body}


def _gateways() -> list[Request]:
    entries = [
        _listener(
            port,
            protocol,
            connectionPool=POOLS[protocol],
            healthCheck=_check(protocol, port),
            tls=_tls(certificate, trust),
        )
        for port, protocol, certificate, trust in (
            (9080, "http", FILE, FILE_TRUST),
            (9081, "http2", SDS, SDS_TRUST),
            (9082, "grpc", ACM, None),
        )
    ]
    made = [
        _gateway("edge", entries, True, _policy(FILE_TRUST, FILE)),
        _gateway("edge2", [_listener(9080, "http", tls=_tls(FILE))], False, _policy(SDS_TRUST, SDS)),
        _gateway("edge3", [_listener(9080, "http")], False, _policy(ACM_TRUST)),
    ]
    for kind in ("httpRoute", "http2Route"):
        full = {"headers": HEADERS, "queryParameters": QUERY, "method": "GET"}
        host = {"hostname": {"defaultTargetHostname": "ENABLED"}}
        cases: tuple[tuple[str, dict[str, Any], dict[str, Any], str], ...] = (
            ("prefix", {"prefix": "/a/", **full}, {"prefix": {"defaultPrefix": "ENABLED"}, **host}, "a"),
            ("value", {"prefix": "/v/"}, {"prefix": {"value": "/w/"}}, "b"),
            ("exact", {"path": {"exact": "/e"}}, {"path": {"exact": "/f"}}, "c"),
            ("regex", {"path": {"regex": "/r.*"}}, {"path": {"exact": "/s"}}, "d"),
            ("host", {"prefix": "/h/", "hostname": {"exact": "h.local"}}, host, "e"),
            ("suffix", {"prefix": "/i/", "hostname": {"suffix": ".i.local"}}, host, "f"),
        )
        for name, match, rewrite, _ in cases:
            action = {**_target("two.local", port=8080), "rewrite": rewrite}
            route = {"match": {**match, "port": 9080}, "action": action}
            made.append(_gateway_route("edge", f"{kind}-{name}", priority=5, **{kind: route}))
    host = {"hostname": {"defaultTargetHostname": "ENABLED"}}
    matches: tuple[dict[str, Any], ...] = (
        {"serviceName": "shop.Cart", "metadata": HEADERS},
        {"serviceName": "shop.Two", "hostname": {"exact": "g.local"}},
        {"serviceName": "shop.Three", "hostname": {"suffix": ".g.local"}},
    )
    for index, match in enumerate(matches):
        action = {**_target("two.local", port=8081), "rewrite": host}
        route = {"match": {**match, "port": 9080}, "action": action}
        made.append(_gateway_route("edge", f"grpc-{index}", grpcRoute=route))
    everything = {"match": {"prefix": "/"}, "action": _target("http.local")}
    return [*made, *(_gateway_route(name, "all", httpRoute=everything) for name in ("edge2", "edge3"))]


# --- the mesh -------------------------------------------------------------------------------------------


def meshes() -> list[list[Request]]:
    """One mesh with everything."""
    services = ("http", "http2", "grpc", "tcp")
    clients = [
        _node(
            "client-file",
            backendDefaults={"clientPolicy": _policy(FILE_TRUST, FILE)},
            backends=[_backend(f"{one}.local") for one in services],
            logging=_log(True),
        ),
        _node(
            "client-sds",
            backendDefaults={"clientPolicy": _policy(SDS_TRUST, SDS)},
            backends=[_backend("http.local"), _backend("two.local")],
            logging=_log(False),
        ),
        _node(
            "client-acm",
            backendDefaults={"clientPolicy": _policy(ACM_TRUST)},
            backends=[_backend("http.local"), _backend("cloud.local")],
        ),
        *(
            _node(f"client-own-{name}", backends=[_backend("http.local", _policy(trust, certificate))])
            for name, trust, certificate in (
                ("file", FILE_TRUST, FILE),
                ("sds", SDS_TRUST, SDS),
                ("acm", ACM_TRUST, None),
            )
        ),
    ]
    targets = [
        _node(
            "plain",
            listeners=[_full(8080, "http")],
            serviceDiscovery=_dns("plain", responseType="LOADBALANCER", ipPreference="IPv4_ONLY"),
        ),
        _node(
            "tls", listeners=[_full(8080, "http", tls=_tls(FILE, FILE_TRUST))], serviceDiscovery=_dns("tls")
        ),
        _node(
            "sds", listeners=[_full(8080, "http2", tls=_tls(SDS, SDS_TRUST))], serviceDiscovery=_dns("sds")
        ),
        _node("acm", listeners=[_full(8080, "grpc", tls=_tls(ACM))], serviceDiscovery=_dns("acm")),
        _node("tcp", listeners=[_full(6379, "tcp")], serviceDiscovery=_dns("tcp")),
        _node("tcp2", listeners=[_listener(6379, "tcp")], serviceDiscovery=_dns("tcp2")),
        _node("bare", listeners=[_listener(8080, "http")], serviceDiscovery=_dns("bare")),
        _node("other-node", listeners=[_listener(8080, "http")], serviceDiscovery=_dns("other")),
        _node(
            "two",
            listeners=[_listener(8080, "http"), _listener(8081, "grpc")],
            serviceDiscovery=_dns("two"),
        ),
        _node(
            "cloud",
            listeners=[_listener(8080, "http", healthCheck=_check("http", 8080))],
            serviceDiscovery={
                "awsCloudMap": {
                    "namespaceName": "local",
                    "serviceName": "cloud",
                    "attributes": [{"key": "k", "value": "v"}],
                    "ipPreference": "IPv4_ONLY",
                }
            },
        ),
    ]
    mesh: Request = (
        "mesh",
        {
            "meshName": "m",
            "spec": {"egressFilter": {"type": "DROP_ALL"}, "serviceDiscovery": {"ipPreference": "IPv4_ONLY"}},
        },
    )
    return [
        [
            mesh,
            *clients,
            *targets,
            *(_service(f"{one}.local", router=one) for one in services),
            _service("other.local", node="plain"),
            _service("two.local", node="two"),
            _service("cloud.local", node="cloud"),
            _router("http", 80, "http"),
            _router("http2", 80, "http2"),
            _router("grpc", 80, "grpc"),
            _router("tcp", 6379, "tcp"),
            _router("other-router", 80, "http"),
            *_routes(),
            *_gateways(),
        ]
    ]
