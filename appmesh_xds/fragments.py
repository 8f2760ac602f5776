"""Parts of a bootstrap as plain data: what App Mesh's images made of variables, and what users' files hold.

They are merged as the images did: tracers and tags may be said once, sinks and static resources add up, and
of the rest the last wins, which is a warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .envoy.base import is_ip
from .errors import Problem, UsageError

Data = dict[str, Any]

_TRACE: Final = "type.googleapis.com/envoy.config.trace.v3."
_UPPER: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
#: What one bootstrap has one of: the tags that are made here give way to a file's. And what adds up.
_ONCE: Final = {"tracing", "stats_config"}
_ADD_UP: Final = ("stats_sinks", "static_resources")
#: X-Ray's own default, which needs no rules.
_DEFAULT_RATE: Final = 0.05


# --- what variables mean ----------------------------------------------------------------------------------


def admin_log(path: str) -> Data:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    log = {"name": "envoy.access_loggers.file", "typed_config": {"@type": kind, "path": path}}
    return {"admin": {"access_log": [log]}}


def outlier_log(path: str) -> Data:
    return {"cluster_manager": {"outlier_detection": {"event_log_path": path}}}


def tags(mesh: str, proxy: str) -> Data:
    """Tags with the mesh and the `KIND/NAME` of the proxy, on all of its stats."""
    kind, _, name = proxy.partition("/")
    values = {"appmesh.mesh": mesh, f"appmesh.{_snake(kind)}": name}
    stats_tags = [{"tag_name": tag, "fixed_value": value} for tag, value in values.items()]
    return {"stats_config": {"stats_tags": stats_tags}}


def dog_statsd(socket: str | None, host: str, port: int) -> Data:
    udp = {"socket_address": {"protocol": "UDP", "address": host, "port_value": port}}
    kind = "type.googleapis.com/envoy.config.metrics.v3.DogStatsdSink"
    config = {"@type": kind, "address": udp if socket is None else {"pipe": {"path": socket}}}
    return {"stats_sinks": [{"name": "envoy.stat_sinks.dog_statsd", "typed_config": config}]}


def xray(
    segment: str, mesh: str, name: str, daemon: tuple[str, int], rate: float | None, manifest: str | None
) -> Data:
    host, port = daemon
    config: Data = {
        "daemon_endpoint": {"protocol": "UDP", "address": host, "port_value": port},
        "segment_name": segment,
        "segment_fields": {
            "origin": "AWS::AppMesh::Proxy",
            # X-Ray knows no gateways, and the images called them nodes.
            "aws": {"app_mesh": {"mesh_name": mesh, "virtual_node_name": name}},
        },
    }
    if manifest is not None:
        config["sampling_rule_manifest"] = {"filename": manifest}
    elif rate is not None and rate != _DEFAULT_RATE:
        rules = {"version": 2, "rules": [], "default": {"fixed_target": 1, "rate": rate}}
        config["sampling_rule_manifest"] = {"inline_string": json.dumps(rules)}
    return _traced("xray", "XRayConfig", config)


def datadog(service: str, agent: tuple[str, int]) -> Data:
    config = {"collector_cluster": "datadog_agent", "service_name": service}
    return _traced("datadog", "DatadogConfig", config) | _static("datadog_agent", *agent)


def zipkin(collector: tuple[str, int], *, json: bool) -> Data:
    config = {
        "collector_cluster": "jaeger",
        "collector_endpoint": "/api/v2/spans",
        "shared_span_context": False,
        "collector_endpoint_version": "HTTP_JSON" if json else "HTTP_PROTO",
    }
    return _traced("zipkin", "ZipkinConfig", config) | _static("jaeger", *collector)


def _traced(tracer: str, kind: str, config: Data) -> Data:
    return {
        "tracing": {
            "http": {
                "name": f"envoy.tracers.{tracer}",
                "typed_config": {"@type": f"{_TRACE}{kind}", **config},
            }
        }
    }


def _static(name: str, host: str, port: int) -> Data:
    endpoint = {"address": {"socket_address": {"address": host, "port_value": port}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    cluster = {
        "name": name,
        "type": "STATIC" if is_ip(host) else "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": assignment,
    }
    return {"static_resources": {"clusters": [cluster]}}


# --- merging ----------------------------------------------------------------------------------------------


def merge_files(bootstrap: Data, files: Iterable[tuple[str, str, Any]]) -> list[Problem]:
    """Adds what files hold: the variable that names one, its path, its content. A warning for everything that
    they take the place of.

    Raises `UsageError` for what is no part of a bootstrap, and for what may be said once and is said twice.
    """
    problems: list[Problem] = []
    once = {"tracing"} & bootstrap.keys()
    for variable, path, content in files:
        where = f"{variable}={path}"
        if not isinstance(content, dict) or not content:
            raise UsageError(f"{where}: holds no part of a bootstrap")
        said = _in_snake_case(content, where)
        if variable == "ENVOY_STATS_SINKS_CFG_FILE" and "stats_sinks" not in said:
            raise UsageError(f"{where}: holds no stats_sinks")
        for key in _ONCE & said.keys():
            if key in once:
                raise UsageError(f"{where}: {key} is there already, and cannot be twice")
            once.add(key)
        adding: Data = {key: said.pop(key) for key in _ADD_UP if key in said}
        if "static_resources" in adding:
            adding["static_resources"] = _static_resources(adding["static_resources"], where)
        for key, value in said.items():
            if key in bootstrap and key not in _ONCE:
                text = f"takes the place of {key}"
                problems.append(Problem(resource="environment", path=where, message=text, severity="warning"))
            bootstrap[key] = value
        merge(bootstrap, adding)
    return problems


def _static_resources(said: Any, where: str) -> Data:
    if not isinstance(said, dict) or not all(isinstance(value, list) for value in said.values()):
        raise UsageError(f"{where}: static_resources: expected lists of listeners, clusters or secrets")
    return _in_snake_case(said, f"{where}: static_resources")


def _in_snake_case(content: Mapping[str, Any], where: str) -> Data:
    """Keys as protobuf has them; Envoy takes both forms, and of one key only one."""
    found: Data = {}
    for key, value in content.items():
        name = _snake(str(key))
        if name in found:
            raise UsageError(f"{where}: {name} is there twice")
        found[name] = value
    return found


def _snake(text: str) -> str:
    return _UPPER.sub(r"_\1", text).lower()


def merge(there: Data, more: Mapping[str, Any]) -> None:
    """Adds to a bootstrap. Objects are merged, lists grow, the rest is replaced."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(there.get(key), dict):
            merge(there[key], value)
        elif isinstance(value, list) and isinstance(there.get(key), list):
            there[key] = [*there[key], *value]
        else:
            there[key] = value
