"""The command line: what it writes, where problems go, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from apps import HttpApp
from clients import get, tls_client
from pki import SERVER_NAME, Certificates
from real_envoy import Envoy, envoy_path, free_port

import appmesh_xds as am
from appmesh_xds import cli, render
from appmesh_xds.cli import main
from appmesh_xds.folders import MANIFEST

ARN = "arn:aws:acm:us-west-2:123456789012:certificate/1"
TYPES = ["clusters", "endpoints", "listeners", "routes", "secrets"]


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


_BACKEND = {"virtualService": {"virtualServiceName": "gone.shop.local"}}
_ACM = {"mode": "STRICT", "certificate": {"acm": {"certificateArn": ARN}}}
#: A service that is not there is a warning, a certificate that nobody knows an error.
WARNING = _node("careless", backends=[_BACKEND])
ERROR = _node("broken", listeners=[{"portMapping": {"port": 8080, "protocol": "http"}, "tls": _ACM}])


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What stderr holds."""
        return self.err.splitlines()


class Run:
    """`run("translate", path, ...)` in this process, in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ran:
        self.capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return Ran(status, out, err)

    def mesh(self, *resources: Mapping[str, Any], name: str = "mesh.json") -> Path:
        path = self.folder / name
        path.write_text(json.dumps(resources))
        return path

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, capsys)


def _process(*arguments: str, env: Mapping[str, str] | None = None, **given: Any) -> Any:
    command = [sys.executable, "-m", "appmesh_xds", *arguments]
    root = str(Path(am.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, **(env or {})}
    return subprocess.run(command, capture_output=True, check=False, env=environment, **given)


def _tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


# --- translate --------------------------------------------------------------------------------------------


def test_translate_writes_a_document_for_every_proxy(run: Run) -> None:
    ran = run("translate", run.mesh(_node("a"), _node("b")))
    assert (ran.status, ran.err) == (0, "")
    documents = ran.out.split("---\n")
    assert [text.splitlines()[0] for text in documents] == [
        "# mesh/shop/virtualNode/a",
        "# mesh/shop/virtualNode/b",
    ]
    mesh = am.load(run.folder / "mesh.json")
    assert documents[1].partition("\n")[2] == am.translate(mesh, "virtualNode/b").to_yaml()
    assert all(sorted(one) == TYPES for one in yaml.safe_load_all(ran.out))


def test_translate_json_is_one_object_by_proxy(run: Run) -> None:
    path = run.mesh(_node("a"), _node("b"), _node("c"))
    ran = run(
        "translate",
        path,
        "--format",
        "json",
        "--proxy",
        "virtualNode/b",
        "--proxy",
        "mesh/shop/virtualNode/a",
    )
    assert list(json.loads(ran.out)) == ["mesh/shop/virtualNode/b", "mesh/shop/virtualNode/a"]


def test_a_name_cannot_end_the_comment_it_stands_in(run: Run) -> None:
    ran = run("translate", run.mesh({**_node("a\u2028listeners: x"), "spec": {}}))
    assert ran.out.startswith("# mesh/shop/virtualNode/a?listeners: x\n")
    assert len(list(yaml.safe_load_all(ran.out))) == 1


def test_translate_out(run: Run) -> None:
    path = run.mesh(_node("front"))
    ran = run("translate", path, "--out", "out")
    assert ran == (0, "", "")
    assert _tree(run.folder / "out") == [f"shop/virtualNode/front/{name}.yaml" for name in TYPES]
    snapshot = am.translate(am.load(path), "virtualNode/front")
    clusters = (run.folder / "out/shop/virtualNode/front/clusters.yaml").read_text()
    assert clusters == render.to_yaml({"clusters": snapshot.to_dict()["clusters"]})


def test_names_do_not_lead_out_of_the_folder(run: Run) -> None:
    ran = run("translate", run.mesh({**_node("../../x"), "meshName": ".."}), "--out", "deep/er/out")
    assert ran.status == 0
    assert {path.split("/")[0] for path in _tree(run.folder)} == {"deep", "mesh.json"}
    assert {str(Path(p).parent) for p in _tree(run.folder / "deep/er/out")} == {
        "%2E%2E/virtualNode/%2E%2E%2F..%2Fx"
    }


def test_a_later_run_removes_what_it_no_longer_needs(run: Run) -> None:
    out = run.folder / "out"
    run("translate", run.mesh(_node("a"), _node("b")), "--out", out)
    run("translate", run.mesh({**_node("c"), "meshName": "other"}, name="other.json"), "--out", out)
    mine = out / "shop/virtualNode/b/notes.txt"
    mine.write_text("mine")
    one = run("translate", run.mesh(_node("b"), _node("d")), "--out", out, "--proxy", "virtualNode/d")
    assert one.status == 0
    assert {path.split("/")[2] for path in _tree(out)} == {"a", "b", "c", "d"}  # only one proxy was asked for
    run("translate", run.mesh(_node("d")), "--out", out, "--format", "json")
    assert _tree(out) == [
        *(f"other/virtualNode/c/{name}.yaml" for name in TYPES),
        "shop/virtualNode/b/notes.txt",
        *(f"shop/virtualNode/d/{name}.json" for name in TYPES),
    ]
    assert mine.read_text() == "mine"


def test_a_file_of_somebody_else_is_in_the_way(run: Run) -> None:
    target = run.folder / "out/shop/virtualNode/front/clusters.yaml"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    ran = run("translate", run.mesh(_node()), "--out", "out")
    assert ran.status == 2 and "was not written by appmesh-xds" in ran.err
    assert _tree(run.folder / "out") == ["shop/virtualNode/front/clusters.yaml"]
    assert target.read_text() == "mine"


# --- problems and exit status -----------------------------------------------------------------------------


def test_a_warning_is_told_and_no_failure(run: Run) -> None:
    path = run.mesh(WARNING)
    ran = run("translate", path)
    assert ran.status == 0 and "listeners:" in ran.out
    (line,) = ran.lines
    assert line.startswith(f"warning: {path}:1:") and "virtualNode/careless $.spec.backends[0]" in line
    strict = run("translate", path, "--strict", "--out", "out")
    assert (strict.status, strict.out, strict.err) == (1, "", ran.err)
    assert not (run.folder / "out").exists()


@pytest.mark.parametrize(
    "command", [["translate"], ["bootstrap", "--static", "--proxy", "virtualNode/broken"]]
)
def test_an_error_means_that_nothing_is_written(run: Run, command: list[str]) -> None:
    path = run.mesh(ERROR, _node())
    ran = run(*command, path, "--out", "out")
    assert (ran.status, ran.out) == (1, "")
    (line,) = ran.lines
    assert line.startswith("error: ") and "$.spec.listeners[0].tls.certificate.acm.certificateArn" in line
    assert not (run.folder / "out").exists()
    going = run(*command, path, "--out", "out", "--keep-going")
    assert (going.status, going.err) == (1, ran.err)
    assert _tree(run.folder / "out") != []


def test_an_error_of_another_proxy_does_not_matter(run: Run) -> None:
    ran = run("translate", run.mesh(ERROR, _node()), "--proxy", "virtualNode/front")
    assert ran.status == 0 and ran.err == ""


def test_keep_going_takes_what_could_be_read(run: Run) -> None:
    bad = {**_node("bad"), "spec": {"listeners": 1}}
    path = run.mesh(_node(), bad)
    refused = run("translate", path)
    assert refused.status == 1 and refused.out == "" and "expected a list" in refused.err
    ran = run("translate", path, "--keep-going")
    assert (ran.status, ran.err) == (1, refused.err)
    assert ran.out.startswith("# mesh/shop/virtualNode/front\n")


#: File content -> what stderr must say.
BAD_INPUT = {
    "mode missing": (
        _node(listeners=[{"portMapping": {"port": 1, "protocol": "http"}, "tls": {"certificate": {}}}]),
        "$[0].spec.listeners[0].tls.mode: missing|$.spec.listeners[0].tls.mode: missing",
    ),
    "port 0": (_node(listeners=[{"portMapping": {"port": 0, "protocol": "http"}}]), "0 is out of range"),
    "port 70000": (_node(listeners=[{"portMapping": {"port": 70000, "protocol": "http"}}]), "out of range"),
    "cut off": ('{"meshName": "shop", "virtualNodeName": ', "error: "),
    "tabs": ("meshName: shop\n\tvirtualNodeName: a\n", "error: "),
    "not text": (b"\xff\xfe\x00\xff", "error: "),
    "10 MB": ('{"meshName": "' + "a" * 10_000_000 + '", "spec": {}}', "at most 255 characters"),
    "deep": ("[" * 50_000, "error: "),
    "nothing": ("", "is empty"),
    "something else": ("kind: Deployment\napiVersion: apps/v1\n", "no App Mesh resource"),
    "control characters": ({**_node("a\x1b[31m\nerror: b"), "spec": {"listeners": 1}}, r"a\\x1b"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("command", ["translate", "check"])
def test_bad_input(run: Run, case: str, command: str) -> None:
    content, expected = BAD_INPUT[case]
    path = run.folder / "bad.yaml"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = run(command, path, *(["--out", "out"] if command == "translate" else []))
    assert (ran.status, ran.out) == (1, "")
    assert all(line.startswith(("error: ", "warning: ")) for line in ran.lines)
    assert any(text in ran.err for text in expected.replace(r"\\", "\\").split("|")), ran.err
    assert len(ran.err) < 5000 and "\x1b" not in ran.err
    assert not (run.folder / "out").exists()


def test_what_is_not_there(run: Run) -> None:
    (run.folder / "empty").mkdir()
    ran = run("translate", "gone.json", "empty")
    assert ran.status == 1 and ran.out == ""
    assert [line.split(": ")[1].split(" ")[0] for line in ran.lines] == ["empty", "gone.json"]


def test_two_resources_of_one_name(run: Run) -> None:
    ran = run("check", run.mesh(_node(), name="a.json"), run.mesh(_node(), name="b.json"))
    assert ran.status == 1 and "has a resource of this name already" in ran.err


def test_several_meshes(run: Run) -> None:
    path = run.mesh(_node(), {**_node(), "meshName": "other"})
    ran = run("translate", path)
    assert ran.status == 1 and "2 meshes: other, shop" in ran.err and "--mesh" in ran.err
    assert run("translate", path, "--mesh", "other").out.startswith("# mesh/other/virtualNode/front\n")


def test_a_spec_without_names(run: Run) -> None:
    spec = run.file("spec.json", json.dumps(_node()["spec"]))
    ran = run("translate", f"virtualNode/named={spec}", "--mesh", "shop")
    assert ran.out.startswith("# mesh/shop/virtualNode/named\n")


USAGE = [
    ([], "required"),
    (["frobnicate"], "invalid choice"),
    (["translate"], "PATH"),
    (["translate", "m", "--form", "yaml"], "unrecognized"),
    (["translate", "m", "--format", "xml"], "invalid choice"),
    (["translate", "mesh.json", "--proxy", "virtualNode/nobody"], "virtualNode/nobody is not in mesh shop"),
    (["translate", "mesh.json", "--proxy", "front"], "does not name a proxy"),
    (["translate", "mesh.json", "--egress-port", "0"], "--egress-port 0: a port is"),
    (["translate", "mesh.json", "--egress-port", "²"], "a port is"),
    (["translate", "mesh.json", "--ingress-port", "a=1"], "--ingress-port a: a port is"),
    (["translate", "mesh.json", "--tcp-egress", "1"], "SERVICE_PORT=PORT"),
    (["translate", "mesh.json", "--bind", "localhost"], "--bind localhost: is not an IP address"),
    (["translate", "mesh.json", "--app-address", "app"], "--app-address app: is not an IP address"),
    (["translate", "mesh.json", "--admin-address", "::g"], "is not an IP address"),
    (["translate", "mesh.json", "--sds-socket", "\udcff"], "--sds-socket"),
    (["translate", "mesh.json", "--options", "gone.yaml"], "gone.yaml: cannot be read"),
    (["translate", "mesh.json", "--options", "list.yaml"], "expected a mapping"),
    (["translate", "mesh.json", "--options", "bad.yaml"], "egress_port"),
    (["translate", "mesh.json", "--options", "unknown.yaml"], "unknown field"),
    (["translate", "mesh.json", "--parameter", "x"], "KEY=VALUE"),
    (["translate", "mesh.json", "--out", "mesh.json"], "mesh.json"),
    (["bootstrap", "mesh.json", "--static"], "--proxy"),
    (["bootstrap", "mesh.json", "--proxy", "virtualNode/front"], "--static"),
    (["bootstrap", "--static", "--proxy", "virtualNode/front"], "PATH"),
    (["bootstrap", "--proxy", "virtualNode/front", "--xds", "a:1"], "--mesh"),
    (["bootstrap", "--proxy", "virtualNode/front", "--mesh", "m", "--xds", "a"], "not a server address"),
    (["bootstrap", "--proxy", "x", "--mesh", "m", "--xds", "a:1"], "does not name a proxy"),
    (["check", "mesh.json", "--envoy", "/nowhere/envoy"], "not an Envoy binary"),
    (["dev-certs", "certs"], "--name"),
    (["dev-certs", "certs", "--name", "a/b"], "holds a '/'"),
    (["dev-certs", "mesh.json", "--name", "a"], "mesh.json"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(map(ascii, u[0])) for u in USAGE])
def test_wrong_usage(run: Run, arguments: Sequence[str], message: str) -> None:
    run.mesh(_node())
    run.file("list.yaml", "- 1\n")
    run.file("bad.yaml", "egress-port: many\n")
    run.file("unknown.yaml", "1: 2\n")
    before = _tree(run.folder)
    ran = run(*arguments)
    assert ran.status == 2 and message in ran.err and ran.out == ""
    assert _tree(run.folder) == before


def test_a_facts_file_with_problems(run: Run) -> None:
    facts = run.file("facts.yaml", "certificates: {x: {}}\nendpoints: {}\n")
    ran = run("translate", run.mesh(_node()), "--facts", facts)
    assert (ran.status, ran.out) == (1, "")
    assert f"error: {facts}:1:" in ran.err and "privateKey" in ran.err
    # Even then: what the facts say is part of every proxy.
    assert run("translate", run.folder / "mesh.json", "--facts", facts, "--keep-going").out == ""


# --- options ----------------------------------------------------------------------------------------------


def _options(*arguments: str) -> am.Options:
    from appmesh_xds.cli.rendering import rendering_of

    return rendering_of(cli.parser().parse_args(["translate", "m", *arguments])).options


OWN = """
egress-port: 15501
proxies:
  virtualNode/front: {interception: none, ingress-ports: {8080: 18080}}
  mesh/shop/virtualNode/back: {interception: none, egress-port: 15001}
  mesh/other/virtualNode/side: {interception: none}
