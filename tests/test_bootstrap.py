"""Bootstraps: Envoy runs on them without a warning, and no private key stands in one."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from apps import HttpApp
from clients import get, tls_client
from pki import SERVER_NAME, Certificates
from real_envoy import Envoy, envoy_version, free_port, validate

import appmesh_xds as am
from appmesh_xds import names, proto, render
from appmesh_xds.bootstrap import StaticBootstrap, XdsServer, ads_bootstrap, static_bootstrap
from appmesh_xds.facts import Pem, PemTrust
from appmesh_xds.resource import CLUSTER, LISTENER

ARN = "arn:aws:acm:us-west-2:123456789012:certificate/1"
CA_ARN = "arn:aws:acm-pca:us-west-2:123456789012:certificate-authority/"


def _node(name: str = "front", **spec: Any) -> dict[str, Any]:
    return {
        "meshName": "shop",
        "virtualNodeName": name,
        "spec": {
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"dns": {"hostname": f"{name}.shop.local"}},
            **spec,
        },
    }


def _tls_listener(arn: str = ARN) -> dict[str, Any]:
    tls = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": arn}}}
    return {"portMapping": {"port": 8080, "protocol": "http"}, "tls": tls}


def _local(**options: Any) -> am.Options:
    return am.Options(interception="none", ingress_port=free_port(), egress_port=free_port(), **options)


def _data(made: StaticBootstrap | proto.Bootstrap) -> dict[str, Any]:
    return render.to_dict(made.bootstrap if isinstance(made, StaticBootstrap) else made)


def _pem(files: Any) -> Pem:
    return Pem(certificate_chain=files.certificate.read_bytes(), private_key=files.private_key.read_bytes())


# --- static -----------------------------------------------------------------------------------------------


def test_envoy_serves_on_a_static_bootstrap_without_a_warning(tmp_path: Path, http_app: HttpApp) -> None:
    mesh = am.loads([_node()])
    options = _local(app_port=http_app.port, sds_socket=str(tmp_path / "sds.sock"))
    made = static_bootstrap(mesh, "virtualNode/front", options)
    assert made.snapshot.problems == ()
    (sds,) = (c for c in _data(made)["static_resources"]["clusters"] if c["name"] == names.SDS_CLUSTER)
    assert "http2_protocol_options" in str(sds["typed_extension_protocol_options"])
    with Envoy(render.to_yaml(_data(made)), tmp_path) as envoy:
        assert options.ingress_port is not None
        reply = get(options.ingress_port, "/", host="front.shop.local")
        assert (reply.status, reply.text) == (200, "http-app")
        assert '"id": "mesh/shop/virtualNode/front"' in envoy.get("/server_info")
        assert envoy.log_text() == ""


def test_stats_of_a_node_with_several_listeners_carry_its_protocol_and_port(
    tmp_path: Path, http_app: HttpApp
) -> None:
    listeners = [{"portMapping": {"port": port, "protocol": "http"}} for port in (8080, 8081)]
    mesh = am.loads([_node(listeners=listeners)])
    one, two = free_port(), free_port()
    options = am.Options(
        interception="none",
        ingress_ports=((8080, one), (8081, two)),
        egress_port=free_port(),
        app_port=http_app.port,
    )
    with Envoy(_data(static_bootstrap(mesh, "virtualNode/front", options)), tmp_path) as envoy:
        get(two, "/")
        lines = envoy.get("/stats/prometheus?filter=ingress.*downstream_rq_completed").splitlines()
    counted = [line for line in lines if 'appmesh_listener_port="8081"' in line and line.endswith(" 1")]
    assert counted and 'appmesh_listener_protocol="http"' in counted[0]


def test_long_regular_expressions_are_accepted() -> None:
    """Envoy's own limit is a program of 100; that of the bootstrap is 1000."""
    gateway_route = {
        "meshName": "shop",
        "virtualGatewayName": "edge",
        "gatewayRouteName": "r",
        "spec": {
            "httpRoute": {
                "match": {"path": {"regex": "/[a-z]{300}"}},
                "action": {"target": {"virtualService": {"virtualServiceName": "front.shop.local"}}},
            }
        },
    }
    edge = {
        "meshName": "shop",
        "virtualGatewayName": "edge",
        "spec": {"listeners": [{"portMapping": {"port": 9080, "protocol": "http"}}]},
    }
    service = {
        "meshName": "shop",
        "virtualServiceName": "front.shop.local",
        "spec": {"provider": {"virtualNode": {"virtualNodeName": "front"}}},
    }
    made = static_bootstrap(am.loads([edge, gateway_route, service, _node()]), "virtualGateway/edge")
    assert made.snapshot.problems == ()
    data = _data(made)
    accepted, said = validate(data)
    assert accepted, said
    del data["layered_runtime"]
    accepted, said = validate(data)
    assert not accepted and "max program size" in said


