"""`--file-certificates sds`: what lies in files of the proxy's is served again when it is replaced.

Real Envoys, fed over ADS and from static bootstraps. What is asserted is that a replacement is served, and
that nobody notices; how long it took is printed (`pytest -rP -k nobody_notices`).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from apps import HttpApp
from clients import Http1, connect, get, tls_client
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from pki import SERVER_NAME, CertificateFiles, Certificates
from real_envoy import Envoy, envoy_path, envoy_version, free_port
from served import Served
from test_cli import Run, run
from test_security import ARN

import appmesh_xds as am
from appmesh_xds import names, proto, render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap, server_files
from appmesh_xds.certs import certificate_authority, issue_certificate
from appmesh_xds.cli import main
from appmesh_xds.envoy.tls import link_folder
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust, Pem, PemTrust
from appmesh_xds.lint import check
from appmesh_xds.resource import SECRET

__all__ = ["run"]

SDS = am.Options(file_certificates="sds")
#: What takes milliseconds may take so long on a busy machine.
PATIENCE = 30.0


def until(reached: Callable[[], bool], what: Callable[[], str]) -> float:
    """Seconds until it is so."""
    start = time.monotonic()
    while not reached():
        assert time.monotonic() - start < PATIENCE, what()
        time.sleep(0.005)
    return time.monotonic() - start


def serial(pem: Pem) -> int:
    return x509.load_pem_x509_certificate(pem.certificate_chain).serial_number


def put(path: Path, content: bytes) -> None:
    """Written beside, and renamed into place."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


def put_pair(folder: Path, pem: Pem) -> CertificateFiles:
    folder.mkdir(exist_ok=True)
    files = CertificateFiles(folder / "tls.crt", folder / "tls.key")
    put(files.certificate, pem.certificate_chain)
    put(files.private_key, pem.private_key)
    return files


