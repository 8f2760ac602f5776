"""Templates give what the constructors give: for any texts, and in whole meshes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import meshes, options

from appmesh_xds import proto, spec
from appmesh_xds.envoy import backend, client_tls, ingress, templates
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.snapshot import translate
from appmesh_xds.translator import Translator

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks' mesh
from benchmarks import synthetic

#: Texts as names mostly are, and texts as they may be: quotes, controls, other scripts, nothing, too long.
_TEXTS = st.one_of(
    st.text("abcXYZ0189.-_/:@", min_size=1, max_size=300),
    st.text(max_size=40),
    st.sampled_from(["", " ", "a b", '"', "\\", "\u20ac", "::", "*", "placeholder0x", "\x00", "x" * 20_000]),
)

_MATCH = msgspec.convert(
    {"prefix": "/p", "headers": [{"name": "h", "match": {"exact": "v"}}]}, spec.HttpRouteMatch
)
_RETRY = msgspec.convert(
    {
        "maxRetries": 3,
        "perRetryTimeout": {"unit": "ms", "value": 250},
        "httpRetryEvents": ["gateway-error"],
    },
    spec.HttpRetryPolicy,
)
_CHECK = msgspec.convert(
    {
        "protocol": "http",
        "path": "/ping",
        "healthyThreshold": 2,
        "unhealthyThreshold": 3,
        "intervalMillis": 5000,
        "timeoutMillis": 2000,
    },
    spec.HealthCheckPolicy,
)
_PORT = spec.PortMapping(port=300, protocol="grpc")
_ROUTES = (
    backend._RouteShape(_MATCH, None, _RETRY, (1, 99)),
    backend._RouteShape(None, None, None, (0,)),
)

#: Constructor, number of texts, shape.
CASES: dict[str, tuple[Any, int, tuple[Any, ...]]] = {
    "dns cluster": (
        backend._cluster_message,
        3,
        ("STRICT_DNS", _PORT, 1, (), _CHECK, None, True, False),
    ),
    "eds cluster": (backend._cluster_message, 3, ("EDS", _PORT, 0, (), _CHECK, None, False, True)),
    "assignment": (backend._assignment_message, 3, (((80, "HEALTHY"), (65535, "UNHEALTHY")),)),
    "empty assignment": (backend._assignment_message, 1, ((),)),
    "virtual host": (backend._host_message, 4, (8080, _ROUTES, True, False)),
    "host without tags": (backend._host_message, 4, (80, _ROUTES, False, True)),
    "mutual tls": (client_tls._socket_message, 6, (True, True, True, ("h2",))),
    "plain tls": (client_tls._socket_message, 0, (False, False, False, ())),
    "local cluster": (ingress._cluster_message, 1, ("http2", "127.0.0.1", 80, None, False)),
    "ingress routes": (ingress._routes_message, 2, (80, 15_000, 0)),
}


def _built(build: Any, texts: tuple[str, ...], shape: tuple[Any, ...]) -> bytes:
    data: bytes = build(texts, *shape).SerializeToString(deterministic=True)
    return data


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_bytes_are_those_of_the_constructor(name: str, data: st.DataObject) -> None:
    build, count, shape = CASES[name]
    usual = tuple(f"name-{index}" for index in range(count))
    for _ in range(3):  # built, compiled, filled in
        assert templates.serialized(build, usual, *shape) == _built(build, usual, shape)
    texts = tuple(data.draw(_TEXTS, label=f"text {index}") for index in range(count))
    try:
        expected = _built(build, texts, shape)
    except UnicodeEncodeError:
        return
    assert templates.serialized(build, texts, *shape) == expected
    before, after = templates.serialized_around(24, build, texts, *shape)
    assert before + after == expected


def test_the_templates_are_used() -> None:
    """Otherwise the other tests compare a constructor with itself."""
    build, count, shape = CASES["virtual host"]
    texts = tuple(f"name-{index}" for index in range(count))
    key = (build, 0, count, *shape)
    for _ in range(2):
        templates.serialized(build, texts, *shape)
    template = templates._templates[key]
    assert template is not None
    assert template(*[text.encode() for text in texts]) == _built(build, texts, shape)


def _asks(texts: tuple[str, ...]) -> proto.Cluster:
    return proto.Cluster(name=texts[0], alt_stat_name="long" if len(texts[0]) > 30 else "")


def _changes(texts: tuple[str, ...]) -> proto.Cluster:
    return proto.Cluster(name=texts[0], alt_stat_name=texts[1].upper())


@pytest.mark.parametrize("build", [_asks, _changes])
def test_a_constructor_that_does_more_with_its_texts_is_refused(build: Any) -> None:
    texts = ("a", "b")
    templates.serialized(build, texts)
    with pytest.raises(ValueError, match="does more with its texts than to write them down"):
        templates.serialized(build, texts)


def test_the_memory_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_templates", {})
    monkeypatch.setattr(templates, "_SHAPES", 10)

    def build(texts: tuple[str, ...], number: int) -> proto.Cluster:
        return proto.Cluster(name=f"{texts[0]}{number}")

    for number in range(100):
        assert proto.Cluster.FromString(templates.serialized(build, ("n",), number)).name == f"n{number}"
        assert len(templates._templates) <= 10


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(mesh=meshes(), options=options)
def test_whole_meshes_are_the_same_without_templates(mesh: Mesh, options: Options) -> None:
    for proxy in mesh.proxies():
        with templates.off():
            built = translate(mesh, proxy, options)
        for _ in range(2):
            assert translate(mesh, proxy, options) == built


def test_a_large_mesh_is_the_same_without_templates() -> None:
    mesh = synthetic.mesh(30, 5, "unique")
    filled = Translator().translate_all(mesh)
    with templates.off():
        assert [translate(mesh, one.proxy) for one in filled] == filled
