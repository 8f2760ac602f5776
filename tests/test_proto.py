"""Envoy's messages from the private pool."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from appmesh_xds import proto
from appmesh_xds.resource import Resource

ROOT = Path(__file__).resolve().parent.parent


def test_every_listed_message_is_there() -> None:
    for name, full_name in proto.message_names().items():
        assert getattr(proto, name).DESCRIPTOR.full_name == full_name
    assert "Listener" in dir(proto)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="Lisener"):
        _ = proto.Lisener  # type: ignore[attr-defined]


def test_messages_pickle() -> None:
    listener = proto.Listener(name="x")
    assert pickle.loads(pickle.dumps(listener)) == listener


def test_pack_is_deterministic_and_unpack_gives_it_back() -> None:
    cluster = proto.Cluster(name="c")
    for key in "gfedcba":
        cluster.metadata.filter_metadata[key].fields["k"].number_value = 1
    again = proto.Cluster(name="c")
    for key in "abcdefg":
        again.metadata.filter_metadata[key].fields["k"].number_value = 1
    assert proto.pack(cluster).value == proto.pack(again).value
    assert proto.unpack(proto.pack(cluster)) == cluster


def test_into_refuses_another_kind() -> None:
    with pytest.raises(TypeError, match="Listener is not a envoy"):
        proto.into(proto.Listener(), proto.Cluster)


def test_resources_cross_to_other_pools() -> None:
    resource = Resource.of(proto.Cluster(name="c"))
    assert resource.to(cluster_pb2.Cluster).name == "c"
    assert Resource.of(cluster_pb2.Cluster(name="c")) == resource
    with pytest.raises(TypeError):
        resource.to(proto.Listener)
    with pytest.raises(TypeError, match="not a resource"):
        Resource.of(proto.FilterChain())


def test_versions_name_the_content() -> None:
    one, other = Resource.of(proto.Cluster(name="a")), Resource.of(proto.Cluster(name="b"))
    assert one.version != other.version
    assert one == Resource.of(proto.Cluster(name="a"), origin=("elsewhere",))
    assert len(one.version) == 16


def test_building_twice_gives_the_same_bytes() -> None:
    code = (
        "import sys; sys.path.insert(0, 'protos'); import build, hashlib; blob, stub = build.build();"
        "print(hashlib.sha256(blob + stub.encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_a_stale_descriptor_set_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "appmesh_xds"
    package.mkdir()
    for name in ("proto.py", "_envoy.bin"):
        (package / name).write_bytes((ROOT / "appmesh_xds" / name).read_bytes())
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "envoy.txt").write_text("envoy.config.listener.v3.Listener\n")
    code = f"import sys; sys.path.insert(0, {str(package)!r}); import proto; proto.Listener"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "was built from another protos/envoy.txt" in done.stderr
    assert "pip install -e ." in done.stderr


def test_the_descriptor_set_holds_the_deprecated_marks() -> None:
    options = proto.Cluster.DESCRIPTOR.fields_by_name["http2_protocol_options"].GetOptions()
    assert options.deprecated