class Volume:
    """A volume of Kubernetes: its files are links into `..data`, a link that is swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()

    def put(self, pem: Pem, authorities: bytes) -> None:
        self._number += 1
        version = self.folder / f"..{self._number}"
        version.mkdir()
        files = {"tls.crt": pem.certificate_chain, "tls.key": pem.private_key, "ca.crt": authorities}
        for name, content in files.items():
            (version / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..tmp").symlink_to(version.name)
        os.replace(self.folder / "..tmp", self.folder / "..data")


# --- what is made -------------------------------------------------------------------------------------------


_ENDPOINTS = {"back": (Endpoint(address="10.0.0.1"),)}


def _files(stem: str, folder: str = "/certs") -> dict[str, str]:
    return {"certificateChain": f"{folder}/{stem}.crt", "privateKey": f"{folder}/{stem}.key"}


def _node(
    certificate: dict[str, Any], trust: dict[str, Any] | None = None, policy: dict[str, Any] | None = None
) -> dict[str, Any]:
    tls: dict[str, Any] = {"mode": "STRICT", "certificate": certificate}
    if trust is not None:
        tls["validation"] = {"trust": trust}
    spec: dict[str, Any] = {
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}, "tls": tls}],
        "serviceDiscovery": {"dns": {"hostname": "front.local"}},
    }
    if policy is not None:
        spec["backends"] = [{"virtualService": {"virtualServiceName": "back.local"}}]
        spec["backendDefaults"] = {"clientPolicy": {"tls": policy}}
    return {"meshName": "shop", "virtualNodeName": "front", "spec": spec}


def _back(port: int = 8080, tls: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    listener: dict[str, Any] = {"portMapping": {"port": port, "protocol": "http"}}
    if tls is not None:
        listener["tls"] = tls
    spec = {
        "listeners": [listener],
        "serviceDiscovery": {"awsCloudMap": {"namespaceName": "shop", "serviceName": "back"}},
    }
    provider = {"virtualNode": {"virtualNodeName": "back"}}
    return [
        {"meshName": "shop", "virtualNodeName": "back", "spec": spec},
        {"meshName": "shop", "virtualServiceName": "back.local", "spec": {"provider": provider}},
    ]


def test_equal_material_is_one_secret_and_says_where_it_comes_from() -> None:
    policy = {
        "certificate": {"file": _files("front")},
        "validation": {"trust": {"file": {"certificateChain": "/ca.crt"}}},
    }
    own = {"file": {"certificateChain": "/certs/own-ca.crt"}}
    mesh = am.loads([_node({"file": _files("front")}, own, policy), *_back()])
    mesh = mesh.replace(endpoints=_ENDPOINTS)
    snapshot = am.translate(mesh, "virtualNode/front", SDS)
    policy_path = "virtualNode/front $.spec.backendDefaults.clientPolicy.tls"
    assert {secret.name: secret.origin for secret in snapshot.secrets} == {
        "file:/certs/front.crt|/certs/front.key": (
            "virtualNode/front $.spec.listeners[0].tls.certificate.file",
            f"{policy_path}.certificate.file",
        ),
        "trust:file:/certs/own-ca.crt": ("virtualNode/front $.spec.listeners[0].tls.validation.trust.file",),
        "trust:file:/ca.crt": (f"{policy_path}.validation.trust.file",),
    }
    assert am.translate(mesh, "virtualNode/front").secrets == ()


def test_an_authority_that_rotates_keeps_its_origin() -> None:
    """A backend's own secrets do not say whose policy named them; the proxy's do."""
    policy = {"validation": {"trust": {"acm": {"certificateAuthorityArns": ["arn:ca"]}}}}
    mesh = am.loads([_node({"file": _files("front")}, policy=policy), *_back()]).replace(
        endpoints=_ENDPOINTS, authorities={"arn:ca": PemTrust(certificate_chain=b"old")}
    )
    translator = am.Translator()
    translator.translate_all(mesh)
    changed = mesh.replace(authorities={"arn:ca": PemTrust(certificate_chain=b"new")})
    (change,) = translator.update(changed)
    assert change.snapshot is not None and change.snapshot == am.translate(changed, "virtualNode/front")
    (secret,) = change.snapshot.secrets
    path = "$.spec.backendDefaults.clientPolicy.tls.validation.trust.acm.certificateAuthorityArns"
    assert secret.origin == (f"virtualNode/front {path}",)


_PATHS = st.text("/.|%7Ca,: ", min_size=1, max_size=6)


@given(one=st.tuples(_PATHS, _PATHS), other=st.tuples(_PATHS, _PATHS))
@example(one=("a|b", "c"), other=("a", "b|c"))
@example(one=("a|b", "c"), other=("a%7Cb", "c"))
def test_names_tell_all_files_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    made = [names.file_certificate_secret(*one), names.file_certificate_secret(*other)]
    made += [names.file_trust_secret(path) for path in {*one, *other}]
    assert len(set(made)) == len({one, other}) + len({*one, *other})


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/certs/tls.crt", None),
        ("tls.crt", None),
        ("/volume/..data/tls.crt", "/volume"),
        ("/volume/..data/deep/tls.crt", "/volume"),
        ("volume/..data/tls.crt", "volume"),
        ("/..data/tls.crt", "/"),
        ("/volume/x..data/tls.crt", None),
        ("/volume/..data", None),
    ],
)
def test_which_folder_is_named(path: str, folder: str | None) -> None:
    assert link_folder(path) == folder


@pytest.mark.parametrize("rotates", ["chain", "key", "authority"])
def test_facts_that_are_files(rotates: str) -> None:
    """ARNs behind which files stand: other files are other secrets, and the translator sees it."""
    policy = {"validation": {"trust": {"acm": {"certificateAuthorityArns": ["arn:ca"]}}}}
    mesh = am.loads([_node({"acm": {"certificateArn": ARN}}, policy=policy), *_back()]).replace(
        endpoints=_ENDPOINTS,
        certificates={ARN: FileCertificate(certificate_chain="/a.crt", private_key="/a.key")},
        authorities={"arn:ca": FileTrust(certificate_chain="/ca.crt")},
    )
    translator = am.Translator(SDS)
    (before,) = (one for one in translator.translate_all(mesh) if one.proxy == "virtualNode/front")
    assert [one.name for one in before.secrets] == ["file:/a.crt|/a.key", "trust:file:/ca.crt"]
    assert before.problems == ()
    certificate = {
        "chain": FileCertificate(certificate_chain="/b.crt", private_key="/a.key"),
        "key": FileCertificate(certificate_chain="/a.crt", private_key="/b.key"),
    }.get(rotates)
    if certificate is not None:
        changed = mesh.replace(certificates={ARN: certificate})
    else:
        changed = mesh.replace(authorities={"arn:ca": FileTrust(certificate_chain="/b.crt")})
    (change,) = translator.update(changed)
    assert change.snapshot == am.translate(changed, "virtualNode/front", SDS) != before
    # The inline ones beside it, in one process.
    assert am.translate(mesh, "virtualNode/front").secrets == ()
    assert am.translate(mesh, "virtualNode/front", SDS) == before


# --- what commands write ------------------------------------------------------------------------------------

_STATIC = ("--proxy", "virtualNode/front", "--static")
_XDS = ("bootstrap", "--proxy", "virtualNode/front", "--mesh", "shop", "--xds", "xds.local:18000")
_XDS_TLS = ("--xds-ca", "/x/ca.crt", "--xds-certificate", "/x/tls.crt", "--xds-key", "/x/tls.key")


def _sources(text: str) -> list[dict[str, Any]]:
    """Where a bootstrap's secrets come from."""
    found = []

    def walk(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)
        if isinstance(value, dict) and "sds_config" in value:
            found.append(value)

    walk(yaml.safe_load(text))
    return found


