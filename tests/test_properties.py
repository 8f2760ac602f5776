"""What holds for the translation of every mesh, without asking Envoy."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import meshes, options
from told import told

from appmesh_xds import proto
from appmesh_xds.mesh import Mesh
from appmesh_xds.names import SDS_CLUSTER
from appmesh_xds.options import Options
from appmesh_xds.resource import TYPE_URLS, content_version
from appmesh_xds.snapshot import Snapshot, translate

_quick = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def _messages(snapshot: Snapshot) -> Iterator[Any]:
    for type_url in TYPE_URLS:
        for resource in snapshot.resources(type_url):
            yield resource.message()


def _walk(message: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(message, field, value) of every field that is set, at any depth, also inside `Any`."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of_map = field.message_type.fields_by_name["value"].message_type
            values = list(value.values()) if of_map is not None else []
        for one in values:
            yield message, field, one
            if field.message_type is not None:
                yield from _walk(proto.unpack(one) if _is_any(one) else one)


def _is_any(message: Any) -> bool:
    return bool(message.DESCRIPTOR.full_name == "google.protobuf.Any")


@_quick
@given(mesh=meshes(), options=options)
def test_no_deprecated_field_is_written(mesh: Mesh, options: Options) -> None:
    for proxy in mesh.proxies():
        for message in _messages(translate(mesh, proxy, options)):
            for _, field, value in _walk(message):
                assert not field.GetOptions().deprecated, field.full_name
                if field.enum_type is not None:
                    assert not field.enum_type.values_by_number[value].GetOptions().deprecated, (
                        field.full_name
                    )


@pytest.mark.parametrize(
    ("name", "deprecated"), [("exact_match", True), ("string_match", False)], ids=["deprecated", "current"]
)
def test_the_walk_finds_deprecated_fields(name: str, deprecated: bool) -> None:
    assert proto.HeaderMatcher.DESCRIPTOR.fields_by_name[name].GetOptions().deprecated is deprecated


# --- references ---------------------------------------------------------------------------------------


def _clusters_named(snapshot: Snapshot) -> Iterator[str]:
    kinds = ("RouteAction", "TcpProxy", "ClusterWeight", "WeightedCluster.ClusterWeight", "EnvoyGrpc")
    for message in _messages(snapshot):
        for holder, field, value in _walk(message):
            of_cluster = field.name in ("cluster", "cluster_name") and holder.DESCRIPTOR.name in kinds
            if of_cluster or (field.name == "name" and holder.DESCRIPTOR.name == "ClusterWeight"):
                yield value


def _named(snapshot: Snapshot, message: str, field_name: str) -> set[str]:
    return {
        value
        for one in _messages(snapshot)
        for holder, field, value in _walk(one)
        if holder.DESCRIPTOR.name == message and field.name == field_name
    }


def _own_secrets(snapshot: Snapshot) -> dict[str, set[str]]:
    """Names of secrets that the snapshot itself must hold, by what they are asked for as."""
    found: dict[str, set[str]] = {"tls_certificate": set(), "validation_context": set()}
    for message in _messages(snapshot):
        for _, field, value in _walk(message):
            if field.message_type is None or field.message_type.name != "SdsSecretConfig":
                continue
            source = value.sds_config.WhichOneof("config_source_specifier")
            if source != "api_config_source":  # the local SDS service's are not ours
                kind = "tls_certificate" if field.name.startswith("tls_certificate") else "validation_context"
                found[kind].add(value.name)
    return found


@_quick
@given(mesh=meshes(), options=options)
def test_everything_named_is_in_the_snapshot(mesh: Mesh, options: Options) -> None:
    for proxy in mesh.proxies():
        snapshot = translate(mesh, proxy, options)
        clusters = {one.name for one in snapshot.clusters}
        assert set(_clusters_named(snapshot)) <= clusters | {SDS_CLUSTER}
        # Names of these types are asked for one by one: neither too few nor too many.
        assert _named(snapshot, "Rds", "route_config_name") == {one.name for one in snapshot.routes}
        by_eds = {one.name for one in snapshot.clusters if one.message().HasField("eds_cluster_config")}
        assert by_eds == {one.name for one in snapshot.endpoints}
        assert _own_secrets(snapshot) == {
            kind: {one.name for one in snapshot.secrets if one.message().HasField(kind)}
            for kind in ("tls_certificate", "validation_context")
        }


@_quick
@given(mesh=meshes(), options=options)
def test_names_are_unique_and_versions_are_of_the_content(mesh: Mesh, options: Options) -> None:
    for proxy in mesh.proxies():
        snapshot = translate(mesh, proxy, options)
        for type_url in TYPE_URLS:
            resources = snapshot.resources(type_url)
            found = [one.name for one in resources]
            assert found == sorted(set(found))
            assert all(one.version == content_version(one.value) for one in resources)
            assert all(one.origin for one in resources), "nothing comes from nowhere"


# --- determinism ----------------------------------------------------------------------------------------


@_quick
@given(mesh=meshes(), options=options, seed=st.integers(0, 2**32))
def test_the_order_of_resources_and_facts_does_not_matter(mesh: Mesh, options: Options, seed: int) -> None:
    shuffled = random.Random(seed)
    assert told(_rebuilt(mesh, shuffled), options) == told(mesh, options)


def _rebuilt(mesh: Mesh, shuffled: random.Random) -> Mesh:
    resources = list(mesh.resources())
    shuffled.shuffle(resources)

    def facts(given: Any) -> dict[str, Any]:
        items = list(given.items())
        shuffled.shuffle(items)
        return {
            name: shuffled.sample(fact, len(fact)) if isinstance(fact, tuple) else fact
            for name, fact in items
        }

    return Mesh.of(*resources).replace(
        certificates=facts(mesh.certificates),
        authorities=facts(mesh.authorities),
        endpoints=facts(mesh.endpoints),
    )


def test_another_process_translates_the_same() -> None:
    cases: list[tuple[Mesh, Options]] = []

    @settings(_quick, max_examples=15)
    @given(mesh=meshes(), options=options)
    def collect(mesh: Mesh, options: Options) -> None:
        cases.append((mesh, options))

    collect()
    given_ = [
        (
            list(mesh.resources()),
            {name: dict(getattr(mesh, name)) for name in ("certificates", "authorities", "endpoints")},
            options,
        )
        for mesh, options in cases
    ]
    here = [told(mesh, options) for mesh, options in cases]
    program = Path(__file__).with_name("told.py")
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(program)],
            input=pickle.dumps(given_),
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(program.parents[1])},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert pickle.loads(done.stdout) == here
