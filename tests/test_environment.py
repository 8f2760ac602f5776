"""`bootstrap --environment`: the variables of App Mesh's images (reference §6.3).

Each folder of `environment/` is a case: `variables.env`, files that these name, and `bootstrap.yaml`, what is
written. After a meant change: `UPDATE_GOLDEN=1 python -m pytest tests/test_environment.py`, then read it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apps import HttpApp
from clients import get
from real_envoy import Envoy, free_port, poll_until, validate
from served import Served
from test_cli import Ran, Run, run
from test_meshes import node
from test_serve import write

from appmesh_xds.environment import HONOURED, NOT_HONOURED, from_environment
from appmesh_xds.errors import UsageError

__all__ = ["run"]

FOLDER = Path(__file__).parent / "environment"
CASES = sorted(path.name for path in FOLDER.iterdir())
PAGE = Path(__file__).parent.parent / "docs" / "takeover.md"
WHO = {"APPMESH_RESOURCE_ARN": "mesh/shop/virtualNode/front", "APPMESH_XDS_ENDPOINT": "127.0.0.1:18000"}
#: What Envoy says of a tracer in a bootstrap, where App Mesh's images had it.
DEPRECATED = "Using deprecated option 'envoy.config.bootstrap.v3.Bootstrap.tracing'"

Bootstrap = Callable[..., Ran]


def variables_of(case: str) -> dict[str, str]:
    lines = (FOLDER / case / "variables.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def bootstrap(run: Run, monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    """`bootstrap(variables, *arguments)`: the command, with these variables and no other of the family."""

    def written(variables: dict[str, str], *arguments: str | Path, switch: bool = True) -> Ran:
        for name in (*HONOURED, *NOT_HONOURED):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return run("bootstrap", *(["--environment"] if switch else []), *arguments)

    return written


def read(done: Ran) -> dict[str, Any]:
    assert (done.status, done.err) == (0, "")
    made: dict[str, Any] = yaml.safe_load(done.out)
    return made


@pytest.mark.parametrize("case", CASES)
def test_what_is_written(case: str, bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER / case)
    done = bootstrap(variables_of(case))
    assert done.status == 0
    golden = FOLDER / case / "bootstrap.yaml"
    text = done.out + "".join(f"# {line}\n" for line in done.lines)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    there = golden.read_text().splitlines(True) if golden.exists() else []
    difference = "".join(difflib.unified_diff(there, text.splitlines(True), "bootstrap.yaml", "now"))
    assert not difference, difference

    accepted, said = validate(done.out)
    assert accepted, said
    traced = "tracing" in yaml.safe_load(done.out)
    warnings = [line for line in said.splitlines() if "[warning]" in line]
    assert len(warnings) == traced and all(DEPRECATED in line for line in warnings), said


def test_every_variable_has_a_case_and_a_row() -> None:
    used = {name for case in CASES for name in variables_of(case)}
    assert HONOURED.keys() - used == set()
    page = PAGE.read_text()
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|$", page, re.MULTILINE))
    assert rows == {**HONOURED, **NOT_HONOURED}


# --- who wins -----------------------------------------------------------------------------------------------


def test_nothing_is_read_without_the_switch(bootstrap: Bootstrap) -> None:
    arguments = ("--proxy", "virtualNode/front", "--mesh", "shop", "--xds", "127.0.0.1:1")
    odd = dict.fromkeys(HONOURED, "odd")
    assert read(bootstrap(odd, *arguments, switch=False)) == read(bootstrap({}, *arguments))


def test_flags_win(bootstrap: Bootstrap) -> None:
    arguments = (
        *("--proxy", "virtualGateway/edge", "--mesh", "other", "--mesh-owner", "111122223333"),
        *("--xds", "10.0.0.1:1", "--initial-fetch-timeout", "3", "--sds-socket", "/mine.sock"),
        *("--admin-address", "127.0.0.1", "--admin-port", "9901"),  # what they are without a word
    )
    variables = variables_of("identity") | {"ENVOY_ADMIN_MODE": "uds", "ENABLE_ENVOY_STATS_TAGS": "1"}
    made = read(bootstrap(variables, *arguments))
    assert made["node"] == {"id": "mesh/other@111122223333/virtualGateway/edge", "cluster": "fleet"}
    assert made["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9901}
    assert made["dynamic_resources"]["cds_config"]["initial_fetch_timeout"] == "3s"
    text = json.dumps(made["static_resources"])
    assert "10.0.0.1" in text and "/mine.sock" in text and "/run/" not in text
    tags = {tag["tag_name"]: tag.get("fixed_value") for tag in made["stats_config"]["stats_tags"]}
    assert (tags["appmesh.mesh"], tags["appmesh.virtual_gateway"]) == ("other", "edge")


def test_a_static_bootstrap(bootstrap: Bootstrap, run: Run) -> None:
    variables = variables_of("stats") | {
        "APPMESH_RESOURCE_ARN": "arn:aws:appmesh:r:1:mesh/shop/virtualNode/b"
    }
    path = run.mesh(node("a"), node("b"))
    made = read(bootstrap(variables, path, "--static"))
    assert made["node"]["id"] == variables["APPMESH_RESOURCE_ARN"]
    assert "cds_ingress_shop_b_http_8080" in json.dumps(made["static_resources"])
    assert made["stats_sinks"] and "dynamic_resources" not in made
    assert read(bootstrap(variables, path, "--static", "--proxy", "virtualNode/a"))["node"] == {
        "id": "mesh/shop/virtualNode/a",
        "cluster": "mesh/shop/virtualNode/a",
    }


# --- what is said of them -----------------------------------------------------------------------------------


def test_what_does_nothing_is_said(bootstrap: Bootstrap) -> None:
    odd = {
        "ENVOY_LOG_LEVEL": "debug",
        "APPMESH_NEW_THING": "x",
        "APPMESH_PREVIEW": "0",
        "HOME": "/",
        "PID_POLL_INTERVAL_MS": "5",
        "APPMESH_XDS_ENVOY": "/usr/bin/envoy",
        "ENVOY_CONCURRENCY": " ",
    }
    done = bootstrap(WHO | odd)
    assert done.status == 0 and done.out
    assert done.lines == [
        "warning: environment APPMESH_NEW_THING: is not known",
        "warning: environment ENVOY_LOG_LEVEL: does nothing here: it is an argument of Envoy: --log-level",
        "warning: environment PID_POLL_INTERVAL_MS: does nothing here: it is for the agent in the image, and "
        "none runs here",
    ]
    done = bootstrap(WHO | odd, "--strict")
    assert (done.status, done.out) == (1, "")


def test_tls_that_goes_missing_is_said(bootstrap: Bootstrap, tmp_path: Path) -> None:
    far = WHO | {"APPMESH_XDS_ENDPOINT": "xds.local:443"}
    text = "xds.local:443 is asked without TLS, which the images always used (give --xds-ca FILE)"
    assert bootstrap(far).lines == [f"warning: environment APPMESH_XDS_ENDPOINT: {text}"]
    read(bootstrap(far, "--xds-ca", "/ca.pem"))
    read(bootstrap(far, "--xds", "xds.local:443"))


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"APPMESH_RESOURCE_ARN": ""}, "which proxy? Say --proxy KIND/NAME, or APPMESH_RESOURCE_ARN"),
        (
            {"APPMESH_RESOURCE_ARN": "front"},
            "APPMESH_RESOURCE_ARN=front: expected mesh/MESH/virtualNode/NAME",
        ),
        (
            {"APPMESH_RESOURCE_ARN": "arn:aws:ecs:us-west-2:1:task-set/c/s/1"},
            "expected mesh/MESH/virtualNode/NAME",
        ),
        ({"APPMESH_XDS_ENDPOINT": ""}, "where is the control plane?"),
        ({"APPMESH_XDS_ENDPOINT": "http://a"}, "'http://a' is not a server address"),
        (
            {"APPMESH_XDS_ENDPOINT": "appmesh-envoy-management.us-west-2.amazonaws.com:443"},
            "AWS switched this control plane off",
        ),
        ({"ENVOY_INITIAL_FETCH_TIMEOUT": "soon"}, "ENVOY_INITIAL_FETCH_TIMEOUT=soon: expected 0 to 86400"),
        ({"ENVOY_ADMIN_ACCESS_PORT": "0"}, "ENVOY_ADMIN_ACCESS_PORT=0: expected 1 to 65535"),
        ({"ENVOY_ADMIN_MODE": "pipe"}, "ENVOY_ADMIN_MODE=pipe: expected one of tcp, uds"),
        ({"ENABLE_ENVOY_STATS_TAGS": "yes"}, "ENABLE_ENVOY_STATS_TAGS=yes: expected one of 1, t, T, TRUE"),
        ({"ENVOY_STATS_FLUSH_INTERVAL": "5"}, "ENVOY_STATS_FLUSH_INTERVAL=5: expected a time as 5000ms"),
        ({"ENVOY_STATS_FLUSH_INTERVAL": "6m"}, "ENVOY_STATS_FLUSH_INTERVAL=6m: expected a time"),
        ({"STATSD_ADDRESS": "agent.local"}, "STATSD_ADDRESS=agent.local: expected an IP address"),
        ({"XRAY_SAMPLING_RATE": "1.5"}, "XRAY_SAMPLING_RATE=1.5: expected 0 to 1"),
        (
            {"AWS_XRAY_DAEMON_ADDRESS": "xray:2000"},
            "AWS_XRAY_DAEMON_ADDRESS=xray:2000: expected an IP address",
        ),
        (
            {"ENABLE_ENVOY_XRAY_TRACING": "1", "ENABLE_ENVOY_JAEGER_TRACING": "1"},
            "ENABLE_ENVOY_XRAY_TRACING and ENABLE_ENVOY_JAEGER_TRACING: Envoy has one tracer",
        ),
        ({"ENVOY_TRACING_CFG_FILE": "gone.yaml"}, "ENVOY_TRACING_CFG_FILE=gone.yaml: cannot be read"),
    ],
)
def test_values_that_cannot_be(bootstrap: Bootstrap, variables: dict[str, str], text: str) -> None:
    done = bootstrap(WHO | variables)
    assert (done.status, done.out) == (2, "")
    assert text in done.err


def test_all_that_is_wrong_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        from_environment({"XRAY_DAEMON_PORT": "x", "STATSD_PORT": "y", "APPMESH_RESOURCE_NAME": "z"})
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("variable", "content", "text"),
    [
        ("ENVOY_TRACING_CFG_FILE", "", "holds no part of a bootstrap"),
        ("ENVOY_TRACING_CFG_FILE", "- a", "holds no part of a bootstrap"),
        ("ENVOY_TRACING_CFG_FILE", "a: [", "file.yaml:2:1 $: is not valid YAML"),
        ("ENVOY_STATS_SINKS_CFG_FILE", "a: 1", "holds no stats_sinks"),
        ("ENVOY_RESOURCES_CONFIG_FILE", "tracing: {}", "tracing is there already"),
        ("ENVOY_RESOURCES_CONFIG_FILE", "static_resources: 1", "expected lists of listeners"),
        ("ENVOY_RESOURCES_CONFIG_FILE", "statsSinks: []\nstats_sinks: []", "stats_sinks is there twice"),
    ],
)
def test_files_that_cannot_be(bootstrap: Bootstrap, run: Run, variable: str, content: str, text: str) -> None:
    path = run.file("file.yaml", content)
    done = bootstrap(WHO | {"ENABLE_ENVOY_JAEGER_TRACING": "1", variable: str(path)})
    if variable == "ENVOY_TRACING_CFG_FILE":
        assert "tracing is there" not in done.err
    assert (done.status, done.out) == (2, "")
    assert f"{variable}" in done.err and text in done.err


# --- real Envoys --------------------------------------------------------------------------------------------


@pytest.fixture
def udp() -> Iterator[Callable[[], str]]:
    """What came to the UDP port `udp.port`, as text."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        seen: list[str] = []

        def text() -> str:
            try:
                while True:
                    seen.append(bound.recv(65_536).decode(errors="replace"))
            except BlockingIOError:
                return "\n".join(seen)

        text.port = bound.getsockname()[1]  # type: ignore[attr-defined]
        yield text