def test_a_static_bootstrap_and_the_files_beside_it(run: Run) -> None:
    path = run.mesh(_node({"file": _files("front")}, {"file": {"certificateChain": "/ca.crt"}}))
    out = run.folder / "out"
    bare = run("bootstrap", path, *_STATIC, "--file-certificates", "sds")
    assert (bare.status, bare.out) == (2, "") and "give --out DIR" in bare.err
    done = run("bootstrap", path, *_STATIC, "--file-certificates", "sds", "--out", out)
    assert (done.status, done.out, done.err) == (0, "", "")
    written = sorted(file.name for file in out.iterdir() if file.suffix == ".yaml")
    assert len(written) == 3 and written[0] == "envoy.yaml"
    # A ConfigMap can hold them.
    assert all(re.fullmatch(r"sds-[A-Za-z0-9._-]+\.yaml", name) for name in written[1:])
    assert "sds-certs-front.crt-certs-front.key-" in written[1] and "sds-trust-ca.crt-" in written[2]
    told = {}
    for source in _sources((out / "envoy.yaml").read_text()):
        config = source["sds_config"]["path_config_source"]
        assert config["watched_directory"] == {"path": str(out)}
        (secret,) = yaml.safe_load(Path(config["path"]).read_text())["resources"]
        assert secret["name"] == source["name"] and Path(config["path"]).parent == out
        told[source["name"]] = secret.get("tls_certificate") or secret["validation_context"]
    assert told == {
        "file:/certs/front.crt|/certs/front.key": {
            "certificate_chain": {"filename": "/certs/front.crt"},
            "private_key": {"filename": "/certs/front.key"},
        },
        "trust:file:/ca.crt": {"trusted_ca": {"filename": "/ca.crt"}},
    }
    assert "secrets" not in yaml.safe_load((out / "envoy.yaml").read_text())["static_resources"]
    # What a later run needs no longer goes.
    assert run("bootstrap", path, *_STATIC, "--out", out).status == 0
    assert [file.name for file in out.iterdir() if file.suffix == ".yaml"] == ["envoy.yaml"]


