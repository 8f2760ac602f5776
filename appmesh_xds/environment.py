"""The environment variables of App Mesh's images, as far as a bootstrap has to do with them (reference §6.3).

    environment = from_environment(os.environ)       # nothing else reads them
    environment.identity, environment.xds, ...       # what stands in a bootstrap of its own accord
    environment.fragments                            # what is added to it, see `fragments`

Tables say what becomes of each: `HONOURED`, and `NOT_HONOURED` with the reason. docs/takeover.md has both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct

from . import fragments
from .envoy.base import is_ip
from .errors import Problem, UsageError
from .fragments import Data

_T = TypeVar("_T")

#: What each of these does to a bootstrap.
HONOURED: Final[Mapping[str, str]] = {
    "APPMESH_RESOURCE_ARN": "the proxy, and its node id word for word",
    "APPMESH_RESOURCE_NAME": "the same, without an ARN",
    "APPMESH_VIRTUAL_NODE_NAME": "the same, of old",
    "APPMESH_RESOURCE_CLUSTER": "`node.cluster`, instead of the node id",
    "APPMESH_VIRTUAL_NODE_CLUSTER": "the same, of old",
    "APPMESH_XDS_ENDPOINT": "`--xds`",
    "ENVOY_INITIAL_FETCH_TIMEOUT": "`--initial-fetch-timeout`",
    "APPMESH_SDS_SOCKET_PATH": "`--sds-socket`",
    "ENVOY_ADMIN_ACCESS_PORT": "`--admin-port`",
    "ENVOY_ADMIN_ACCESS_ENABLE_IPV6": "the admin endpoint on `::1` instead of `127.0.0.1`",
    "ENVOY_ADMIN_MODE": "`uds`: the admin endpoint on `/tmp/envoy_admin.sock`, mode 0600",
    "ENVOY_ADMIN_ACCESS_LOG_FILE": "a log of the admin endpoint; without it there is none",
    "ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH": "a log of ejected hosts; without it there is none",
    "ENABLE_ENVOY_STATS_TAGS": "tags `appmesh.mesh` and `appmesh.virtual_node` or `appmesh.virtual_gateway`",
    "ENVOY_STATS_FLUSH_INTERVAL": "`stats_flush_interval`",
    "ENABLE_ENVOY_DOG_STATSD": "a DogStatsD sink",
    "STATSD_ADDRESS": "where it sends to (127.0.0.1)",
    "STATSD_PORT": "its port (8125)",
    "STATSD_SOCKET_PATH": "its unix socket, instead of these",
    "ENABLE_ENVOY_XRAY_TRACING": "X-Ray as the tracer",
    "AWS_XRAY_DAEMON_ADDRESS": "the daemon, with or without a port (127.0.0.1)",
    "XRAY_DAEMON_PORT": "its port (2000)",
    "XRAY_SEGMENT_NAME": "name of segments (`MESH/NAME`)",
    "XRAY_SAMPLING_RATE": "what part is sampled (0.05)",
    "XRAY_SAMPLING_RULE_MANIFEST": "a file of rules, which Envoy reads, instead of the rate",
    "ENABLE_ENVOY_DATADOG_TRACING": "Datadog as the tracer",
    "DATADOG_TRACER_ADDRESS": "its agent (127.0.0.1)",
    "DATADOG_TRACER_PORT": "its port (8126)",
    "DD_SERVICE": "name of the service (`envoy-MESH/NAME`)",
    "ENABLE_ENVOY_JAEGER_TRACING": "a collector of Zipkin spans as the tracer",
    "JAEGER_TRACER_ADDRESS": "the collector (127.0.0.1)",
    "JAEGER_TRACER_PORT": "its port (9411)",
    "JAEGER_TRACER_VERSION": "`JSON`, or else `PROTO`",
    "ENVOY_TRACING_CFG_FILE": "a file with `tracing`, instead of the tracers above",
    "ENVOY_STATS_CONFIG_FILE": "a file with `stats_config`, instead of every tag",
    "ENVOY_STATS_SINKS_CFG_FILE": "a file with `stats_sinks`, instead of DogStatsD",
    "ENVOY_RESOURCES_CONFIG_FILE": "a file with anything of a bootstrap, above all `static_resources`",
}

_AWS_CONTROL_PLANE: Final = "it chose among AWS's control planes, which are gone"
_FLAG: Final = "it set a flag that Envoy has no more"
_AGENT: Final = "it is for the agent in the image, and none runs here"
_IPTABLES: Final = "it is for what sets up iptables"

#: Why these do nothing here.
NOT_HONOURED: Final[Mapping[str, str]] = {
    "ENVOY_CONFIG_FILE": "it is a bootstrap: give it to Envoy as it is",
    "ENVOY_LOG_LEVEL": "it is an argument of Envoy: --log-level",
    "ENVOY_CONCURRENCY": "it is an argument of Envoy: --concurrency",
    "DISABLE_HOT_RESTART": "it is an argument of Envoy: --disable-hot-restart",
    "APPMESH_SIGNING_NAME": "nothing is signed",
    "ENVOY_USE_HTTP_CLIENT_TO_FETCH_AWS_CREDENTIALS": "nothing is signed",
    "APPMESH_PREVIEW": _AWS_CONTROL_PLANE,
    "APPMESH_DUALSTACK_ENDPOINT": _AWS_CONTROL_PLANE,
    "APPMESH_FIPS_ENDPOINT": _AWS_CONTROL_PLANE,
    "APPMESH_SET_TRACING_DECISION": _FLAG,
    "ENVOY_NO_EXTENSION_LOOKUP_BY_NAME": _FLAG,
    "ENVOY_ENABLE_TCP_POOL_IDLE_TIMEOUT": _FLAG,
    "ENVOY_SANITIZE_ORIGINAL_PATH": _FLAG,
    "APPMESH_METRIC_EXTENSION_VERSION": "it needs the metrics extension of AWS's own Envoy",
    "APPMESH_PLATFORM_K8S_VERSION": "it was told to AWS",
    "APPMESH_PLATFORM_K8S_POD_UID": "it was told to AWS",
    "APPMESH_PLATFORM_APP_MESH_CONTROLLER_VERSION": "it was told to AWS",
    "PID_POLL_INTERVAL_MS": _AGENT,
    "HC_POLL_INTERVAL_MS": _AGENT,
    "HC_DISCONNECTED_TIMEOUT_S": _AGENT,
    "LISTENER_DRAIN_WAIT_TIME_S": _AGENT,
    "APPNET_ENVOY_RESTART_COUNT": _AGENT,
    "APPNET_AGENT_ADMIN_MODE": _AGENT,
    "APPNET_AGENT_ADMIN_UDS_PATH": _AGENT,
    "APPNET_AGENT_HTTP_PORT": _AGENT,
    "APPNET_AGENT_HTTP_BIND_ADDRESS": _AGENT,
    "APPMESH_START_ENABLED": _IPTABLES,
    "APPMESH_IGNORE_UID": _IPTABLES,
    "APPMESH_ENVOY_INGRESS_PORT": _IPTABLES,
    "APPMESH_ENVOY_EGRESS_PORT": _IPTABLES,
    "APPMESH_APP_PORTS": _IPTABLES,
    "APPMESH_EGRESS_IGNORED_IP": _IPTABLES,
    "APPMESH_EGRESS_IGNORED_PORTS": _IPTABLES,
    "APPMESH_ENABLE_IPV6": _IPTABLES,
}

#: What begins so is meant for the images, known or not.
_FAMILY: Final = (
    "APPMESH_",
    "APPNET_",
    "ENVOY_",
    "ENABLE_ENVOY_",
    "XRAY_",
    "DATADOG_TRACER_",
    "JAEGER_TRACER_",
)
#: Read by this library, not by the images.
_OURS: Final = ("APPMESH_XDS_ENVOY", "APPMESH_XDS_DEPTH", "APPMESH_XDS_CORPUS")
_FILES: Final = tuple(name for name in HONOURED if name.endswith(("_CFG_FILE", "_CONFIG_FILE")))
#: As Go reads booleans.
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False")
_NODE: Final = re.compile(r"mesh/([^/@]+)(?:@([^/]+))?/(virtualNode|virtualGateway)/(.+)", re.DOTALL)
#: `1m30s`, `500ms`: as Go reads durations, in milliseconds.
_UNITS: Final = {"ms": 1.0, "s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ms|s|m|h)")
_AWS: Final = re.compile(r"appmesh(-preview)?-envoy-management(-fips)?\.")
_ADMIN_SOCKET: Final = "/tmp/envoy_admin.sock"


class Identity(NamedTuple):
    """Who the proxy is."""

    node_id: str
    mesh: str
    owner: str | None
    #: `KIND/NAME`
    proxy: str


class Environment(Struct, frozen=True, kw_only=True):
    """What the variables say. None: nothing."""

    identity: Identity | None = None
    cluster: str | None = None
    xds: str | None = None
    initial_fetch_timeout: float | None = None
    sds_socket: str | None = None
    admin_address: str | None = None
    admin_port: int | None = None
    #: Path of the admin endpoint's unix socket.
    admin_socket: str | None = None
    fragments: tuple[Data, ...] = ()
    #: Variables that name files with fragments, each with its path, in the order in which they are added.
    files: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()


def from_environment(variables: Mapping[str, str], identity: Identity | None = None) -> Environment:
    """Reads them; those of other programs are passed over. `problems` names those that do nothing here.

    `identity` wins over what they say. Raises `UsageError` for values that cannot be, all at once.
    """
    read = _Reader(variables)
    if identity is None:
        names = ("APPMESH_RESOURCE_ARN", "APPMESH_RESOURCE_NAME", "APPMESH_VIRTUAL_NODE_NAME")
        there = next((name for name in names if name in read.given), None)
        identity = None if there is None else read.get(there, _identity)
    cluster = read.text("APPMESH_RESOURCE_CLUSTER") or read.text("APPMESH_VIRTUAL_NODE_CLUSTER")
    result = Environment(
        identity=identity,
        cluster=cluster,
        xds=read.get("APPMESH_XDS_ENDPOINT", _endpoint),
        initial_fetch_timeout=read.get("ENVOY_INITIAL_FETCH_TIMEOUT", _number(0, 86_400)),
        sds_socket=read.text("APPMESH_SDS_SOCKET_PATH"),
        admin_address="::1" if read.truth("ENVOY_ADMIN_ACCESS_ENABLE_IPV6") else None,
        admin_port=read.get("ENVOY_ADMIN_ACCESS_PORT", _number(1, 65_535)),
        admin_socket=read.get("ENVOY_ADMIN_MODE", _admin_mode),
        fragments=_fragments(read, identity),
        files=tuple((name, path) for name in _FILES if (path := read.text(name))),
        problems=tuple(_unused(read.given)),
    )
    if read.wrong:
        raise UsageError("\n".join(read.wrong))
    return result


def _fragments(read: _Reader, identity: Identity | None) -> tuple[Data, ...]:
    """What is added to a bootstrap. Files win over what they are in place of."""
    made: list[Data] = []
    for variable, build in (
        ("ENVOY_ADMIN_ACCESS_LOG_FILE", fragments.admin_log),
        ("ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH", fragments.outlier_log),
    ):
        if path := read.text(variable):
            made.append(build(path))
    interval = read.get("ENVOY_STATS_FLUSH_INTERVAL", _duration)
    if interval is not None:
        made.append({"stats_flush_interval": f"{interval / 1000:g}s"})
    if read.truth("ENABLE_ENVOY_STATS_TAGS") and not read.text("ENVOY_STATS_CONFIG_FILE") and identity:
        made.append(fragments.tags(identity.mesh, identity.proxy))
    socket = read.text("STATSD_SOCKET_PATH")
    host = read.get("STATSD_ADDRESS", _ip) or "127.0.0.1"
    port = read.get("STATSD_PORT", _number(1, 65_535)) or 8125
    if read.truth("ENABLE_ENVOY_DOG_STATSD") and not read.text("ENVOY_STATS_SINKS_CFG_FILE"):
        made.append(fragments.dog_statsd(socket, host, port))
    tracer = _tracer(read, identity)
    if tracer is not None and not read.text("ENVOY_TRACING_CFG_FILE"):
        made.append(tracer)
    return tuple(made)


def _tracer(read: _Reader, identity: Identity | None) -> Data | None:
    daemon = read.get("AWS_XRAY_DAEMON_ADDRESS", _daemon) or ("127.0.0.1", None)
    ports = {
        name: read.get(name, _number(1, 65_535)) or default
        for name, default in (
            ("XRAY_DAEMON_PORT", 2000),
            ("DATADOG_TRACER_PORT", 8126),
            ("JAEGER_TRACER_PORT", 9411),
        )
    }
    rate, manifest = read.get("XRAY_SAMPLING_RATE", _rate), read.text("XRAY_SAMPLING_RULE_MANIFEST")
    json = "json" in (read.text("JAEGER_TRACER_VERSION") or "").lower()
    mesh, name = ("", "") if identity is None else (identity.mesh, identity.proxy.partition("/")[2])
    wanted = [
        variable
        for variable in (
            "ENABLE_ENVOY_XRAY_TRACING",
            "ENABLE_ENVOY_DATADOG_TRACING",
            "ENABLE_ENVOY_JAEGER_TRACING",
        )
        if read.truth(variable)
    ]
    if len(wanted) > 1:
        read.wrong.append(f"{' and '.join(wanted)}: Envoy has one tracer")
    match wanted[:1]:
        case ["ENABLE_ENVOY_XRAY_TRACING"]:
            segment = read.text("XRAY_SEGMENT_NAME") or f"{mesh}/{name}"
            where = daemon[0], daemon[1] or ports["XRAY_DAEMON_PORT"]
            return fragments.xray(segment, mesh, name, where, rate, manifest)
        case ["ENABLE_ENVOY_DATADOG_TRACING"]:
            service = read.text("DD_SERVICE") or f"envoy-{mesh}/{name}"
            where = read.text("DATADOG_TRACER_ADDRESS") or "127.0.0.1", ports["DATADOG_TRACER_PORT"]
            return fragments.datadog(service, where)
        case ["ENABLE_ENVOY_JAEGER_TRACING"]:
            where = read.text("JAEGER_TRACER_ADDRESS") or "127.0.0.1", ports["JAEGER_TRACER_PORT"]
            return fragments.zipkin(where, json=json)
    return None


def _unused(given: Mapping[str, str]) -> list[Problem]:
    """A warning for each that does nothing."""
    found = []
    for name in sorted(given):
        reason = NOT_HONOURED.get(name)
        if reason is None and (name in HONOURED or name in _OURS or not name.startswith(_FAMILY)):
            continue
        if given[name] in _FALSE:
            continue  # it asks for nothing
        text = "is not known" if reason is None else f"does nothing here: {reason}"
        found.append(Problem(resource="environment", path=name, message=text, severity="warning"))
    return found


# --- values -----------------------------------------------------------------------------------------------


class _Reader:
    """Values without the space around them; empty ones are not there. `wrong` collects what cannot be."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.given = {name: value.strip() for name, value in variables.items() if value.strip()}
        self.wrong: list[str] = []

    def text(self, name: str) -> str | None:
        assert name in HONOURED, name
        return self.given.get(name)

    def get(self, name: str, how: Callable[[str], _T]) -> _T | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return how(text)
        except ValueError as error:
            line = f"{name}={text}: {error}"
            if line not in self.wrong:
                self.wrong.append(line)
            return None

    def truth(self, name: str) -> bool:
        return self.get(name, _one_of(*_TRUE, *_FALSE)) in _TRUE


