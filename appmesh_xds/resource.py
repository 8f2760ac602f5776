"""Resource: one xDS resource as bytes, with its name, its version and where it came from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from . import proto

_PREFIX: Final = "type.googleapis.com/"

#: The five types a snapshot holds, in the order in which make-before-break sends them.
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
ROUTES: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
ENDPOINTS: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
TYPE_URLS: Final = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET)

TypeName = Literal["listeners", "clusters", "routes", "endpoints", "secrets"]
#: What people call the types: attributes of a snapshot, keys of its YAML, names of files.
TYPE_NAMES: Final[dict[TypeName, str]] = {
    "listeners": LISTENER,
    "clusters": CLUSTER,
    "routes": ROUTES,
    "endpoints": ENDPOINTS,
    "secrets": SECRET,
}

_NAME_FIELDS: Final = {ENDPOINTS: "cluster_name"}


def content_version(value: bytes) -> str:
    """16 hex digits of the content's hash: equal over restarts, replicas and input order."""
    return hashlib.blake2b(value, digest_size=8).hexdigest()


class Resource(Struct, frozen=True, kw_only=True, gc=False):
    """The unit that travels. Equal when type, name and bytes are equal; `origin` does not count.

    `origin` lies beside the bytes, never inside them: metadata changes would drain listeners.
    """

    type_url: str
    name: str
    #: The serialised message, deterministic.
    value: bytes
    #: `content_version(value)`.
    version: str
    #: Spec paths it was made from, `virtualNode/n $.spec.listeners[0]`, most specific first.
    origin: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: Message, origin: tuple[str, ...] = ()) -> Resource:
        """Serialises one of the five xDS messages (of any descriptor pool). TypeError for another kind."""
        type_url = _PREFIX + message.DESCRIPTOR.full_name
        if type_url not in TYPE_URLS:
            raise TypeError(f"{message.DESCRIPTOR.full_name} is not a resource that a snapshot holds")
        value = message.SerializeToString(deterministic=True)
        name: str = getattr(message, _NAME_FIELDS.get(type_url, "name"))
        return cls(type_url=type_url, name=name, value=value, version=content_version(value), origin=origin)

    def at(self, *origin: str) -> Resource:
        """The same resource with another origin; the bytes are shared."""
        return Resource(
            type_url=self.type_url, name=self.name, value=self.value, version=self.version, origin=origin
        )

    def message(self) -> Message:
        """The message, parsed, as one of `appmesh_xds.proto`'s classes."""
        from . import proto

        return proto.message_class(self.type_url[len(_PREFIX) :]).FromString(self.value)

    def to(self, cls: type[Message]) -> Message:
        """The message as an instance of `cls`, which may belong to another descriptor pool.

        Raises TypeError when `cls` is another kind of message.
        """
        if _PREFIX + cls.DESCRIPTOR.full_name != self.type_url:
            raise TypeError(f"{self.type_url} is not a {cls.DESCRIPTOR.full_name}")
        return cls.FromString(self.value)

    def any(self) -> proto.Any:
        """The message as an `Any`, as a DiscoveryResponse carries it. Nothing is encoded again."""
        from . import proto

        return proto.Any(type_url=self.type_url, value=self.value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        return self.type_url == other.type_url and self.name == other.name and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.type_url, self.version))
