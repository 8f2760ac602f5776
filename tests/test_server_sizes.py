"""Responses that are too large for Google's gRPC: they are told of before an Envoy of App Mesh's images ends
its stream over one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import agent
import msgspec
import pytest
from real_envoy import Envoy, poll_until
from served import Served
from test_meshes import node
from test_server_grpc import Running
from traces import snapshot

import appmesh_xds as am
from appmesh_xds import proto, render
from appmesh_xds.bootstrap import XdsServer, ads_bootstrap
from appmesh_xds.resource import CLUSTER, ROUTES, TYPE_URLS, Resource
from appmesh_xds.server import sizes, wire
from appmesh_xds.server.messages import Connected
from appmesh_xds.server.sizes import LIMIT, Sizes
from appmesh_xds.server.source import Snapshots


def _resources(*lengths: int, url: str = CLUSTER) -> tuple[Resource, ...]:
    return tuple(
        Resource(type_url=url, name=f"r{number}", value=b"x" * length, version="v")
        for number, length in enumerate(lengths)
    )


def _proxy(name: str, *lengths: int) -> am.Snapshot:
    return am.Snapshot(mesh="m", proxy=f"virtualNode/{name}", clusters=_resources(*lengths))


@pytest.mark.parametrize("url", TYPE_URLS)
def test_the_size_is_that_of_the_response(url: str) -> None:
    dice = random.Random(url)
    for count in (0, 1, 50):
        some = _resources(*(dice.choice((1, 50, 120, 130, 20_000, 3_000_000)) for _ in range(count)), url=url)
        data = wire.response(url, "0123456789abcdef", "123", some)
        assert 0 <= wire.response_size(url, some) - len(data) <= 8


def test_what_is_too_large_is_named_and_what_did_not_change_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []
    size = sizes.response_size
    monkeypatch.setattr(sizes, "response_size", lambda url, some: looked.append(1) or size(url, some))
    small, large = _proxy("small", LIMIT - 200), _proxy("large", 10, 20, LIMIT - 60, 30, 30)
    watch = Sizes()
    watch.look([small, large])
    (problem,) = watch.problems()
    assert (problem.resource, problem.severity) == ("virtualNode/large", "warning")
    assert f"its clusters are {watch.largest} bytes" in problem.message
    assert problem.message.endswith(f"the largest: r2 ({LIMIT - 60}), r3 (30), r4 (30)")
    assert LIMIT < watch.largest < LIMIT + 500

    looked.clear()
    smaller = _proxy("large", 10, 20)
    watch.look([small, smaller])
    assert watch.problems() == [] and watch.largest == size(CLUSTER, small.clusters)
    assert len(looked) == len(TYPE_URLS), "small was looked at again"
    watch.look([])
    assert watch.largest == 0


def test_each_type_is_a_response_of_its_own() -> None:
    routes = _resources(LIMIT // 2, LIMIT // 3, url=ROUTES)
    both = msgspec.structs.replace(_proxy("n", LIMIT // 2), routes=routes)
    watch = Sizes()
    watch.look([both])
    assert watch.problems() == []


def _many_backends(count: int) -> list[dict[str, Any]]:
    """Names as long as App Mesh allows make large clusters."""
    mesh = "m" * 255
    front = node(mesh=mesh)
    services = [f"{'b' * 240}{number}" for number in range(count)]
    front["spec"]["backends"] = [{"virtualService": {"virtualServiceName": name}} for name in services]
    made = [front]
    for name in services:
        provider = {"virtualNode": {"virtualNodeName": name}}
        made += [
            node(name, mesh=mesh),
            {"meshName": mesh, "virtualServiceName": name, "spec": {"provider": provider}},
        ]
    return made


def test_the_server_warns_when_it_starts_and_when_its_files_change(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    large, small = _many_backends(2500), _many_backends(1)
    path.write_text(json.dumps(large))
    with Served(path, "--watch", log=tmp_path / "log") as server:
        warning = "virtualNode/front .*its clusters are [0-9]+ bytes, and Envoys of App Mesh's images"
        server.wait_for(f"warning: {warning}.*largest: cds_egress_m")
        path.write_text(json.dumps(small))
        server.wait_for("loaded proxies=2")
        path.write_text(json.dumps(large))
        server.wait_for("loaded proxies=2501")
        server.wait_for(f"warning problem .*{warning}")


def test_what_envoys_do_with_it(tmp_path: Path) -> None:
    """Google's client comes again and again, Envoy's own takes it."""
    cluster: Any = proto.Cluster(name="large")
    cluster.connect_timeout.seconds = 1
    cluster.metadata.filter_metadata["m"].fields["text"].string_value = "x" * LIMIT
    large = msgspec.structs.replace(snapshot(cds=""), clusters=(Resource.of(cluster),))
    watch = Sizes()
    watch.look([large])
    assert watch.problems()
    quick = {"initial_reconnect_backoff_ms": 100, "max_reconnect_backoff_ms": 200}
    taken = "cluster_manager.cds.update_success"
    with Running(Snapshots([large])) as server:
        at = f"127.0.0.1:{server.port}"
        config = agent.bootstrap(large.node_id, agent.over_unix(at, **quick), log="/dev/null")
        envoy = Envoy(config, tmp_path / "google")
        try:
            envoy.start(wait_ready=False)
            poll_until(lambda: len(server.seen(Connected)) > 2, envoy.log_text)
            assert envoy.stats(taken)[taken] == 0
            assert "config stream to 127.0.0.1" in envoy.log_text()  # closed: that is all it says
        finally:
            envoy.stop()
        told = agent.over_unix(at, max_receive_message_length=-1)
        with Envoy(agent.bootstrap(large.node_id, told, log="/dev/null"), tmp_path / "told") as envoy:
            assert envoy.stats(taken)[taken] == 1
        made = render.to_dict(ads_bootstrap("m", "virtualNode/n", XdsServer(at)))
        with Envoy(made, tmp_path / "envoy") as envoy:
            assert envoy.stats(taken)[taken] == 1
            assert envoy.log_text() == ""