def test_the_node_of_a_shared_mesh_names_its_owner() -> None:
    mesh = am.loads(
        [
            {**_node(), "meshOwner": "111122223333"},
            {"meshName": "shop", "meshOwner": "111122223333", "spec": {}},
        ]
    )
    node = _data(static_bootstrap(mesh, "virtualNode/front"))["node"]
    assert node["id"] == node["cluster"] == "mesh/shop@111122223333/virtualNode/front"


def test_the_admin_endpoint_is_where_the_options_say() -> None:
    options = am.Options(admin_address="::1", admin_port=9902)
    admin = _data(static_bootstrap(am.loads([_node()]), "virtualNode/front", options))["admin"]
    assert admin["address"]["socket_address"] == {"address": "::1", "port_value": 9902}
    with pytest.raises(am.UsageError, match="not an IP address"):
        static_bootstrap(am.loads([_node()]), "virtualNode/front", am.Options(admin_address="localhost"))


def test_a_proxy_that_is_not_there() -> None:
    with pytest.raises(am.UsageError, match="virtualNode/nobody is not in mesh shop"):
        static_bootstrap(am.loads([_node()]), "virtualNode/nobody")


# --- keys -------------------------------------------------------------------------------------------------


def test_pem_without_a_folder_is_refused(certificates: Certificates) -> None:
    pem = _pem(certificates.server)
    mesh = am.loads([_node(listeners=[_tls_listener()])]).replace(certificates={ARN: pem})
    with pytest.raises(am.UsageError, match="--out DIR") as refused:
        static_bootstrap(mesh, "virtualNode/front")
    assert pem.private_key.decode() not in str(refused.value)


def test_envoy_serves_with_key_files(tmp_path: Path, http_app: HttpApp, certificates: Certificates) -> None:
    pem, other = _pem(certificates.server), _pem(certificates.client)
    mesh = am.loads([_node(listeners=[_tls_listener()]), _node("back", listeners=[_tls_listener(f"{ARN}1")])])
    mesh = mesh.replace(certificates={ARN: pem, f"{ARN}1": other})
    options = _local(app_port=http_app.port)
    made = static_bootstrap(mesh, "virtualNode/front", options, key_folder=str(tmp_path))
    # Its own key, and nobody else's.
    assert {file.content: file.private for file in made.files} == {
        pem.certificate_chain: False,
        pem.private_key: True,
    }
    secret = pem.private_key.decode().splitlines()[1]
    for shown in (repr(made.files), str(made.files[1]), render.to_yaml(_data(made))):
        assert secret not in shown
    for file in made.files:
        (tmp_path / file.name).write_bytes(file.content)
    with Envoy(_data(made), tmp_path / "envoy") as envoy:
        assert options.ingress_port is not None
        client = tls_client(certificates.authority)
        assert get(options.ingress_port, "/", host=SERVER_NAME, tls=client).status == 200
        assert envoy.log_text() == ""


