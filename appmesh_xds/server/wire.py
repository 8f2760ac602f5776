"""Discovery messages as bytes: responses joined from resources as they are stored, requests taken apart.

Nothing is encoded again: a resource's bytes are those of its snapshot, for every client and every response.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from ..resource import ENDPOINTS, ROUTES, Resource, content_version
from ..wire import field
from .messages import DeltaRequest, Request

if TYPE_CHECKING:
    from google.protobuf.message import Message

    _M = TypeVar("_M", bound=Message)

#: Field numbers of DiscoveryResponse and DeltaDiscoveryResponse; the first six are the same in both.
_VERSION, _RESOURCES, _TYPE_URL, _NONCE, _REMOVED = 1, 2, 4, 5, 6
#: Of Any.
_ANY_TYPE_URL, _ANY_VALUE = 1, 2
#: Of Resource, in which a delta response wraps each resource.
_RESOURCE_VERSION, _RESOURCE_BODY, _RESOURCE_NAME = 1, 2, 3
#: `name` of RouteConfiguration and `cluster_name` of ClusterLoadAssignment.
_NAME = 1


def response(type_url: str, version: str, nonce: str, resources: Iterable[Resource]) -> bytes:
    """A DiscoveryResponse."""
    return b"".join(
        (
            field(_VERSION, version.encode()),
            *(field(_RESOURCES, _any(resource)) for resource in resources),
            field(_TYPE_URL, type_url.encode()),
            field(_NONCE, nonce.encode()),
        )
    )


def delta_response(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str]
) -> bytes:
    """A DeltaDiscoveryResponse."""
    return b"".join(
        (
            field(_VERSION, version.encode()),
            *(field(_RESOURCES, _wrapped(resource)) for resource in resources),
            field(_TYPE_URL, type_url.encode()),
            field(_NONCE, nonce.encode()),
            *(field(_REMOVED, name.encode()) for name in removed),
        )
    )


def _any(resource: Resource) -> bytes:
    return field(_ANY_TYPE_URL, resource.type_url.encode()) + field(_ANY_VALUE, resource.value)


def _wrapped(resource: Resource) -> bytes:
    return (
        field(_RESOURCE_VERSION, resource.version.encode())
        + field(_RESOURCE_BODY, _any(resource))
        + field(_RESOURCE_NAME, resource.name.encode())
    )


def empty_resource(type_url: str, name: str) -> Resource | None:
    """The resource of this name that holds nothing; None for types that have no such thing."""
    if type_url not in (ENDPOINTS, ROUTES):
        return None
    value = field(_NAME, name.encode())
    return Resource(type_url=type_url, name=name, value=value, version=content_version(value))


def request(data: bytes) -> Request:
    """A DiscoveryRequest. Raises ValueError when it is none."""
    from .. import proto

    message = _parse(proto.DiscoveryRequest, data)
    return Request(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        version=message.version_info,
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
        node_id=message.node.id,
    )


def delta_request(data: bytes) -> DeltaRequest:
    """A DeltaDiscoveryRequest. Raises ValueError when it is none."""
    from .. import proto

    message = _parse(proto.DeltaDiscoveryRequest, data)
    return DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
        node_id=message.node.id,
    )


def _parse(cls: type[_M], data: bytes) -> _M:
    from google.protobuf.message import DecodeError

    try:
        return cls.FromString(data)
    except DecodeError as error:
        raise ValueError(f"not a {cls.DESCRIPTOR.name}: {error}") from None
