"""What Cloud Map's `DiscoverInstances` answers, read.

{"InstanceId": "i", "NamespaceName": "shop.internal", "ServiceName": "color", "HealthStatus": "HEALTHY",
 "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "8080", "version": "v1"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..facts import Endpoint
from ..readers.endpoints import ip_version

#: Attributes that Cloud Map gives a meaning, by the version of IP.
_ADDRESSES: Final = {4: "AWS_INSTANCE_IPV4", 6: "AWS_INSTANCE_IPV6"}


def endpoint_of(instance: Mapping[str, Any]) -> Endpoint | str:
    """An instance; or why it is none that a proxy could send to.

    Its port stays that of the node's listener, as in App Mesh, whatever AWS_INSTANCE_PORT says (reference
    §2.4). Without a health check the status is UNKNOWN, which is as good as HEALTHY.
    """
    given = instance.get("Attributes")
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        return "has no Attributes that map names to strings"
    addresses = []
    for version, name in _ADDRESSES.items():
        if name in given:
            if ip_version(given[name]) != version:
                return f"has an {name} that is no IPv{version} address: {given[name][:100]!r}"
            addresses.append(given[name])
    if not addresses:
        return f"has neither {' nor '.join(_ADDRESSES.values())}"
    return Endpoint(
        address=addresses[0],
        other_address=addresses[1] if len(addresses) > 1 else None,
        health="UNHEALTHY" if instance.get("HealthStatus") == "UNHEALTHY" else "HEALTHY",
        attributes=tuple(sorted((str(key), value) for key, value in given.items())),
    )
