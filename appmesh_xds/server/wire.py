"""Discovery messages as bytes: responses joined from resources as they are stored, requests taken apart.

Nothing is encoded again: a resource's bytes are those of its snapshot, for every client and every response.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..resource import ENDPOINTS, ROUTES, TYPE_URLS, Resource, content_version
from ..wire import field, varints
from .messages import DeltaRequest, Request

if TYPE_CHECKING:
    from google.protobuf.message import Message

    _M = TypeVar("_M", bound=Message)

#: Field numbers of DiscoveryResponse and DeltaDiscoveryResponse; the first six are the same in both.
_VERSION, _RESOURCES, _TYPE_URL, _NONCE, _REMOVED = 1, 2, 4, 5, 6
#: Of DiscoveryRequest, which has the rest in common with the response; and of DeltaDiscoveryRequest.
_REQUEST_NAMES = 3
_DELTA_REQUEST_TYPE_URL, _DELTA_REQUEST_NONCE = 2, 6
#: Of Any.
_ANY_TYPE_URL, _ANY_VALUE = 1, 2
#: Of Resource, in which a delta response wraps each resource.
_RESOURCE_VERSION, _RESOURCE_BODY, _RESOURCE_NAME = 1, 2, 3
#: `name` of RouteConfiguration and `cluster_name` of ClusterLoadAssignment.
_NAME = 1


#: How many lengths of resources are remembered, of each type.
_LENGTHS: Final = 4096
#: Fields that are written with every push.
_TYPE_OF_RESPONSE: Final = {url: field(_TYPE_URL, url.encode()) for url in TYPE_URLS}
_TYPE_OF_ANY: Final = {url: field(_ANY_TYPE_URL, url.encode()) for url in TYPE_URLS}


class _Heads(dict[int, bytes]):
    """What stands before a resource's bytes in a response: it depends on their type and length alone."""

    def __init__(self, type_url: str) -> None:
        self._before = _TYPE_OF_ANY[type_url] + varints[_ANY_VALUE << 3 | 2]

    def __missing__(self, length: int) -> bytes:
        inner = self._before + varints[length]
        made = varints[_RESOURCES << 3 | 2] + varints[len(inner) + length] + inner
        if len(self) < _LENGTHS:
            self[length] = made
        return made


_HEADS: Final = {url: _Heads(url) for url in TYPE_URLS}


def response(type_url: str, version: str, nonce: str, resources: Iterable[Resource]) -> bytes:
    """A DiscoveryResponse. The resources' bytes are copied once, into it."""
    return response_and_ack(type_url, version, nonce, resources, b"")[0]


def response_and_ack(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], names: bytes
) -> tuple[bytes, bytes]:
    """A DiscoveryResponse, and the DiscoveryRequest that acknowledges it and asks for the same as before:
    `names` is that, encoded by `encoded_names`. Protobuf's serialisers write just these bytes when the node
    is left out. All but resources and names are the same fields in both."""
    first = field(_VERSION, version.encode())
    last = _TYPE_OF_RESPONSE[type_url] + field(_NONCE, nonce.encode())
    heads, parts = _HEADS[type_url], [first]
    for resource in resources:
        value = resource.value
        parts += (heads[len(value)], value)
    parts.append(last)
    return b"".join(parts), first + names + last


def response_size(type_url: str, resources: Iterable[Resource]) -> int:
    """How many bytes a DiscoveryResponse of these resources has, give or take its nonce."""
    heads = _HEADS[type_url]
    lengths = [len(resource.value) for resource in resources]
    return (
        sum(lengths) + sum([len(heads[length]) for length in lengths]) + len(_TYPE_OF_RESPONSE[type_url]) + 24
    )


def delta_response(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str]
) -> bytes:
    """A DeltaDiscoveryResponse."""
    return b"".join(
        (
            field(_VERSION, version.encode()),
            *(field(_RESOURCES, _wrapped(resource)) for resource in resources),
            _TYPE_OF_RESPONSE[type_url],
            field(_NONCE, nonce.encode()),
            *(field(_REMOVED, name.encode()) for name in removed),
        )
    )


def encoded_names(names: Iterable[str]) -> bytes:
    """`resource_names` of a DiscoveryRequest."""
    return b"".join([field(_REQUEST_NAMES, name.encode()) for name in names])


def delta_ack(type_url: str, nonce: str) -> bytes:
    """A DeltaDiscoveryRequest that acknowledges a response and no more; see `response_and_ack`."""
    return field(_DELTA_REQUEST_TYPE_URL, type_url.encode()) + field(_DELTA_REQUEST_NONCE, nonce.encode())


def _any(resource: Resource) -> bytes:
    return _TYPE_OF_ANY[resource.type_url] + field(_ANY_VALUE, resource.value)


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
    message = _parse(_message_class("DiscoveryRequest"), data)
    return Request(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        version=message.version_info,
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
        node_id=message.node.id if message.HasField("node") else "",
    )


def delta_request(data: bytes) -> DeltaRequest:
    """A DeltaDiscoveryRequest. Raises ValueError when it is none."""
    message = _parse(_message_class("DeltaDiscoveryRequest"), data)
    return DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
        node_id=message.node.id if message.HasField("node") else "",
    )


@cache
def _message_class(name: str) -> Any:
    from .. import proto

    return getattr(proto, name)


@cache
def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


def _parse(cls: type[_M], data: bytes) -> _M:
    try:
        return cls.FromString(data)
    except _decode_error() as error:
        raise ValueError(f"not a {cls.DESCRIPTOR.name}: {error}") from None