def test_authorities_in_memory_stay_in_the_bootstrap(certificates: Certificates) -> None:
    """They are public; and several of them are one bundle, which files could not be."""
    arns = [f"{CA_ARN}1", f"{CA_ARN}2"]
    tls = {"validation": {"trust": {"acm": {"certificateAuthorityArns": arns}}}}
    backend = {"virtualService": {"virtualServiceName": "back.shop.local"}}
    front = _node(backends=[backend], backendDefaults={"clientPolicy": {"tls": tls}})
    service = {
        "meshName": "shop",
        "virtualServiceName": "back.shop.local",
        "spec": {"provider": {"virtualNode": {"virtualNodeName": "back"}}},
    }
    ours, theirs = certificates.authority.read_bytes(), certificates.other_authority.read_bytes()
    mesh = am.loads([front, service, _node("back")]).replace(
        authorities={
            arns[0]: PemTrust(certificate_chain=ours),
            arns[1]: PemTrust(certificate_chain=theirs),
        }
    )
    made = static_bootstrap(mesh, "virtualNode/front")
    assert made.snapshot.problems == () and made.files == ()
    (secret,) = made.bootstrap.static_resources.secrets
    bundle = secret.validation_context.trusted_ca.inline_bytes
    assert ours in bundle and theirs in bundle
    accepted, said = validate(_data(made))
    assert accepted, said


# --- ADS --------------------------------------------------------------------------------------------------


