"""A client's Envoy calls a server's Envoy: who speaks TLS to whom, and what either counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest
from apps import HttpApp
from clients import get
from conftest import RunEnvoy
from pairs import backend, listener, mesh, node, service
from pki import CLIENT_NAME, SERVER_NAME, Certificates
from proxies import static_proxy
from real_envoy import Envoy, free_port

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """How the server listens, what the client believes of it and demands, and what comes of it."""

    #: Listener of the server: no TLS, STRICT, or STRICT with client certificates demanded.
    server: str
    #: What the mesh says of the server; usually the truth.
    said: str
    #: Client policy: trust, names, certificate, enforce, ports.
    policy: Json | None
    status: int
    #: Stats that move on either side, under `cluster.<c>.ssl.` and `listener.<l>.ssl.`.
    client: tuple[str, ...] = ()
    listener: tuple[str, ...] = ()


def _policy(**more: Any) -> Json:
    return {"trust": "ca", "names": (SERVER_NAME,), "certificate": "client", **more}


#: By name. Where the handshake fails the default retry policy tries thrice.
CASES: Final[dict[str, Case]] = {
    "mutual TLS": Case("mutual", "mutual", _policy(), 200, ("handshake",), ("handshake",)),
    "default name": Case("strict", "strict", _policy(names=None), 200, ("handshake",), ("handshake",)),
    "wrong name": Case(
        "strict", "strict", _policy(names=("x.local",)), 503, ("fail_verify_san",), ("connection_error",)
    ),
    "other authority": Case(
        "strict", "strict", _policy(trust="other-ca"), 503, ("fail_verify_error",), ("connection_error",)
    ),
    "no client certificate": Case(
        # With TLS 1.3 the client's handshake is over before the server refuses.
        "mutual",
        "mutual",
        _policy(certificate=None),
        503,
        ("handshake", "connection_error"),
        ("fail_verify_no_cert",),
    ),
    "client certificate of another name": Case(
        "mutual",
        "mutual",
        _policy(certificate="wrong_name"),
        503,
        ("handshake", "connection_error"),
        ("fail_verify_san",),
    ),
    "enforced, server without TLS": Case("none", "none", _policy(), 503, ("connection_error",)),
    "not enforced, server without TLS": Case("none", "none", _policy(enforce=False), 200),
    "not enforced, server with TLS": Case(
        "strict", "strict", _policy(enforce=False), 200, ("handshake",), ("handshake",)
    ),
    "plaintext to STRICT": Case("strict", "none", None, 503, (), ("connection_error",)),
    "no policy, server with TLS": Case("strict", "strict", None, 200, ("handshake",), ("handshake",)),
    "policy of other ports": Case(
        # The policy does not hold, so the wrong name in it does not either.
        "strict",
        "strict",
        _policy(names=("x.local",), ports=[1]),
        200,
        ("handshake",),
        ("handshake",),
    ),
    "plaintext": Case("none", "none", None, 200),
}
NAMES: Final = tuple(CASES)
WATCHED: Final = {
    "handshake",
    "connection_error",
    "fail_verify_error",
    "fail_verify_san",
    "fail_verify_no_cert",
}


def _tls(kind: str, certificates: Certificates) -> Json:
    if kind == "none":
        return {}
    own = certificates.server
    files = {"certificateChain": str(own.certificate), "privateKey": str(own.private_key)}
    tls: Json = {"mode": "STRICT", "certificate": {"file": files}}
    if kind == "mutual":
        trust = {"file": {"certificateChain": str(certificates.authority)}}
        tls["validation"] = {"trust": trust, "subjectAlternativeNames": {"match": {"exact": [CLIENT_NAME]}}}
    return {"tls": tls}


def _client_tls(policy: Json | None, certificates: Certificates) -> Json | None:
    if policy is None:
        return None
    ca = certificates.authority if policy["trust"] == "ca" else certificates.other_authority
    validation: Json = {"trust": {"file": {"certificateChain": str(ca)}}}
    if policy["names"] is not None:
        validation["subjectAlternativeNames"] = {"match": {"exact": list(policy["names"])}}
    made: Json = {"validation": validation}
    made.update({key: policy[key] for key in ("enforce", "ports") if key in policy})
    if policy["certificate"] is not None:
        own = getattr(certificates, policy["certificate"])
        files = {"certificateChain": str(own.certificate), "privateKey": str(own.private_key)}
        made["certificate"] = {"file": files}
    return made


@dataclass(frozen=True)
class Pair:
    client: Envoy
    server: Envoy
    egress: int
    bound: dict[int, int]


@pytest.fixture(scope="module")
def pair(run_envoy: RunEnvoy, http_app: HttpApp, certificates: Certificates) -> Pair:
    ports = {8000 + index: free_port() for index in range(len(CASES))}
    served = [
        listener(8000 + index, **_tls(case.server, certificates)) for index, case in enumerate(CASES.values())
    ]
    server = static_proxy(
        mesh([node("server", served)], {}),
        "virtualNode/server",
        interception="none",
        ingress_ports=tuple(ports.items()),
        app_port=http_app.port,
        admin_port=free_port(),
        egress_port=free_port(),
    )
    resources, backends = [], []
    for index, case in enumerate(CASES.values()):
        resources.append(node(f"n{index}", [listener(8000 + index, **_tls(case.said, certificates))]))
        resources.append(service(f"s{index}.local", to_node=f"n{index}"))
        backends.append(backend(f"s{index}.local", _client_tls(case.policy, certificates)))
    resources.append(node("client", [listener(1)], backends=backends))
    egress = free_port()
    found = {f"n{index}": ports[8000 + index] for index in range(len(CASES))}
    client = static_proxy(
        mesh(resources, found),
        "virtualNode/client",
        interception="none",
        ingress_port=free_port(),
        egress_port=egress,
        app_port=http_app.port,
        admin_port=free_port(),
    )
    return Pair(run_envoy(client), run_envoy(server), egress, ports)


@pytest.mark.parametrize("name", NAMES)
def test_client_and_server(name: str, pair: Pair, http_app: HttpApp) -> None:
    case, index = CASES[name], NAMES.index(name)
    port = 8000 + index
    of_client = f"cluster.cds_egress_pair_n{index}_http_{port}.ssl."
    of_server = f"listener.127.0.0.1_{pair.bound[port]}.ssl."
    before = http_app.count
    assert get(pair.egress, host=f"s{index}.local").status == case.status
    assert http_app.count - before == (1 if case.status == 200 else 0)
    sides = ((pair.client, of_client, case.client), (pair.server, of_server, case.listener))
    for envoy, prefix, moved in sides:
        # One success; a failure comes thrice, for the default retry policy.
        for stat in moved:
            envoy.wait_stat(prefix + stat, 1 if case.status == 200 else 3)
        counted = {key.removeprefix(prefix) for key, value in envoy.stats(prefix).items() if value}
        assert counted & WATCHED == set(moved)


def test_an_unknown_host_is_not_found(pair: Pair) -> None:
    assert get(pair.egress, host="nobody.local").status == 404