def _identity(text: str) -> Identity:
    read = _NODE.fullmatch(text.split(":", 5)[-1] if text.startswith("arn:") else text)
    if read is None:
        raise ValueError("expected mesh/MESH/virtualNode/NAME or virtualGateway, or an ARN that ends so")
    return Identity(text, read[1], read[2], f"{read[3]}/{read[4]}")


def _endpoint(text: str) -> str:
    if _AWS.match(text):
        raise ValueError("AWS switched this control plane off")
    return text


def _admin_mode(text: str) -> str | None:
    """The unix socket, if it is one."""
    return _ADMIN_SOCKET if _one_of("tcp", "uds")(text.lower()) == "uds" else None


def _one_of(*values: str) -> Callable[[str], str]:
    def how(text: str) -> str:
        if text not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return text

    return how


def _number(least: int, most: int) -> Callable[[str], int]:
    def how(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"expected {least} to {most}")
        return int(text)

    return how


def _ip(text: str) -> str:
    if not is_ip(text):
        raise ValueError("expected an IP address")
    return text


def _daemon(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if is_ip(text) or not colon:
        return _ip(text), None
    return _ip(host.strip("[]")), _number(1, 65_535)(port)


def _rate(text: str) -> float:
    if not re.fullmatch(r"(0?\.[0-9]+|[01](\.[0-9]*)?)", text) or float(text) > 1:
        raise ValueError("expected 0 to 1")
    return round(float(text), 2)


def _duration(text: str) -> float:
    parts = _DURATION.findall(text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    # Envoy takes a millisecond to five minutes.
    if "".join(number + unit for number, unit in parts) != text or not 1 <= total <= 300_000:
        raise ValueError("expected a time as 5000ms or 1m30s, of 1ms to 5m")
    return total