def test_a_static_bootstrap_without_such_files_needs_no_folder(run: Run) -> None:
    plain = {**_node({"file": _files("x")}), "virtualNodeName": "front"}
    del plain["spec"]["listeners"][0]["tls"]
    done = run("bootstrap", run.mesh(plain), *_STATIC, "--file-certificates", "sds")
    assert (done.status, done.err) == (0, "") and "lds_ingress" in done.out


def test_the_bootstrap_of_a_control_plane(run: Run) -> None:
    inline = run(*_XDS, *_XDS_TLS)
    assert inline.status == 0 and _sources(inline.out) == [] and "/x/tls.key" in inline.out
    bare = run(*_XDS, *_XDS_TLS, "--file-certificates", "sds")
    assert (bare.status, bare.out) == (2, "") and "give --out DIR" in bare.err
    # Nothing that could rotate.
    plain = run(*_XDS, "--file-certificates", "sds")
    assert (plain.status, plain.out) == (0, run(*_XDS).out)
    options = run.file("options.yaml", "file-certificates: sds\n")
    done = run(*_XDS, *_XDS_TLS, "--options", options, "--out", run.folder / "out")
    assert (done.status, done.out, done.err) == (0, "", "")
    sources = _sources((run.folder / "out" / "envoy.yaml").read_text())
    assert [source["name"] for source in sources] == ["file:/x/tls.crt|/x/tls.key", "trust:file:/x/ca.crt"]
    for source in sources:
        file = Path(source["sds_config"]["path_config_source"]["path"])
        assert yaml.safe_load(file.read_text())["resources"][0]["name"] == source["name"]


def test_values_that_are_none(run: Run) -> None:
    options = run.file("options.yaml", "file-certificates: links\n")
    done = run("translate", run.mesh(_node({"file": _files("a")})), "--options", options)
    assert done.status == 2 and "file_certificates" in done.err


def test_check_opens_the_files_when_told(certificates: Certificates) -> None:
    """Envoy does not open what a secret names while it validates: nothing may go unseen for that."""
    mesh = am.loads([_node({"file": _files("nowhere")})])
    assert check(mesh, SDS, envoy=envoy_path()).problems == ()
    (problem,) = check(mesh, SDS, envoy=envoy_path(), real_files=True).problems
    assert "/certs/nowhere" in problem.message
    real = {
        "certificateChain": str(certificates.server.certificate),
        "privateKey": str(certificates.server.private_key),
    }
    good = am.loads([_node({"file": real})])
    assert check(good, SDS, envoy=envoy_path(), real_files=True).problems == ()


# --- real Envoys --------------------------------------------------------------------------------------------


