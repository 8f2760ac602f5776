"""The same resources as envoy-data-plane dataclasses, for code bases that hold Envoy's messages that way.

A view, not a second translation: bytes and versions come from google.protobuf alone, and each resource is
parsed once per version.

    from appmesh_xds import betterproto
    view = betterproto.snapshot(am.translate(mesh, "virtualNode/a"))
    view.listeners[0].filter_chains[0].name
    am_resource = betterproto.resource(view.listeners[0])      # and back

Importing this module imports envoy-data-plane, which costs more than translating a thousand nodes. Where
betterproto2 would lose or change something silently, these functions refuse instead (ValueError): negative
lengths of time, lengths below a microsecond, truncated bytes. Its own JSON misnames
`OutlierDetection.consecutive_5xx`; `to_dict` here is right. Mind that its empty messages are falsy: ask
`source.ads is not None`, not `if source.ads`.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

import betterproto2
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    DownstreamTlsContext,
    Secret,
    UpstreamTlsContext,
)
from google.protobuf.message import DecodeError, Message

from . import proto, render
from .envoy import clusters, listeners, routes, tls
from .resource import Resource
from .snapshot import Snapshot

__all__ = [
    "SnapshotView",
    "backend_cluster",
    "certificate_secret",
    "cluster_load_assignment",
    "convert",
    "downstream_tls_context",
    "filter_chains",
    "ingress_route_configuration",
    "listener",
    "local_cluster",
    "message",
    "resource",
    "route",
    "snapshot",
    "to_dict",
    "trust_secret",
    "upstream_tls_context",
    "virtual_host",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_PACKAGE: Final = "envoy_data_plane."

#: How many parsed resources are kept, least recently used out first.
_KEPT: Final = 4096


class SnapshotView(NamedTuple):
    """A snapshot's resources as dataclasses, in its order. Shared between callers: do not change."""

    listeners: tuple[Listener, ...]
    clusters: tuple[Cluster, ...]
    routes: tuple[RouteConfiguration, ...]
    endpoints: tuple[ClusterLoadAssignment, ...]
    secrets: tuple[Secret, ...]


def snapshot(of: Snapshot) -> SnapshotView:
    """Every resource of a snapshot. Raises ValueError like `message`."""
    return SnapshotView(
        cast("tuple[Listener, ...]", _all(of.listeners)),
        cast("tuple[Cluster, ...]", _all(of.clusters)),
        cast("tuple[RouteConfiguration, ...]", _all(of.routes)),
        cast("tuple[ClusterLoadAssignment, ...]", _all(of.endpoints)),
        cast("tuple[Secret, ...]", _all(of.secrets)),
    )


def _all(resources: Iterable[Resource]) -> tuple[betterproto2.Message, ...]:
    return tuple(message(resource) for resource in resources)


@lru_cache(maxsize=_KEPT)
def message(resource: Resource) -> betterproto2.Message:
    """One resource as a dataclass; the same object for the same version. Do not change it.

    Raises ValueError when betterproto2 cannot hold the resource without loss.
    """
    return cast("betterproto2.Message", convert(resource.message()))


def convert(of: Message) -> Any:
    """Any of `appmesh_xds.proto`'s messages as the dataclass of the same name.

    Raises ValueError when betterproto2 cannot hold it without loss.
    """
    full_name = of.DESCRIPTOR.full_name
    _register()
    result = _dataclass(full_name).parse(of.SerializeToString(deterministic=True))
    try:
        kept = type(of).FromString(bytes(result)) == of
    except DecodeError:
        kept = False
    if not kept:
        raise ValueError(f"betterproto2 cannot hold this {full_name} without loss")
    return result


def resource(of: betterproto2.Message, origin: tuple[str, ...] = ()) -> Resource:
    """The way back: a listener, cluster, route configuration, load assignment or secret as a Resource.

    The version is that of the canonical bytes: equal to that of our own translation for an equal message.
    Raises TypeError for another kind of message, ValueError for values that betterproto2 would change
    silently (negative lengths of time) or that are not valid protobuf.
    """
    return Resource.of(_upb(of), origin)


def to_dict(of: betterproto2.Message) -> dict[str, Any]:
    """Canonical plain data of a dataclass, the same as `render.to_dict` of the protobuf message."""
    return render.to_dict(_upb(of))


# --- between the runtimes ---------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _register() -> None:
    """Imports every module whose messages may stand inside an `Any`: betterproto2 fails on others."""
    for full_name in proto.message_names().values():
        if full_name.startswith("envoy."):
            importlib.import_module(_PACKAGE + full_name.rpartition(".")[0])


@cache
def _dataclass(full_name: str) -> type[betterproto2.Message]:
    package, _, name = full_name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(_PACKAGE + package), name)
    except (ImportError, AttributeError):
        raise TypeError(f"envoy-data-plane has no {full_name}") from None
    return cast("type[betterproto2.Message]", cls)


def _full_name(cls: type) -> str:
    return f"{cls.__module__.removeprefix(_PACKAGE)}.{cls.__name__}"


def _upb(of: betterproto2.Message) -> Message:
    _refuse_negative(of)
    full_name = _full_name(type(of))
    try:
        return proto.message_class(full_name).FromString(bytes(of))
    except KeyError:
        raise TypeError(f"{full_name} is not a message that this library builds") from None
    except DecodeError as error:
        raise ValueError(f"not a valid {full_name}: {error}") from None


def _refuse_negative(value: object) -> None:
    """betterproto2 writes -0.5 s as +0.5 s; no length of time in Envoy's API may be negative anyway."""
    if isinstance(value, datetime.timedelta):
        if value < datetime.timedelta(0):
            raise ValueError(f"a negative length of time: {value.total_seconds()} s")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _refuse_negative(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_negative(item)
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_negative(item)


def _incoming(value: Any) -> Any:
    """Arguments may be dataclasses; the constructors take protobuf messages."""
    if isinstance(value, betterproto2.Message):
        return _upb(value)
    if isinstance(value, list | tuple) and any(isinstance(item, betterproto2.Message) for item in value):
        return [_incoming(item) for item in value]
    return value


def _outgoing(value: Any) -> Any:
    return [convert(item) for item in value] if isinstance(value, list) else convert(value)


def _view(constructor: Callable[_P, Any], returns: type[_T]) -> Callable[_P, _T]:
    """A constructor of `appmesh_xds.envoy` that takes and gives dataclasses."""

    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        given = [_incoming(value) for value in args]
        named = {name: _incoming(value) for name, value in kwargs.items()}
        return cast("_T", _outgoing(cast("Callable[..., Any]", constructor)(*given, **named)))

    call.__name__ = call.__qualname__ = constructor.__name__
    call.__doc__ = f"{returns.__name__} as a dataclass. {constructor.__doc__}"
    return call


downstream_tls_context = _view(tls.downstream_tls_context, DownstreamTlsContext)
upstream_tls_context = _view(tls.upstream_tls_context, UpstreamTlsContext)
certificate_secret = _view(tls.certificate_secret, Secret)
trust_secret = _view(tls.trust_secret, Secret)
listener = _view(listeners.listener, Listener)
filter_chains = _view(listeners.filter_chains, list[FilterChain])
local_cluster = _view(clusters.local_cluster, Cluster)
backend_cluster = _view(clusters.backend_cluster, Cluster)
cluster_load_assignment = _view(clusters.cluster_load_assignment, ClusterLoadAssignment)
ingress_route_configuration = _view(routes.ingress_route_configuration, RouteConfiguration)
virtual_host = _view(routes.virtual_host, VirtualHost)
route = _view(routes.route, Route)
