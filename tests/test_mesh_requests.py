"""What an application sees and a client gets: routes, weights, retries, timeouts, limits, gateways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from apps import HttpApp, TcpApp
from clients import get, tcp_echo
from conftest import RunEnvoy
from pairs import backend, data, listener, mesh, node, route, router, service, targets
from proxies import static_proxy
from real_envoy import Envoy, free_port

Json = dict[str, Any]


# --- a client with routers ------------------------------------------------------------------------------


def _http(match: Json, *, retry: Json | None = None, timeout: int | None = None, **weights: int) -> Json:
    body: Json = {"match": match, "action": targets(**(weights or {"b": 1}))}
    if retry is not None:
        body["retryPolicy"] = {"perRetryTimeout": {"unit": "s", "value": 5}, **retry}
    if timeout is not None:
        body["timeout"] = {"perRequest": {"unit": "ms", "value": timeout}}
    return body


def _header(method: Json, *, invert: bool = False) -> Json:
    return {"prefix": "/", "headers": [{"name": "x", "match": method, "invert": invert}]}


#: Router -> (match of its route to b, requests that it takes, requests that it leaves to a).
#: A request is (path, method, headers).
Request = tuple[str, str, dict[str, str]]
MATCHES: Final[dict[str, tuple[Json, list[Request], list[Request]]]] = {
    "prefix": ({"prefix": "/b"}, [("/b", "GET", {}), ("/bar/x", "GET", {})], [("/a", "GET", {})]),
    "exact": ({"path": {"exact": "/b"}}, [("/b", "GET", {}), ("/b?q=1", "GET", {})], [("/b/", "GET", {})]),
    "regex": (
        {"path": {"regex": "/v[0-9]+/.*"}},
        [("/v12/x?q", "GET", {})],
        [("/v/x", "GET", {}), ("/x/v1/x", "GET", {})],
    ),
    "method": ({"prefix": "/", "method": "POST"}, [("/", "POST", {})], [("/", "GET", {})]),
    "query": (
        {"prefix": "/", "queryParameters": [{"name": "q", "match": {"exact": "1"}}, {"name": "there"}]},
        [("/?q=1&there=", "GET", {})],
        [("/?q=2&there=", "GET", {}), ("/?q=1", "GET", {})],
    ),
    "header-exact": (_header({"exact": "v"}), [("/", "GET", {"x": "v"})], [("/", "GET", {"x": "vv"})]),
    "header-prefix": (_header({"prefix": "v"}), [("/", "GET", {"x": "vv"})], [("/", "GET", {"x": "w"})]),
    "header-suffix": (_header({"suffix": "v"}), [("/", "GET", {"x": "wv"})], [("/", "GET", {"x": "vw"})]),
    "header-regex": (_header({"regex": "v+"}), [("/", "GET", {"x": "vv"})], [("/", "GET", {"x": "vvw"})]),
    "header-range": (
        _header({"range": {"start": 100, "end": 150}}),
        [("/", "GET", {"x": "100"}), ("/", "GET", {"x": "149"})],
        [("/", "GET", {"x": "150"}), ("/", "GET", {"x": "a"})],
    ),
    "header-present": (
        {"prefix": "/", "headers": [{"name": "x"}]},
        [("/", "GET", {"x": ""})],
        [("/", "GET", {})],
    ),
    "header-invert": (
        _header({"exact": "v"}, invert=True),
        [("/", "GET", {"x": "w"})],
        # A header that is not there has no value to differ.
        [("/", "GET", {"x": "v"}), ("/", "GET", {})],
    ),
}


@dataclass(frozen=True)
class Client:
    envoy: Envoy
    port: int
    tcp: int
    a: HttpApp
    b: HttpApp


@pytest.fixture(scope="module")
def apps() -> Iterator[tuple[HttpApp, HttpApp]]:
    with HttpApp("a") as a, HttpApp("b") as b:
        yield a, b


@pytest.fixture(scope="module")
def client(run_envoy: RunEnvoy, apps: tuple[HttpApp, HttpApp], tcp_app: TcpApp) -> Client:
    a, b = apps
    outliers = {
        "maxServerErrors": 2,
        "interval": {"unit": "ms", "value": 100},
        "baseEjectionDuration": {"unit": "s", "value": 60},
        "maxEjectionPercent": 100,
    }
    resources = [
        node("a", [listener(80)]),
        node("b", [listener(80)]),
        node("picky", [listener(80, outlierDetection=outliers)]),
        node("tcp", [listener(6379, "tcp")]),
        service("tcp.local", to_node="tcp"),
    ]
    routes: dict[str, list[tuple[str, Json, int | None]]] = {
        name: [("some", _http(match), 1), ("rest", _http({"prefix": "/"}, a=1), None)]
        for name, (match, _, _) in MATCHES.items()
    }
    never = {"maxRetries": 0, "httpRetryEvents": ["stream-error"]}
    routes |= {
        "weights": [("all", _http({"prefix": "/"}, a=3, b=1), None)],
        "zero": [("all", _http({"prefix": "/"}, a=0, b=0), None)],
        "one-zero": [("all", _http({"prefix": "/"}, a=0, b=1), None)],
        "longest": [
            ("short", _http({"prefix": "/"}, a=1), None),
            ("long", _http({"prefix": "/longer"}, b=1), None),
        ],
        "default-retry": [("all", _http({"prefix": "/"}, b=1), None)],
        "own-retry": [
            (
                "all",
                _http({"prefix": "/"}, b=1, retry={"maxRetries": 1, "httpRetryEvents": ["gateway-error"]}),
                None,
            )
        ],
        "no-retry": [
            (
                "all",
                _http({"prefix": "/"}, b=1, retry={"maxRetries": 3, "httpRetryEvents": ["client-error"]}),
                None,
            )
        ],
        "timeout": [("all", _http({"prefix": "/"}, b=1, timeout=100), None)],
        "picky": [
            (
                "all",
                _http({"prefix": "/"}, picky=1, retry=never),
                None,
            )
        ],
    }
    for name, entries in routes.items():
        resources += [router(name), service(f"{name}.local", to_router=name)]
        for route_name, body, priority in entries:
            more = {} if priority is None else {"priority": priority}
            resources.append(route(name, route_name, httpRoute=body, **more))
    names = [*(f"{name}.local" for name in routes), "tcp.local"]
    resources.append(node("client", [listener(1)], backends=[backend(name) for name in names]))
    port, tcp = free_port(), free_port()
    bootstrap = static_proxy(
        mesh(resources, {"a": a.port, "b": b.port, "picky": b.port, "tcp": tcp_app.port}),
        "virtualNode/client",
        interception="none",
        ingress_port=free_port(),
        egress_port=port,
        tcp_egress=((6379, tcp),),
        app_port=a.port,
        admin_port=free_port(),
    )
    return Client(run_envoy(bootstrap), port, tcp, a, b)


@pytest.mark.parametrize("name", MATCHES)
def test_matches(name: str, client: Client) -> None:
    _, taken, left = MATCHES[name]
    for app, requests in (("b", taken), ("a", left)):
        for path, method, headers in requests:
            reply = get(client.port, path, method=method, host=f"{name}.local", headers=headers)
            assert (reply.status, reply.text) == (200, app), (path, method, headers)


def test_the_longest_prefix_is_tried_first(client: Client) -> None:
    assert get(client.port, "/longer", host="longest.local").text == "b"
    assert get(client.port, "/short", host="longest.local").text == "a"


def test_hosts_with_either_port(client: Client) -> None:
    for host in ("longest.local", "longest.local:80", f"longest.local:{client.port}"):
        assert get(client.port, host=host).status == 200
    assert get(client.port, host="longest.local:81").status == 404


def test_weights(client: Client) -> None:
    total = 400
    to_a = sum(get(client.port, host="weights.local").text == "a" for _ in range(total))
    # Three to one: 300, give or take more than five standard deviations (8.7).
    assert abs(to_a - total * 3 / 4) < 50


def test_zero_weights(client: Client) -> None:
    assert {get(client.port, host="one-zero.local").text for _ in range(20)} == {"b"}
    assert get(client.port, host="zero.local").status == 503


@pytest.mark.parametrize(
    ("host", "status", "attempts"),
    [
        ("default-retry.local", 503, 3),
        ("default-retry.local", 500, 1),
        ("own-retry.local", 502, 2),
        ("own-retry.local", 500, 1),
        ("no-retry.local", 503, 1),
        ("no-retry.local", 409, 4),
    ],
)
def test_retries(client: Client, host: str, status: int, attempts: int) -> None:
    before = client.b.count
    assert get(client.port, host=host, headers={"app-status": str(status)}).status == status
    assert client.b.count - before == attempts


def test_timeouts(client: Client) -> None:
    assert get(client.port, host="timeout.local").status == 200
    reply = get(client.port, host="timeout.local", headers={"app-delay-ms": "600"})
    assert (reply.status, reply.text) == (504, "upstream request timeout")


def test_a_host_that_fails_is_ejected(client: Client) -> None:
    for _ in range(2):
        assert get(client.port, host="picky.local", headers={"app-status": "500"}).status == 500
    client.envoy.wait_stat("cluster.cds_egress_pair_picky_http_80.outlier_detection.ejections_active", 1)


def test_tcp(client: Client) -> None:
    assert tcp_echo(client.tcp, b"hello, bytes") == b"hello, bytes"


# --- limits of a server ---------------------------------------------------------------------------------


def test_a_connection_pool_overflows(run_envoy: RunEnvoy, http_app: HttpApp) -> None:
    pool = {"http": {"maxConnections": 1, "maxPendingRequests": 1}}
    port = free_port()
    envoy = run_envoy(
        static_proxy(
            mesh([node("server", [listener(80, connectionPool=pool)])], {}),
            "virtualNode/server",
            interception="none",
            ingress_port=port,
            app_port=http_app.port,
            admin_port=free_port(),
            egress_port=free_port(),
        )
    )
    # The connection is there before the crowd: a request that waits for one to be made is pending too.
    assert get(port).status == 200
    statuses: list[int] = []

    def slow() -> None:
        statuses.append(get(port, headers={"app-delay-ms": "400"}).status)

    threads = [threading.Thread(target=slow) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    overflowed = statuses.count(503)
    assert overflowed >= 1 and statuses.count(200) >= 2
    envoy.wait_stat("cluster.cds_ingress_pair_server_http_80.upstream_rq_pending_overflow", overflowed)


# --- a gateway ------------------------------------------------------------------------------------------

#: Gateway route -> its match and rewrite.
GATEWAY: Final[dict[str, tuple[Json, Json]]] = {
    "cars": ({"prefix": "/cars"}, {}),
    "value": ({"prefix": "/old/"}, {"prefix": {"value": "/new/"}}),
    "same": ({"prefix": "/same/"}, {"prefix": {"defaultPrefix": "DISABLED"}}),
    "path": ({"path": {"exact": "/about"}}, {"path": {"exact": "/about.html"}}),
    "expression": ({"path": {"regex": "/img/.*"}}, {"path": {"exact": "/one.png"}}),
    "untouched": ({"path": {"exact": "/as/it/is"}}, {}),
    "kept": ({"prefix": "/kept/"}, {"hostname": {"defaultTargetHostname": "DISABLED"}}),
    "host": ({"hostname": {"exact": "www.example.com"}}, {}),
    "suffix": ({"hostname": {"suffix": ".example.org"}}, {}),
    "query": ({"prefix": "/q/", "queryParameters": [{"name": "x", "match": {"exact": "1"}}]}, {}),
}
#: (host, path) a client asks -> (host, path) the application sees; None is 404.
SEEN: Final[dict[tuple[str, str], tuple[str, str] | None]] = {
    ("any", "/cars"): ("service.local", "/"),
    ("any", "/cars/1?a=b"): ("service.local", "/1?a=b"),
    ("any", "/cars//1"): ("service.local", "/1"),
    ("any", "/old/1"): ("service.local", "/new/1"),
    ("any", "/same/1"): ("service.local", "/same/1"),
    ("any", "/about?x=1"): ("service.local", "/about.html?x=1"),
    ("any", "/img/a/b.png?x=1"): ("service.local", "/one.png?x=1"),
    ("any", "/as/it/is"): ("service.local", "/as/it/is"),
    ("any.host", "/kept/1"): ("any.host", "/1"),
    ("www.example.com", "/x/y"): ("service.local", "/x/y"),
    ("WWW.example.com", "/x"): ("service.local", "/x"),
    ("a.example.org", "/z"): ("service.local", "/z"),
    ("any", "/q/1?x=1"): ("service.local", "/1?x=1"),
    ("any", "/q/1?x=2"): None,
    ("any", "/nothing"): None,
    # A host with routes of its own has no others.
    ("www.example.com", "/cars"): ("service.local", "/cars"),
}


@pytest.fixture(scope="module", params=[False, True], ids=["two hops", "single hop"])
def gateway(request: pytest.FixtureRequest, run_envoy: RunEnvoy, http_app: HttpApp) -> int:
    body = {"listeners": [listener(9080)]}
    resources = [
        data("virtualGateway", "edge", body),
        service("service.local", to_node="server"),
        node("server", [listener(80)]),
    ]
    for name, (match, rewrite) in GATEWAY.items():
        action: Json = {"target": {"virtualService": {"virtualServiceName": "service.local"}}}
        if rewrite:
            action["rewrite"] = rewrite
        route_body = {"httpRoute": {"match": match, "action": action}}
        resources.append(data("gatewayRoute", name, route_body, virtualGatewayName="edge"))
    port = free_port()
    bootstrap = static_proxy(
        mesh(resources, {"server": http_app.port}),
        "virtualGateway/edge",
        interception="none",
        ingress_ports=((9080, port),),
        egress_port=free_port(),
        admin_port=free_port(),
        single_hop=request.param,
    )
    run_envoy(bootstrap)
    return port


@pytest.mark.parametrize(
    ("asked", "seen"), SEEN.items(), ids=lambda value: "".join(value) if value else "404"
)
def test_gateway(
    asked: tuple[str, str], seen: tuple[str, str] | None, gateway: int, http_app: HttpApp
) -> None:
    before = http_app.count
    reply = get(gateway, asked[1], host=asked[0])
    if seen is None:
        assert (reply.status, http_app.count) == (404, before)
        return
    assert reply.status == 200
    last = http_app.last
    assert (last.headers[":authority"], last.path) == seen
    assert not [name for name in last.headers if name.startswith("x-app-mesh-")]


def test_a_client_cannot_choose_the_service_by_header(gateway: int, http_app: HttpApp) -> None:
    headers = {"x-app-mesh-virtual-service": "other.local"}
    assert get(gateway, "/kept/1", host="any.host", headers=headers).status == 200
    assert http_app.last.headers[":authority"] == "any.host"


def test_what_a_client_says_does_not_join_what_the_gateway_says(
    http_app: HttpApp, run_envoy: RunEnvoy
) -> None:
    """Of two services that keep the client's host the first hop alone chooses."""
    with HttpApp("other") as other:
        resources = [
            data("virtualGateway", "edge", {"listeners": [listener(9080)]}),
            *(service(f"{name}.local", to_node=name) for name in ("first", "second")),
            *(node(name, [listener(80)]) for name in ("first", "second")),
        ]
        keep = {"hostname": {"defaultTargetHostname": "DISABLED"}}
        for name in ("first", "second"):
            action = {"target": {"virtualService": {"virtualServiceName": f"{name}.local"}}, "rewrite": keep}
            body = {"httpRoute": {"match": {"prefix": f"/{name}/"}, "action": action}}
            resources.append(data("gatewayRoute", name, body, virtualGatewayName="edge"))
        port = free_port()
        bootstrap = static_proxy(
            mesh(resources, {"first": http_app.port, "second": other.port}),
            "virtualGateway/edge",
            interception="none",
            ingress_ports=((9080, port),),
            egress_port=free_port(),
            admin_port=free_port(),
        )
        run_envoy(bootstrap)
        for asked, wanted in (("first", "http-app"), ("second", "other")):
            for said in ("first.local", "second.local"):
                headers = {"x-app-mesh-virtual-service": said}
                assert get(port, f"/{asked}/", host="any.host", headers=headers).text == wanted