"""


def test_options_of_single_proxies(run: Run) -> None:
    path = run.mesh(*(_node(name) for name in ("front", "back", "side")))
    file = run.file("options.yaml", OWN)
    arguments = (path, "--options", file, "--bind", "127.0.0.2")
    out = json.loads(run("translate", *arguments, "--format", "json").out)
    names = {
        proxy.rpartition("/")[2]: sorted(listener["name"] for listener in snapshot["listeners"])
        for proxy, snapshot in out.items()
    }
    # A proxy's own wins over the flags, and these over what the file says of all.
    assert names["front"] == ["lds_ingress_127.0.0.2_18080"]
    assert names["back"] == ["lds_ingress_127.0.0.2_15000"]
    assert names["side"] == ["lds_egress_127.0.0.2_15501", "lds_ingress_127.0.0.2_15000"]
    static = run("bootstrap", *arguments, "--proxy", "virtualNode/front", "--static").out
    assert "lds_ingress_127.0.0.2_18080" in static
    ads = run("bootstrap", *arguments[1:], "--proxy", "virtualNode/front", "--mesh", "shop", "--xds", "a:1")
    assert ads.status == 0
    checked = run("check", *arguments, "--envoy", "off")
    assert (checked.status, checked.err) == (0, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("proxies: [a]", "proxies: expected KIND/NAME: {options}"),
        ("proxies: {virtualNode/front: 1}", "proxies: expected KIND/NAME: {options}"),
        ("proxies: {front: {}}", "proxies: 'front' is no proxy: virtualNode/NAME"),
        ("proxies: {virtualNode/front: {bind: x}}", "--bind x: is not an IP address"),
        ("proxies: {virtualNode/front: {ports: 1}}", "proxies: virtualNode/front: Object contains unknown"),
    ],
)
def test_options_of_single_proxies_that_are_none(run: Run, text: str, problem: str) -> None:
    done = run("translate", run.mesh(_node()), "--options", run.file("options.yaml", text))
    assert (done.status, done.out) == (2, "")
    assert problem in done.err


def test_every_flag_reaches_the_options() -> None:
    flags = (
        "--interception none --bind 127.0.0.2 --ingress-port 18080 --ingress-port 9000=19000 "
        "--egress-port 18001 --tcp-egress 6379=16379 --app-address 127.0.0.3 --app-port 80 --app-port 81=82 "
        "--admin-address ::1 --admin-port 9902 --sds-socket /s --cloud-map dns --single-hop --send-sni "
        "--legacy-defaults --file-certificates sds"
    )
    assert _options(*flags.split()) == am.Options(
        interception="none",
        bind="127.0.0.2",
        ingress_port=18080,
        ingress_ports=((9000, 19000),),
        egress_port=18001,
        tcp_egress=((6379, 16379),),
        app_address="127.0.0.3",
        app_port=80,
        app_ports=((81, 82),),
        admin_address="::1",
        admin_port=9902,
        sds_socket="/s",
        file_certificates="sds",
        cloud_map="dns",
        single_hop=True,
        send_sni=True,
        legacy_defaults=True,
    )
    assert _options() == am.Options()


def test_an_options_file_and_flags_that_win(run: Run) -> None:
    text = "interception: none\negress-port: 1\napp_ports: {80: 81, 90: 91}\ntcp-egress: [[1, 2]]\n"
    path = run.file("options.yaml", text + "aws-egress: false\n")
    assert _options("--options", str(path), "--egress-port", "7", "--app-port", "80=82") == am.Options(
        interception="none",
        egress_port=7,
        app_ports=((80, 82), (90, 91)),
        tcp_egress=((1, 2),),
        aws_egress=False,
    )


# --- bootstrap --------------------------------------------------------------------------------------------


def test_envoy_runs_on_what_bootstrap_static_prints(run: Run, http_app: HttpApp) -> None:
    port = free_port()
    ran = run(
        *("bootstrap", run.mesh(_node()), "--proxy", "virtualNode/front", "--static"),
        *("--interception", "none", "--ingress-port", str(port), "--egress-port", str(free_port())),
        *("--app-port", str(http_app.port)),
    )
    assert (ran.status, ran.err) == (0, "")
    with Envoy(ran.out, run.folder / "envoy") as envoy:
        assert get(port, "/", host="front.shop.local").text == "http-app"
        assert envoy.log_text() == ""


def _pem_facts(run: Run, certificates: Certificates) -> Path:
    files = certificates.server
    pem = {"certificateChain": str(files.certificate), "privateKey": str(files.private_key)}
    return run.file("facts.yaml", json.dumps({"certificates": {ARN: {"pem": pem}}}))


def test_keys_in_memory_are_written_beside_the_bootstrap_or_not_at_all(
    run: Run, http_app: HttpApp, certificates: Certificates
) -> None:
    facts = _pem_facts(run, certificates)
    port = free_port()
    command = [
        *("bootstrap", run.mesh(ERROR), "--proxy", "virtualNode/broken", "--static", "--facts", facts),
        *("--interception", "none", "--ingress-port", str(port), "--egress-port", str(free_port())),
        *("--app-port", str(http_app.port)),
    ]
    refused = run(*command)
    assert refused.status == 2 and refused.out == "" and "--out DIR" in refused.err
    written = run(*command, "--out", "out")
    assert written == (0, "", "")
    out = run.folder / "out"
    stem = "arn%3Aaws%3Aacm%3Aus-west-2%3A123456789012%3Acertificate%2F1"
    assert _tree(out) == [f"{stem}.crt", f"{stem}.key", "envoy.yaml"]
    assert (out / f"{stem}.key").stat().st_mode & 0o777 == 0o600
    with Envoy((out / "envoy.yaml").read_text(), run.folder / "envoy") as envoy:
        client = tls_client(certificates.authority)
        assert get(port, "/", host=SERVER_NAME, tls=client).text == "http-app"
        assert envoy.log_text() == ""

    translated = run("translate", run.folder / "mesh.json", "--facts", facts)
    assert "[redacted]" in translated.out
    checked = run("check", run.folder / "mesh.json", "--facts", facts, "--envoy", envoy_path(), "-v")
    assert checked.status == 0
    run("translate", run.folder / "mesh.json", "--facts", facts, "--out", "out")
    run("translate", run.folder / "mesh.json", "--facts", facts, "--out", "out", "--format", "json")
    secrets = [
        line for line in certificates.server.private_key.read_text().splitlines() if "-----" not in line
    ]
    shown = [text for ran in (refused, written, translated, checked) for text in (ran.out, ran.err)]
    shown += [path.read_text() for path in out.rglob("*") if path.is_file() and path.suffix != ".key"]
    assert secrets and not any(secret in text for secret in secrets for text in shown)


def test_a_later_bootstrap_removes_keys_it_does_not_need(run: Run, certificates: Certificates) -> None:
    facts = _pem_facts(run, certificates)
    path = run.mesh(ERROR, _node())
    command = ["bootstrap", path, "--static", "--facts", facts, "--out", "out", "--proxy"]
    run("translate", path, "--proxy", "virtualNode/front", "--out", "out")
    assert run(*command, "virtualNode/broken").status == 0
    assert [p for p in _tree(run.folder / "out") if p.endswith(".key")] != []
    assert run(*command, "virtualNode/front").status == 0
    assert [p for p in _tree(run.folder / "out") if "/" not in p] == ["envoy.yaml"]
    assert (run.folder / "out/shop/virtualNode/front/clusters.yaml").exists()  # what translate wrote


def test_bootstrap_for_a_control_plane(run: Run) -> None:
    ran = run(
        *("bootstrap", "--proxy", "virtualNode/front", "--mesh", "shop", "--mesh-owner", "111122223333"),
        *("--xds", "xds.local:18000", "--delta", "--initial-fetch-timeout", "5"),
        *("--xds-ca", "/ca", "--xds-certificate", "/c", "--xds-key", "/k", "--admin-port", "9902"),
    )
    assert (ran.status, ran.err) == (0, "")
    data = yaml.safe_load(ran.out)
    assert data["node"]["id"] == "mesh/shop@111122223333/virtualNode/front"
    assert data["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    assert data["dynamic_resources"]["lds_config"]["initial_fetch_timeout"] == "5s"
    assert data["admin"]["address"]["socket_address"]["port_value"] == 9902
    assert "/ca" in ran.out and "sni: xds.local" in ran.out


# --- check ------------------------------------------------------------------------------------------------


def test_check_says_every_problem_and_what_envoy_was_asked(run: Run) -> None:
    ran = run("check", run.mesh(WARNING, ERROR, _node()), "--envoy", envoy_path(), "-v")
    assert ran.status == 1
    assert ran.out == (
        "mesh shop: 3 proxies, 1 errors, 1 warnings; "
        f"2 of 3 proxies checked by {envoy_path()} with stand-ins for files\n"
    )
    assert ran.lines[0].endswith("mesh.json: 3 virtualNode (api)")
    assert sorted(line.split(": ")[0] for line in ran.lines[1:]) == ["error", "warning"]
    good = run("check", run.mesh(_node()), "--envoy", "off")
    assert good == (0, "mesh shop: 1 proxies, 0 errors, 0 warnings; not checked by Envoy\n", "")
    assert run("check", run.mesh(WARNING), "--envoy", "off").status == 0
    assert run("check", run.mesh(WARNING), "--envoy", "off", "--strict").status == 1


def test_check_with_real_files(run: Run) -> None:
    certificate = {"file": {"certificateChain": "/nowhere/a.crt", "privateKey": "/nowhere/a.key"}}
    mapping = {"port": 8080, "protocol": "http"}
    listener = {"portMapping": mapping, "tls": {"mode": "STRICT", "certificate": certificate}}
    path = run.mesh(_node(listeners=[listener]))
    assert run("check", path, "--envoy", envoy_path()).status == 0
    real = run("check", path, "--envoy", envoy_path(), "--real-files")
    assert real.status == 1 and "Envoy refuses virtualNode/front" in real.err and "/nowhere/a" in real.err


def test_endpoints_of_nobody_are_a_warning(run: Run) -> None:
    facts = run.file("facts.yaml", "endpoints: {fornt: [{address: 10.0.0.1}]}\n")
    ran = run("check", run.mesh(_node()), "--facts", facts, "--envoy", "off")
    assert ran.status == 0 and "$.endpoints.fornt: mesh shop has no virtual node of this name" in ran.err


# --- dev-certs, help, the process -------------------------------------------------------------------------


def test_dev_certs(run: Run) -> None:
    ran = run("dev-certs", "certs", "--name", "a.mesh.local", "--name", "b.mesh.local")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        f"certs/{name}"
        for name in ("ca.crt", "a.mesh.local.crt", "a.mesh.local.key", "b.mesh.local.crt", "b.mesh.local.key")
    ]
    assert (run.folder / "certs/a.mesh.local.key").stat().st_mode & 0o777 == 0o600
    again = run("dev-certs", "certs", "--name", "a.mesh.local")
    assert again.status == 2 and "--force" in again.err
    assert run("dev-certs", "certs", "--name", "a.mesh.local", "--force").status == 0


def test_every_command_has_help_with_an_example(run: Run) -> None:
    overview = run("--help")
    assert overview.status == 0 and "exit status: 0" in overview.out
    commands = re.findall(r"^    ([a-z-]+)(?:\s|$)", overview.out, re.MULTILINE)
    assert {"translate", "bootstrap", "check", "dev-certs"} <= set(commands)
    for command in commands:
        text = run(command, "--help").out
        assert f"example:\n  appmesh-xds {command} " in text


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"appmesh-xds {am.__version__}\n", "")


def test_as_a_process_in_another_locale(run: Run) -> None:
    path = run.mesh({**_node("größe"), "spec": {}})
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = _process("translate", str(path), env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("utf-8").startswith("# mesh/shop/virtualNode/größe\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("nodes", [1, 60])  # less than a buffer, more than a pipe takes
def test_a_reader_that_goes_away(run: Run, unbuffered: str, nodes: int) -> None:
    path = run.mesh(*(_node(f"n{i}") for i in range(nodes)))
    root = str(Path(am.__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "appmesh_xds", "translate", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None and process.stderr is not None
    if nodes > 1:
        assert process.stdout.read(10) == b"# mesh/sho"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 1


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(am.cli.translate, "translate", interrupted)
    assert run("translate", run.mesh(_node()), "--out", "out") == (130, "", "")
    assert not (run.folder / "out").exists()