class _MutualApp:
    """An application on TLS that wants a certificate. It notes the serial number of each that it is shown."""

    def __init__(self, certificates: CertificateFiles, authority: Path) -> None:
        self.shown: list[int] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.private_key)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        shown = self.shown

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown.append(int(self.request.getpeercert()["serialNumber"], 16))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self) -> tuple[Any, Any]:
                connection, peer = super().get_request()
                tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                return tls, peer  # the handshake is with the first read, in a thread of its own

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> _MutualApp:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class Site:
    """The node `front`. Its port 8080 shows files that are renamed over, which it also shows to `back`; port
    8081 shows those of a volume, and lets in whom the volume's authorities signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.other = certificate_authority("ours"), certificate_authority("other")
        self.first, self.second = self.issue(), self.issue()
        self.pair = put_pair(folder / "certs", self.first)
        self.volume = Volume(folder / "volume")
        self.volume.put(self.first, self.authority.certificate_chain)
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self.authority.certificate_chain)
        self.ours = put_pair(folder / "ours", self.issue())
        self.theirs = put_pair(folder / "theirs", issue_certificate(self.other, ["theirs.local"]))
        self.ports = {8080: free_port(), 8081: free_port()}
        self.egress = free_port()

    def issue(self) -> Pem:
        return issue_certificate(self.authority, [SERVER_NAME])

    def write(self, app: HttpApp, back: _MutualApp) -> list[str]:
        """The specs; the arguments for them."""
        own = {"certificateChain": str(self.pair.certificate), "privateKey": str(self.pair.private_key)}
        policy = {
            "certificate": {"file": own},
            "validation": {
                "trust": {"file": {"certificateChain": str(self.ca)}},
                "subjectAlternativeNames": {"match": {"exact": [SERVER_NAME]}},
            },
        }
        front = _node({"file": own}, policy=policy)
        volume = str(self.volume.folder)
        tls = {
            "mode": "STRICT",
            "certificate": {"file": _files("tls", volume)},
            # Some name the link.
            "validation": {"trust": {"file": {"certificateChain": f"{volume}/..data/ca.crt"}}},
        }
        front["spec"]["listeners"].append({"portMapping": {"port": 8081, "protocol": "http"}, "tls": tls})
        theirs = {"mode": "STRICT", "certificate": {"file": _files("back")}}
        mesh, facts = self.folder / "mesh.json", self.folder / "facts.json"
        mesh.write_text(json.dumps([front, *_back(tls=theirs)]))
        facts.write_text(json.dumps({"endpoints": {"back": [{"address": "127.0.0.1", "port": back.port}]}}))
        shape = ["--interception", "none", "--egress-port", str(self.egress), "--app-port", str(app.port)]
        for port, bound in self.ports.items():
            shape += ["--ingress-port", f"{port}={bound}"]
        return [str(mesh), "--facts", str(facts), *shape, "--file-certificates", "sds"]

    @contextlib.contextmanager
    def envoy(self, how: str, arguments: list[str]) -> Iterator[Envoy]:
        out = self.folder / "bootstrap"
        made = ["bootstrap", "--proxy", "virtualNode/front", "--out", str(out)]
        if how == "static":
            assert main([*made, *arguments, "--static"]) == 0
            with Envoy((out / "envoy.yaml").read_text(), self.folder / "envoy") as envoy:
                yield envoy
            return
        # On loopback without TLS: nobody may have a key, and none is needed.
        with Served(*arguments, log=self.folder / "log") as server:
            delta = ["--delta"] if how == "delta" else []
            assert main([*made, "--mesh", "shop", "--xds", f"127.0.0.1:{server.port}", *delta]) == 0
            with Envoy((out / "envoy.yaml").read_text(), self.folder / "envoy") as envoy:
                yield envoy
            assert " nack " not in server.err_text()
            secrets = server.ask("mesh/shop/virtualNode/front", SECRET, f"trust:file:{self.ca}")
            assert secrets[f"trust:file:{self.ca}"].validation_context.trusted_ca.filename == str(self.ca)
            assert "keys are not served" not in server.err_text()


class Visitors:
    """A client for each port that connects again and again, and one that keeps its connection."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.shown: dict[int, list[int]] = {port: [] for port in site.ports}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(port,)) for port in site.ports]
        self._kept = contextlib.ExitStack()

    def tls(self) -> ssl.SSLContext:
        return tls_client(self.site.ca, certificate=self.site.ours)

    def __enter__(self) -> Visitors:
        self.keeping = [
            self._kept.enter_context(Http1(bound, self.tls(), SERVER_NAME))
            for bound in self.site.ports.values()
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._kept.close()

    def _visit(self, port: int) -> None:
        while not self._stop.is_set():
            try:
                with connect(self.site.ports[port], self.tls(), SERVER_NAME) as sock:
                    assert isinstance(sock, ssl.SSLSocket)
                    certificate: Any = sock.getpeercert()
                    sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    answer = sock.recv(64)
                if not answer.startswith(b"HTTP/1.1 200 "):
                    self.failures.append(repr(answer))
                self.shown[port].append(int(certificate["serialNumber"], 16))
            except OSError as error:
                self.failures.append(f"{port}: {error}")

    def see(self, port: int, pem: Pem) -> float:
        """Seconds until the port's visitors see this certificate."""
        shown, wanted = self.shown[port], serial(pem)
        return until(lambda: shown[-1:] == [wanted], lambda: f"not shown on {port}; {self.failures}")

    def see_more(self, port: int) -> None:
        """Some come now."""
        enough = len(self.shown[port]) + 3
        until(lambda: len(self.shown[port]) >= enough, lambda: f"nobody is served; {self.failures}")


def _configured(envoy: Envoy) -> str:
    """Listeners and clusters, with the times at which they changed."""
    masks = ("listeners", "clusters")
    return "".join(
        envoy.get(f"/config_dump?resource={kind}_{mask}") for mask in masks for kind in _KINDS[mask]
    )


_KINDS = {"listeners": ("static", "dynamic"), "clusters": ("static", "dynamic_active")}


def _allowed(port: int, site: Site, client: CertificateFiles) -> bool:
    try:
        return get(port, host=SERVER_NAME, tls=tls_client(site.ca, certificate=client)).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("how", ["static", "sotw", "delta"])
def test_what_is_replaced_is_served_and_nobody_notices(tmp_path: Path, http_app: HttpApp, how: str) -> None:
    site = Site(tmp_path)
    with contextlib.ExitStack() as stack:
        back = stack.enter_context(_MutualApp(site.ours, site.ca))
        envoy = stack.enter_context(site.envoy(how, site.write(http_app, back)))
        told = stack.enter_context(Visitors(site))
        for port in site.ports:
            told.see(port, site.first)
        assert get(site.egress, host="back.local").status == 200
        assert back.shown == [serial(site.first)]
        assert not _allowed(site.ports[8081], site, site.theirs)
        before = _configured(envoy)
        assert "sds_config" in before

        # Half a pair is refused, and what was there stays.
        failed = r"^sds\.file_.*/certs/tls\.key\.key_rotation_failed$"
        put(site.pair.certificate, site.second.certificate_chain)
        until(lambda: any(envoy.stats(failed).values()), lambda: f"{envoy.stats('key_rotation_failed')}")
        told.see_more(8080)
        assert set(told.shown[8080]) == {serial(site.first)}
        put(site.pair.private_key, site.second.private_key)
        print(f"renamed over: served after {told.see(8080, site.second):.3f} s")
        # The same pair, as a client.
        until(
            lambda: (
                get(site.egress, host="back.local").status == 200 and back.shown[-1] == serial(site.second)
            ),
            lambda: f"{back.shown}",
        )

        # A volume changes as a whole: certificate, key and authorities.
        assert set(told.shown[8081]) == {serial(site.first)}
        site.volume.put(site.second, site.authority.certificate_chain + site.other.certificate_chain)
        print(f"volume swapped: served after {told.see(8081, site.second):.3f} s")
        until(lambda: _allowed(site.ports[8081], site, site.theirs), lambda: "the new authority is not known")

        for one in told.keeping:
            assert one.request("/").status == 200
        assert told.failures == []
        assert _configured(envoy) == before
        assert sum(envoy.stats("key_rotation_failed$").values()) == sum(envoy.stats(failed).values())
        assert not any(envoy.stats(r"(update_rejected|update_failure)$").values())
        for shown in told.shown.values():
            # The old one, then the new one, and never the old one again.
            assert shown == sorted(shown, key=[serial(site.first), serial(site.second)].index)


def test_a_pair_in_two_folders(tmp_path: Path, http_app: HttpApp) -> None:
    """Both are watched."""
    authority = certificate_authority("ours")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_chain)
    first, second = (issue_certificate(authority, [SERVER_NAME]) for _ in range(2))
    chain, key = tmp_path / "chains" / "tls.crt", tmp_path / "keys" / "tls.key"
    for path, content in ((chain, first.certificate_chain), (key, first.private_key)):
        path.parent.mkdir()
        path.write_bytes(content)
    mesh = tmp_path / "mesh.json"
    mesh.write_text(json.dumps([_node({"file": {"certificateChain": str(chain), "privateKey": str(key)}})]))
    port, out = free_port(), tmp_path / "out"
    shape = ("--interception", "none", "--ingress-port", str(port), "--app-port", str(http_app.port))
    arguments = ("bootstrap", str(mesh), *_STATIC, "--file-certificates", "sds", "--out", str(out), *shape)
    assert main(list(arguments)) == 0

    def shown() -> int:
        text = ssl.get_server_certificate(("127.0.0.1", port))
        return x509.load_pem_x509_certificate(text.encode()).serial_number

    with Envoy((out / "envoy.yaml").read_text(), tmp_path / "envoy") as envoy:
        for new in (second, first):
            put(key, new.private_key)
            until(lambda: any(envoy.stats("key_rotation_failed").values()), envoy.log_text)
            put(chain, new.certificate_chain)
            until(lambda: shown() == serial(new), envoy.log_text)  # noqa: B023


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_files_that_come_later(tmp_path: Path, http_app: HttpApp, delta: bool) -> None:
    """The secret is refused, and the server says where in the specs it stands; served when it is there."""
    if envoy_version() < (1, 37):
        pytest.skip("Envoy 1.36 ends itself when files come that it did not find")
    authority = certificate_authority("ours")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_chain)
    (tmp_path / "late").mkdir()
    node = _node({"file": _files("tls", str(tmp_path / "late"))})
    (tmp_path / "mesh.json").write_text(json.dumps([node]))
    port = free_port()
    shape = ("--interception", "none", "--ingress-port", str(port), "--app-port", str(http_app.port))
    arguments = (tmp_path / "mesh.json", *shape, "--file-certificates", "sds")
    with Served(*arguments, log=tmp_path / "log") as server:
        xds = XdsServer(f"127.0.0.1:{server.port}")
        envoy = Envoy(
            render.to_dict(ads_bootstrap("shop", "virtualNode/front", xds, SDS, delta=delta)),
            tmp_path / "envoy",
        )
        try:
            envoy.start(wait_ready=False)
            place = r"virtualNode/front \$\.spec\.listeners\[0\]\.tls\.certificate\.file"
            server.wait_for(f'nack .*Invalid path.*spec="{place}"')
            put_pair(tmp_path / "late", issue_certificate(authority, [SERVER_NAME]))
            if envoy_version() < (1, 37):
                # It does not look again at what it refused. (And ends, if it is told what folder to watch.)
                assert envoy.is_ready()
                return
            tls = tls_client(tmp_path / "ca.crt")

            def served() -> bool:
                with contextlib.suppress(OSError):
                    return get(port, host=SERVER_NAME, tls=tls).status == 200
                return False

            until(served, envoy.log_text)
        finally:
            envoy.stop()