class _Ads(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every subscription with nothing, and notes the requests."""

    def __init__(self) -> None:
        self.requests: queue.Queue[tuple[str, Any]] = queue.Queue()

    def service(self, call: Any) -> Any:
        delta = call.method.endswith("DeltaAggregatedResources")

        def stream(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
            kind = proto.DeltaDiscoveryRequest if delta else proto.DiscoveryRequest
            for raw in requests:
                request = kind.FromString(raw)
                self.requests.put((call.method.rpartition("/")[2], request))
                if request.response_nonce:
                    continue
                if delta:
                    answer: Any = proto.DeltaDiscoveryResponse(type_url=request.type_url, nonce="1")
                else:
                    answer = proto.DiscoveryResponse(type_url=request.type_url, version_info="1", nonce="1")
                yield answer.SerializeToString()

        return grpc.stream_stream_rpc_method_handler(stream)


@contextmanager
def _ads(address: str, credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[_Ads, int]]:
    handler = _Ads()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield handler, port
    finally:
        server.stop(0).wait()


def _asked(handler: _Ads, count: int) -> list[tuple[str, Any]]:
    return [handler.requests.get(timeout=10) for _ in range(count)]


@pytest.mark.parametrize(
    ("delta", "method"), [(False, "StreamAggregatedResources"), (True, "DeltaAggregatedResources")]
)
def test_envoy_asks_a_control_plane(tmp_path: Path, delta: bool, method: str) -> None:
    with _ads("127.0.0.1:0") as (handler, port):
        made = ads_bootstrap("shop", "virtualNode/front", XdsServer(f"127.0.0.1:{port}"), delta=delta)
        with Envoy(render.to_yaml(_data(made)), tmp_path) as envoy:
            asked = _asked(handler, 4)
            assert envoy.log_text() == ""
    assert {called for called, _ in asked} == {method}
    assert {request.type_url for _, request in asked} == {CLUSTER, LISTENER}
    assert asked[0][1].node.id == "mesh/shop/virtualNode/front"
    # 61 kB, once per stream. Envoy 1.36 and 1.37 mind that for the state of the world alone.
    if not delta or envoy_version() >= (1, 40):
        assert not any(request.HasField("node") for _, request in asked[1:])


def test_envoy_asks_a_control_plane_behind_a_unix_socket(tmp_path: Path) -> None:
    socket = f"unix:{tmp_path}/xds.sock"
    with _ads(socket) as (handler, _):
        made = ads_bootstrap("shop", "virtualGateway/edge", XdsServer(socket), owner="111122223333")
        with Envoy(_data(made), tmp_path / "envoy") as envoy:
            ((_, request),) = _asked(handler, 1)
            assert envoy.log_text() == ""
    assert request.node.id == "mesh/shop@111122223333/virtualGateway/edge"


@pytest.mark.parametrize(("name", "connects"), [(SERVER_NAME, True), ("other.mesh.local", False)])
def test_mutual_tls_to_the_control_plane(
    tmp_path: Path, certificates: Certificates, name: str, connects: bool
) -> None:
    credentials = grpc.ssl_server_credentials(
        [(certificates.server.private_key.read_bytes(), certificates.server.certificate.read_bytes())],
        root_certificates=certificates.authority.read_bytes(),
        require_client_auth=True,
    )
    with _ads("127.0.0.1:0", credentials) as (handler, port):
        server = XdsServer(
            f"127.0.0.1:{port}",
            ca=str(certificates.authority),
            certificate=str(certificates.client.certificate),
            key=str(certificates.client.private_key),
            server_name=name,
        )
        envoy = Envoy(_data(ads_bootstrap("shop", "virtualNode/front", server)), tmp_path)
        try:
            envoy.start(wait_ready=connects)
            if connects:
                assert _asked(handler, 1)[0][1].node.id == "mesh/shop/virtualNode/front"
            else:
                envoy.wait_stat("cluster.static_cluster_xds.ssl.fail_verify_san", 1)
                assert handler.requests.empty()
        finally:
            envoy.stop()


def test_envoy_waits_for_the_control_plane_as_long_as_it_is_told(tmp_path: Path) -> None:
    """By default for ever, as in App Mesh's images: an empty proxy must not call itself ready."""
    nobody = XdsServer(f"127.0.0.1:{free_port()}")
    timeouts = [
        _data(ads_bootstrap("shop", "virtualNode/front", nobody, **given))["dynamic_resources"]["cds_config"]
        for given in ({}, {"initial_fetch_timeout": 0.25})
    ]
    assert [source["initial_fetch_timeout"] for source in timeouts] == ["0s", "0.250s"]
    made = ads_bootstrap("shop", "virtualNode/front", nobody, initial_fetch_timeout=0.25)
    with Envoy(_data(made), tmp_path / "impatient"):
        pass  # entering waits until it is ready
    patient = Envoy(_data(ads_bootstrap("shop", "virtualNode/front", nobody)), tmp_path / "patient")
    try:
        patient.start(wait_ready=False)
        patient.wait_stat("cluster.static_cluster_xds.upstream_cx_connect_fail", 1)
        assert not patient.is_ready()
    finally:
        patient.stop()


@pytest.mark.parametrize(
    ("target", "cluster_type", "address"),
    [
        ("xds.local:18000", "STRICT_DNS", {"address": "xds.local", "port_value": 18000}),
        ("10.0.0.1:1", None, {"address": "10.0.0.1", "port_value": 1}),
        ("[::1]:65535", None, {"address": "::1", "port_value": 65535}),
    ],
)
def test_addresses_of_control_planes(target: str, cluster_type: str | None, address: Any) -> None:
    data = _data(ads_bootstrap("shop", "virtualNode/front", XdsServer(target)))
    (cluster,) = data["static_resources"]["clusters"]
    assert cluster.get("type", "STATIC") == (cluster_type or "STATIC")
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == address
    accepted, said = validate(data)
    assert accepted, said


@pytest.mark.parametrize(
    "target",
    [
        "",
        "xds",
        "xds:",
        ":1",
        "xds:0",
        "xds:65536",
        "xds:²",
        "xds:٣",
        "xds:" + "9" * 5000,
        "::1:1",
        "[xds]:1",
        "unix:",
    ],
)
def test_what_is_no_address_of_a_control_plane(target: str) -> None:
    with pytest.raises(am.UsageError, match="is not a server address"):
        ads_bootstrap("shop", "virtualNode/front", XdsServer(target))


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (XdsServer("a:1", certificate="c"), "belong together"),
        (XdsServer("a:1", ca="a", key="k"), "belong together"),
        (XdsServer("a:1", certificate="c", key="k"), "needs the authority"),
        (XdsServer("a:1", server_name="n"), "needs the authority"),
        (XdsServer("unix:/s", ca="a"), "needs the name"),
    ],
)
def test_parts_of_tls_that_do_not_fit(server: XdsServer, message: str) -> None:
    with pytest.raises(am.UsageError, match=message):
        ads_bootstrap("shop", "virtualNode/front", server)


@pytest.mark.parametrize("proxy", ["front", "virtualNode/", "virtualRouter/r", ""])
def test_what_is_no_proxy(proxy: str) -> None:
    with pytest.raises(am.UsageError, match="does not name a proxy"):
        ads_bootstrap("shop", proxy, XdsServer("a:1"))


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_times_that_cannot_be(seconds: float) -> None:
    with pytest.raises(am.UsageError, match="seconds"):
        ads_bootstrap("shop", "virtualNode/front", XdsServer("a:1"), initial_fetch_timeout=seconds)
