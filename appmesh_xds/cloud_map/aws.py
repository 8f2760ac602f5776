"""Instances from AWS Cloud Map itself. Needs the extra `aws`.

Credentials and region are those that boto3 finds; they must allow `servicediscovery:DiscoverInstances`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

from ..errors import Problem, UsageError
from ..facts import Endpoint
from . import CloudMapService, Found
from .answers import endpoint_of

#: Questions at a time. Cloud Map takes a thousand a second from an account.
_PARALLEL: Final = 8
#: The most that Cloud Map gives for a service; there is no second page.
_MOST: Final = 1000
#: Seconds. The poll that comes next is the retry, so that one which hangs must end.
_CONNECT, _READ, _ATTEMPTS = 2, 3, 2

_GONE: Final = ("ServiceNotFound", "NamespaceNotFound")
_THROTTLED: Final = ("RequestLimitExceeded", "ThrottlingException", "Throttling", "TooManyRequestsException")


class Client(Protocol):
    """What is used of boto3's client."""

    def discover_instances(self, **request: Any) -> Mapping[str, Any]: ...


def aws_client() -> Client:
    """boto3's client of Cloud Map. Raises `UsageError` where it cannot be made."""
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ImportError as error:
        raise UsageError(f"--cloud-map aws needs {error.name}: pip install 'appmesh-xds[aws]'") from None
    config = botocore.config.Config(
        connect_timeout=_CONNECT,
        read_timeout=_READ,
        max_pool_connections=_PARALLEL,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    try:
        client: Client = boto3.client("servicediscovery", config=config)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise UsageError(f"--cloud-map aws: {error}") from None
    return client


class _Answer(NamedTuple):
    """Of one service: its instances, or why there are none."""

    instances: tuple[Endpoint, ...] | None = None
    gone: bool = False
    problems: tuple[Problem, ...] = ()
    failed: str = ""
    busy: bool = False


class AwsSource:
    """An `EndpointSource` that asks Cloud Map about each service."""

    name = "aws"

    def __init__(self, client: Client, *, parallel: int = _PARALLEL) -> None:
        self._client = client
        self._parallel = parallel
        #: Why Cloud Map cannot be reached at all: then it is not asked about the rest.
        self._down = ""

    def discover(self, services: Collection[CloudMapService]) -> Found:
        self._down = ""
        with ThreadPoolExecutor(self._parallel, "appmesh-xds-aws") as threads:
            answers = dict(zip(services, threads.map(self._ask, services), strict=True))
        failed = {service: answer.failed for service, answer in answers.items() if answer.failed}
        return Found(
            instances={
                service: answer.instances
                for service, answer in answers.items()
                if answer.instances is not None
            },
            gone=frozenset(service for service, answer in answers.items() if answer.gone),
            failed=failed,
            problems=tuple(problem for answer in answers.values() for problem in answer.problems),
            busy=any(answer.busy for answer in answers.values()) or (0 < len(failed) == len(answers)),
        )

    def _ask(self, service: CloudMapService) -> _Answer:
        from botocore.exceptions import BotoCoreError, ClientError

        if self._down:
            return _Answer(failed=self._down, busy=True)
        try:
            answer = self._client.discover_instances(
                NamespaceName=service.namespace,
                ServiceName=service.service,
                MaxResults=_MOST,
                HealthStatus="ALL",
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _GONE:
                return _Answer(gone=True, problems=(_warning(f"AWS Cloud Map has no {service} ({code})"),))
            return _Answer(failed=str(error), busy=code in _THROTTLED)
        except BotoCoreError as error:  # no network, no credentials
            self._down = str(error)
            return _Answer(failed=self._down, busy=True)
        return _read(service, answer)


def _read(service: CloudMapService, answer: Mapping[str, Any]) -> _Answer:
    given = answer.get("Instances", ())
    instances, problems = [], []
    for one in given:
        endpoint = endpoint_of(one)
        if isinstance(endpoint, str):
            name = one.get("InstanceId", "?")
            problems.append(_warning(f"instance {name} of {service} {endpoint}; it is left out"))
        else:
            instances.append(endpoint)
    if len(given) >= _MOST:
        text = f"{service} has {_MOST} instances or more, and AWS Cloud Map names no more than these"
        problems.append(_warning(text))
    return _Answer(tuple(instances), problems=tuple(problems))


def _warning(message: str) -> Problem:
    return Problem(message=message, severity="warning", path="")
