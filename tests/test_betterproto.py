"""The view as envoy-data-plane dataclasses: the same constructors, the way back, and what is refused."""

from __future__ import annotations

import datetime
import warnings

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from strategies import meshes, options

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.cluster.v3 import Cluster, OutlierDetection
    from envoy_data_plane.envoy.config.core.v3 import AggregatedConfigSource, ConfigSource
    from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener
    from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import DownstreamTlsContext

    from appmesh_xds import betterproto

import appmesh_xds as am
from appmesh_xds import proto, render, spec
from appmesh_xds.envoy import clusters, tls
from appmesh_xds.facts import FileTrust
from appmesh_xds.resource import TYPE_NAMES, Resource

CERTIFICATE = spec.FileCertificate(certificate_chain="/c.crt", private_key="/c.key")


def test_constructors_give_what_the_others_give() -> None:
    arguments = {"certificate": CERTIFICATE, "trust": FileTrust(certificate_chain="/ca"), "alpn": ("h2",)}
    view = betterproto.downstream_tls_context(**arguments)  # type: ignore[arg-type]
    assert isinstance(view, DownstreamTlsContext)
    message = tls.downstream_tls_context(**arguments)  # type: ignore[arg-type]
    assert betterproto.to_dict(view) == render.to_dict(message)
    assert betterproto.upstream_tls_context(sni="a").sni == "a"


def test_constructors_take_dataclasses() -> None:
    chain = FilterChain(name="one")
    made = betterproto.listener(
        name="l",
        host="127.0.0.1",
        port=1,
        inbound=True,
        chains=[chain],  # type: ignore[list-item]
    )
    assert isinstance(made, Listener)
    assert [one.name for one in made.filter_chains] == ["one"]


def test_the_same_version_is_the_same_object() -> None:
    one = Resource.of(proto.Cluster(name="c"))
    assert betterproto.message(one) is betterproto.message(Resource.of(proto.Cluster(name="c")))


def test_the_way_back_gives_the_canonical_version() -> None:
    cluster = clusters.passthrough_cluster("c")
    view = betterproto.convert(cluster)
    assert betterproto.resource(view, ("somewhere",)) == Resource.of(cluster)
    assert betterproto.resource(view, ("somewhere",)).origin == ("somewhere",)


def test_only_resources_go_back() -> None:
    with pytest.raises(TypeError, match="not a resource"):
        betterproto.resource(FilterChain(name="x"))
    with pytest.raises(TypeError, match="not a resource"):
        betterproto.resource(AggregatedConfigSource())


def test_consecutive_5xx_keeps_its_name() -> None:
    cluster = proto.Cluster(name="c")
    cluster.outlier_detection.consecutive_5xx.value = 5
    view = betterproto.convert(cluster)
    # betterproto2's own JSON, which Envoy would refuse.
    assert "consecutive5Xx" in view.to_dict()["outlierDetection"]
    assert betterproto.to_dict(view)["outlier_detection"] == {"consecutive_5xx": 5}


def test_negative_times_are_refused() -> None:
    view = Cluster(name="c", connect_timeout=datetime.timedelta(seconds=-0.5))
    assert Cluster.parse(bytes(view)).connect_timeout == datetime.timedelta(seconds=0.5)
    with pytest.raises(ValueError, match="negative"):
        betterproto.resource(view)
    nested = Cluster(name="c", outlier_detection=OutlierDetection(interval=datetime.timedelta(seconds=-1)))
    with pytest.raises(ValueError, match="negative"):
        betterproto.to_dict(nested)


def test_times_below_a_microsecond_are_refused() -> None:
    cluster = proto.Cluster(name="c")
    cluster.connect_timeout.nanos = 1
    with pytest.raises(ValueError, match="without loss"):
        betterproto.message(Resource.of(cluster))


def test_every_millisecond_survives() -> None:
    for milliseconds in range(1, 4000, 7):
        cluster = proto.Cluster(name="c")
        cluster.connect_timeout.FromMilliseconds(milliseconds)
        assert betterproto.resource(betterproto.convert(cluster)) == Resource.of(cluster)


def test_truncated_bytes_are_refused() -> None:
    whole = Resource.of(proto.Cluster(name="a long name"))
    cut = Resource(type_url=whole.type_url, name=whole.name, value=whole.value[:-3], version="x")
    Cluster.parse(cut.value)  # betterproto2 says nothing
    with pytest.raises(DecodeError):
        betterproto.message(cut)


def test_maps_have_one_order() -> None:
    cluster = proto.Cluster(name="c")
    for key in "zyxwv":
        cluster.metadata.filter_metadata[key].fields["k"].number_value = 1
    assert betterproto.resource(betterproto.convert(cluster)).value == Resource.of(cluster).value


def test_empty_messages_are_falsy() -> None:
    """A trap that can only be told: the docstring of the module does."""
    source = ConfigSource(ads=AggregatedConfigSource())
    assert source.ads is not None and not source.ads
    assert "falsy" in (betterproto.__doc__ or "")


def test_an_any_of_any_kind_shows() -> None:
    listener = betterproto.convert(proto.Listener(name="l"))
    assert betterproto.to_dict(listener) == {"name": "l"}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(meshes(), options)
def test_generated_meshes_are_the_same_in_both_views(mesh: am.Mesh, chosen: am.Options) -> None:
    for proxy in mesh.proxies():
        snapshot = am.translate(mesh, proxy, chosen)
        view = betterproto.snapshot(snapshot)
        for type_url, messages in zip(TYPE_NAMES.values(), view, strict=True):
            for resource, message in zip(snapshot.resources(type_url), messages, strict=True):
                assert betterproto.to_dict(message) == render.to_dict(resource.message())
                assert betterproto.resource(message) == resource