@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
def test_a_file_that_is_not_there_keeps_nothing_else_back(
    tmp_path: Path, http_app: HttpApp, delta: bool
) -> None:
    """Envoy takes no secret of a response behind one that it refuses. Those are sent again, each alone."""
    authority = certificate_authority("ours")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_chain)
    put_pair(tmp_path / "b", issue_certificate(authority, [SERVER_NAME]))
    for empty in ("a", "c"):
        (tmp_path / empty).mkdir()
    node = _node({"file": _files("tls", str(tmp_path / "a"))})
    (first,) = node["spec"]["listeners"]
    ports = {8080 + index: free_port() for index in range(4)}
    folders = dict(zip(ports, ("a", "b", "c", "b"), strict=True))
    shape = ["--interception", "none", "--file-certificates", "sds", "--app-port", str(http_app.port)]
    node["spec"]["listeners"] = []
    for port, bound in ports.items():
        tls = {**first["tls"], "certificate": {"file": _files("tls", str(tmp_path / folders[port]))}}
        if port == 8083:
            tls["validation"] = {"trust": {"file": {"certificateChain": str(tmp_path / "ca.crt")}}}
        node["spec"]["listeners"].append({"portMapping": {"port": port, "protocol": "http"}, "tls": tls})
        shape += ["--ingress-port", f"{port}={bound}"]
    (tmp_path / "mesh.json").write_text(json.dumps([node]))
    client = put_pair(tmp_path / "client", issue_certificate(authority, ["client.local"]))
    tls_context = tls_client(tmp_path / "ca.crt", certificate=client)

    def served(port: int) -> bool:
        with contextlib.suppress(OSError):
            return get(ports[port], host=SERVER_NAME, tls=tls_context).status == 200
        return False

    with Served(tmp_path / "mesh.json", *shape, log=tmp_path / "log") as server:
        xds = XdsServer(f"127.0.0.1:{server.port}")
        made = render.to_dict(ads_bootstrap("shop", "virtualNode/front", xds, SDS, delta=delta))
        with Envoy(made, tmp_path / "envoy") as envoy:
            for port in (8081, 8083):
                until(lambda: served(port), envoy.log_text)  # noqa: B023
            assert not served(8080) and not served(8082)
            places = r"virtualNode/front \$\.spec\.listeners\[{}\]\.tls\.certificate\.file"
            for index in (0, 2):
                server.wait_for(f'nack .*spec="{places.format(index)}"')


