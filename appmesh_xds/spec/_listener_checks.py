"""Rules for what listens: nodes, gateways, routers; TLS, health checks, timeouts, logging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ._finding import Finding, error, listed, warning
from .access_log import format_findings
from .common import Duration, LoggingFormat
from .gateway import VirtualGatewayHealthCheckPolicy, VirtualGatewayListener, VirtualGatewaySpec
from .node import HealthCheckPolicy, Listener, ListenerTls, OutlierDetection, VirtualNodeSpec
from .route import VirtualRouterListener, VirtualRouterSpec
from .types import DURATION_MAX_SECONDS

_PROTOCOLS: Final = ("http", "http2", "grpc", "tcp")
#: Health-check protocol -> listener protocols that can answer it; the others can answer on every port.
#: App Mesh: "GRPC HealthCheck requires listener type of HTTP2 or GRPC" (reference §8.2).
_HEALTH_CHECK_NEEDS: Final = {"grpc": ("http2", "grpc")}
_HEALTH_CHECK_WITH_PATH: Final = ("http", "http2")


def node(spec: VirtualNodeSpec) -> Iterator[Finding]:
    # App Mesh: "Service Discovery can't be set without a listener", and a listener needs discovery.
    if spec.listeners and spec.service_discovery is None:
        yield error(
            ".serviceDiscovery",
            "missing: a node with listeners needs service discovery",
            "add `dns` or `awsCloudMap`, so that clients find the node",
        )
    elif spec.service_discovery is not None and not spec.listeners:
        yield error(".listeners", "missing: service discovery cannot be set without a listener")
    yield from _ports(spec.listeners or ())
    yield from _duplicate_backends(spec)


def _duplicate_backends(spec: VirtualNodeSpec) -> Iterator[Finding]:
    # App Mesh took them and merged them silently (RM#170).
    first: dict[str, int] = {}
    for i, backend in enumerate(spec.backends or ()):
        if backend.virtual_service is None:
            continue
        name = backend.virtual_service.virtual_service_name
        if (earlier := first.setdefault(name, i)) != i:
            yield warning(
                f".backends[{i}]", f"the same service as backends[{earlier}]", "one of the two is enough"
            )


def gateway(spec: VirtualGatewaySpec) -> Iterator[Finding]:
    if not spec.listeners:
        yield warning(".listeners", "a gateway without a listener serves nobody")
    yield from _ports(spec.listeners)


def router(spec: VirtualRouterSpec) -> Iterator[Finding]:
    yield from _ports(spec.listeners or ())


def _ports(
    listeners: Iterable[Listener | VirtualGatewayListener | VirtualRouterListener],
) -> Iterator[Finding]:
    first: dict[int, int] = {}
    for i, listener in enumerate(listeners):
        port = listener.port_mapping.port
        if (earlier := first.setdefault(port, i)) != i:
            yield error(
                f".listeners[{i}].portMapping.port",
                f"port {port} is that of listeners[{earlier}] already",
                "one listener per port",
            )


def listener(listener: Listener | VirtualGatewayListener) -> Iterator[Finding]:
    mapping = listener.port_mapping
    if isinstance(listener, Listener):
        yield from _of_protocol(listener.timeout, ".timeout", mapping.protocol)
    yield from _of_protocol(listener.connection_pool, ".connectionPool", mapping.protocol)
    if listener.health_check is not None:
        yield from _health_check(listener.health_check, mapping.port, mapping.protocol)


def _of_protocol(union: object, at: str, protocol: str) -> Iterator[Finding]:
    for member in _PROTOCOLS:
        if member != protocol and getattr(union, member, None) is not None:
            yield error(
                f"{at}.{member}",
                f"the port speaks {protocol}, not {member}",
                f"move it to `{at[1:]}.{protocol}`",
            )


def _health_check(
    check: HealthCheckPolicy | VirtualGatewayHealthCheckPolicy, port: int, protocol: str
) -> Iterator[Finding]:
    if check.port is not None and check.port != port:
        yield error(
            ".healthCheck.port", f"must be the listener's port, {port}", "leave it out: that is the default"
        )
    needs = _HEALTH_CHECK_NEEDS.get(check.protocol)
    if needs and protocol not in needs:
        yield error(
            ".healthCheck.protocol",
            f"a {check.protocol} health check needs a listener that speaks {' or '.join(needs)}",
            f"this one speaks {protocol}",
        )
    if check.protocol not in _HEALTH_CHECK_WITH_PATH:
        if check.path is not None:
            yield warning(".healthCheck.path", f"a {check.protocol} health check has no path: it is ignored")
    elif not check.path:
        # Envoy refuses an empty one, and App Mesh's default is not known.
        yield warning(".healthCheck.path", "no path: `/` is asked for", "say which path answers with 200")
    elif not check.path.startswith("/"):
        # Envoy takes it and sends it as it stands; HTTP knows no such path.
        yield warning(".healthCheck.path", "a path starts with `/`")


def tls(tls: ListenerTls) -> Iterator[Finding]:
    if tls.mode == "DISABLED" and tls.validation is not None:
        yield warning(".validation", "mode is DISABLED: clients are not checked")


def outlier_detection(detection: OutlierDetection) -> Iterator[Finding]:
    # Envoy: "Proto constraint validation failed ... value must be greater than 0s".
    for name, duration in (
        ("interval", detection.interval),
        ("baseEjectionDuration", detection.base_ejection_duration),
    ):
        if duration.value == 0:
            yield error(f".{name}", "must be longer than 0", "Envoy takes 1 ms and more")


def duration(duration: Duration) -> Iterator[Finding]:
    if missing := [n for n in ("unit", "value") if getattr(duration, n) is None]:
        yield error(f".{missing[0]}", f"missing: a duration needs {listed(('unit', 'value'), 'and')}")
    elif duration.unit == "s" and (duration.value or 0) > DURATION_MAX_SECONDS:
        yield error(".value", f"longer than Envoy can count: at most {DURATION_MAX_SECONDS} s")


def logging_format(form: LoggingFormat) -> Iterator[Finding]:
    if form.text is not None:
        yield from format_findings(form.text, ".text")
    seen: dict[str, int] = {}
    for i, entry in enumerate(form.json or ()):
        yield from format_findings(entry.value, f".json[{i}].value")
        if (earlier := seen.setdefault(entry.key, i)) != i:
            yield warning(f".json[{i}].key", f"the same key as json[{earlier}]: the later value wins")
    if form.json == ():
        yield warning(".json", "no keys: every entry of the log is an empty object")