def _envoy(
    bootstrap: Bootstrap, tmp_path: Path, app: HttpApp, variables: dict[str, str]
) -> tuple[Served, Envoy, int]:
    """A server and an Envoy that the environment tells of it, not started yet; and where it listens."""
    write(tmp_path / "mesh.json", node())
    port, where = free_port(), tmp_path / "xds.sock"
    shape = ("--interception", "none", "--ingress-port", str(port), "--app-port", str(app.port))
    unix = ("--listen", "off", "--unix", f"{where}=virtualNode/front")
    server = Served(tmp_path / "mesh.json", *shape, *unix, log=tmp_path / "log")
    made = bootstrap(WHO | {"APPMESH_XDS_ENDPOINT": f"unix://{where}"} | variables)
    assert made.status == 0, made.err
    return server, Envoy(made.out, tmp_path / "envoy"), port


def test_metrics_and_segments_arrive(
    bootstrap: Bootstrap, tmp_path: Path, http_app: HttpApp, udp: Any
) -> None:
    """DogStatsD with the tags of the proxy, and X-Ray, both over UDP."""
    variables = {
        "ENABLE_ENVOY_STATS_TAGS": "1",
        "ENVOY_STATS_FLUSH_INTERVAL": "100ms",
        "ENABLE_ENVOY_DOG_STATSD": "1",
        "STATSD_PORT": str(udp.port),
        "ENABLE_ENVOY_XRAY_TRACING": "1",
        "XRAY_DAEMON_PORT": str(udp.port),
        "XRAY_SAMPLING_RATE": "1",
    }
    server, envoy, port = _envoy(bootstrap, tmp_path, http_app, variables)
    with server, envoy:
        assert get(port, "/", host="front.local").status == 200
        tagged = r"envoy\.http\.downstream_rq_xx:1\|c\|#.*appmesh\.mesh:shop,appmesh\.virtual_node:front"
        poll_until(lambda: re.search(tagged, udp()), udp)
        poll_until(lambda: '"origin":"AWS::AppMesh::Proxy"' in udp(), udp)
        segment = next(line for line in udp().splitlines() if "AWS::AppMesh::Proxy" in line)
        assert json.loads(segment)["name"] == "shop/front"
        assert json.loads(segment)["aws"]["app_mesh"] == {"mesh_name": "shop", "virtual_node_name": "front"}
        assert [line for line in envoy.log_text().splitlines() if DEPRECATED not in line] == []


@pytest.mark.parametrize(
    ("tracer", "path"),
    [("JAEGER", "/api/v2/spans"), ("DATADOG", "/v0.4/traces")],
)
def test_spans_arrive(
    bootstrap: Bootstrap, tmp_path: Path, http_app: HttpApp, tracer: str, path: str
) -> None:
    with HttpApp("collector") as collector:
        variables = {f"ENABLE_ENVOY_{tracer}_TRACING": "1", f"{tracer}_TRACER_PORT": str(collector.port)}
        server, envoy, port = _envoy(bootstrap, tmp_path, http_app, variables)
        with server, envoy:
            for _ in range(6):  # five spans are sent at once, fewer after seconds
                assert get(port, "/", host="front.local").status == 200
            poll_until(
                lambda: any(one.path == path for one in collector.seen),
                lambda: f"{collector.seen} {envoy.log_text()}",
            )