# --- the connection to the server ---------------------------------------------------------------------------


class _Ads(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers with nothing, and notes the serial numbers of its clients' certificates."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def service(self, call: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._stream)

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        (pem,) = context.auth_context()["x509_pem_cert"]
        self.shown.append(x509.load_pem_x509_certificate(pem).serial_number)
        for raw in requests:
            request = proto.DiscoveryRequest.FromString(raw)
            if not request.response_nonce:
                answer = proto.DiscoveryResponse(type_url=request.type_url, version_info="1", nonce="1")
                yield answer.SerializeToString()


@contextlib.contextmanager
def _ads(handler: _Ads, port: int, pem: Pem, authorities: bytes) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    credentials = grpc.ssl_server_credentials(
        [(pem.private_key, pem.certificate_chain)], root_certificates=authorities, require_client_auth=True
    )
    bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


def test_the_certificate_for_the_control_plane_is_read_again(tmp_path: Path) -> None:
    """The proxy's own, and the authority that it trusts: the next connection shows and takes the new ones."""
    old, new = certificate_authority("old"), certificate_authority("new")
    first, second = issue_certificate(old, ["front.local"]), issue_certificate(new, ["front.local"])
    volume, handler = Volume(tmp_path / "volume"), _Ads()
    volume.put(first, old.certificate_chain)
    ca, chain, key = (str(volume.folder / name) for name in ("ca.crt", "..data/tls.crt", "..data/tls.key"))
    both = old.certificate_chain + new.certificate_chain
    with _ads(handler, 0, issue_certificate(old, [SERVER_NAME]), both) as port:
        server = XdsServer(f"127.0.0.1:{port}", ca=ca, certificate=chain, key=key, server_name=SERVER_NAME)
        folder = tmp_path / "beside"
        folder.mkdir()
        for file in server_files(server, SDS):
            (folder / file.name).write_bytes(file.content)
        made = render.to_dict(ads_bootstrap("shop", "virtualNode/front", server, SDS, key_folder=str(folder)))
        (service,) = made["dynamic_resources"]["ads_config"]["grpc_services"]
        back_off = {"base_interval": "0.1s", "max_interval": "0.2s"}
        service["envoy_grpc"]["retry_policy"] = {"retry_back_off": back_off}
        envoy = Envoy(made, tmp_path / "envoy")
        envoy.start()
    try:
        assert set(handler.shown) == {serial(first)}
        volume.put(second, new.certificate_chain)
        # A server that the old authority did not sign.
        with _ads(handler, port, issue_certificate(new, [SERVER_NAME]), new.certificate_chain):
            until(lambda: handler.shown[-1] == serial(second), envoy.log_text)
        assert envoy.stats("key_rotation_failed") and not any(envoy.stats("key_rotation_failed").values())
    finally:
        envoy.stop()
