"""`--cloud-map`: where nodes in Cloud Map are found."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from ..errors import Problem, UsageError
from ..mesh import Mesh
from .outcome import seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..cloud_map import EndpointSource
    from ..server.discovery import Discovery

#: Seconds between questions to AWS.
_INTERVAL: Final = 10.0
#: A file is looked at again when it was silent for so many milliseconds: it is renamed into place, mostly.
_SILENCE: Final = 10


def add_cloud_map(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cloud map")
    group.add_argument(
        "--cloud-map",
        choices=("file", "dns", "aws"),
        help="nodes in Cloud Map whose endpoints no facts say: read a file, let proxies ask DNS, or ask AWS",
    )
    group.add_argument(
        "--cloud-map-file",
        metavar="FILE",
        help="YAML or JSON: SERVICE.NAMESPACE to instances, or answers of 'aws servicediscovery "
        "discover-instances'",
    )


def add_interval(group: argparse._ArgumentGroup) -> None:
    """For commands that ask again and again."""
    group.add_argument(
        "--cloud-map-interval",
        metavar="SECONDS",
        type=seconds(1),
        help=f"with --cloud-map aws: how often it is asked ({_INTERVAL:g})",
    )


def source_of(arguments: argparse.Namespace) -> EndpointSource | None:
    """The source of instances that the flags name. Raises UsageError for flags that do not go together."""
    kind, file = arguments.cloud_map, arguments.cloud_map_file
    if file is not None and kind != "file":
        raise UsageError("--cloud-map-file goes with --cloud-map file")
    if getattr(arguments, "cloud_map_interval", None) is not None and kind != "aws":
        raise UsageError("--cloud-map-interval goes with --cloud-map aws")
    if kind == "file":
        if file is None:
            raise UsageError("--cloud-map file needs --cloud-map-file FILE")
        from ..cloud_map.file import FileSource

        return FileSource(file)
    if kind == "aws":
        from ..cloud_map.aws import AwsSource, aws_client

        return AwsSource(aws_client())
    return None


def with_instances(mesh: Mesh, arguments: argparse.Namespace) -> tuple[Mesh, tuple[Problem, ...]]:
    """The mesh with the endpoints that the source knows now, and what there is to say of them. Raises
    SpecErrors."""
    source = source_of(arguments)
    if source is None:
        return mesh, ()
    from ..cloud_map import endpoints_of, services_of

    services = services_of(mesh)
    found = source.discover(services)
    failed = [
        Problem(resource=f"virtualNode/{node}", path="$.spec.serviceDiscovery.awsCloudMap", message=text)
        for service, text in found.failed.items()
        for node in services[service]
    ]
    problems = map(mesh.locate, failed)
    return mesh.replace(endpoints=endpoints_of(mesh, found.instances)), (*found.problems, *problems)


def due(discovery: Discovery | None, arguments: argparse.Namespace) -> AsyncIterator[None] | None:
    """When a server is to ask again."""
    from ..cloud_map.file import FileSource
    from ..server.watch import changes

    if discovery is None:
        return None
    if not isinstance(discovery.source, FileSource):
        return discovery.due(arguments.cloud_map_interval or _INTERVAL)
    path = discovery.source.path
    return changes(lambda: (path,), silence=_SILENCE) if arguments.watch else None
