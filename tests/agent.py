"""The bootstrap that the agent of App Mesh's images writes, made anew for tests: every field that it sets
(aws/amazon-ecs-service-connect-agent, agent/envoy_bootstrap/envoy_bootstrap.go; reference §6.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What it switches on.
RUNTIME: Mapping[str, Any] = {
    "envoy.features.enable_all_deprecated_features": True,
    "re2.max_program_size.error_level": 1000,
    "envoy.reloadable_features.http_set_tracing_decision_in_request_id": True,
    "envoy.reloadable_features.no_extension_lookup_by_name": True,
    "envoy.reloadable_features.tcp_pool_idle_timeout": True,
    "envoy.reloadable_features.sanitize_original_path": True,
}
#: Envoys of today had these and have them no more. They complain, and run.
GONE = {name for name in RUNTIME if name.startswith("envoy.reloadable_features.")}
#: What Envoy says of such a bootstrap, which sets no limit of connections.
WARNING = "There is no configured limit to the number of allowed active downstream connections."

#: What it says of the machine. The server needs none of it, and must not mind it.
METADATA: Mapping[str, Any] = {
    "aws.appmesh.task.interfaces": {"ipv4": {"lo": ["127.0.0.1/8"]}, "ipv6": {"lo": ["::1/128"]}},
    "aws.appmesh.platformInfo": {
        "AvailabilityZone": "us-west-2a",
        "AvailabilityZoneID": "usw2-az1",
        "ecsPlatformInfo": {"ecsLaunchType": "FARGATE", "ecsClusterArn": "arn:aws:ecs:us-west-2:1:cluster/c"},
        "supportedIPFamilies": "ALL",
        "systemInfo": {"systemPlatform": "x86_64", "systemKernelVersion": "5.10"},
    },
}

_TAGS = {
    "appmesh.listener_protocol": r".*?\.ingress\.((\w+?)\.)[0-9]+?\.(.+?)$",
    "appmesh.listener_port": r".*?\.ingress\.\w+?\.(([0-9]+?)\.)(.+?)$",
    "envoy_rds_route_config": r".*?\.ingress\.\w+?\.[0-9]+?\.rds\.((.*?)\.)(.+?)$",
}


def over_unix(endpoint: str, **arguments: int) -> dict[str, Any]:
    """The gRPC service for `APPMESH_XDS_ENDPOINT=unix://PATH`; `arguments` replace some of the channel's."""
    return {
        "google_grpc": {"stat_prefix": "ads", "target_uri": endpoint, "channel_args": _channel(arguments)}
    }


def over_tls(endpoint: str, authority: str, call: Mapping[str, Any], **arguments: int) -> dict[str, Any]:
    """The gRPC service for `APPMESH_XDS_ENDPOINT=HOST:PORT`. The images trust the system's authorities, and
    sign with `envoy.grpc_credentials.aws_iam`; here stands what `call` says, see `from_plugin`."""
    service = over_unix(endpoint, **arguments)
    service["google_grpc"] |= {
        "channel_credentials": {"ssl_credentials": {"root_certs": {"filename": authority}}},
        "credentials_factory_name": call["name"],
        "call_credentials": [{"from_plugin": call}],
    }
    return service


def plugin(name: str, **config: Any) -> dict[str, Any]:
    """One of Envoy's `grpc_credentials`, with its configuration."""
    kind = "".join(word.capitalize() for word in name.split("_"))
    url = f"type.googleapis.com/envoy.config.grpc_credential.v3.{kind}Config"
    return {"name": f"envoy.grpc_credentials.{name}", "typed_config": {"@type": url, **config}}


def _channel(arguments: Mapping[str, int]) -> dict[str, Any]:
    values = {
        "http2.max_pings_without_data": 0,
        "keepalive_time_ms": 10_000,
        "keepalive_timeout_ms": 20_000,
        "initial_reconnect_backoff_ms": 10_000,
        "max_reconnect_backoff_ms": 10_000,
        **arguments,
    }
    return {"args": {f"grpc.{name}": {"int_value": str(value)} for name, value in values.items()}}


def bootstrap(
    node: str,
    service: Mapping[str, Any],
    *,
    log: str,
    admin: Mapping[str, Any] | None = None,
    runtime: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`node` is what `APPMESH_RESOURCE_ARN` holds, `log` the file for admin requests. Without `runtime` what
    Envoy does not know any more is left out."""
    source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    file = {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": log}
    flags = (
        {name: value for name, value in RUNTIME.items() if name not in GONE} if runtime is None else runtime
    )
    return {
        "node": {"id": node, "cluster": node, "metadata": METADATA},
        "admin": {
            "access_log": [{"typed_config": file}],
            "address": admin or {"socket_address": {"address": "0.0.0.0", "port_value": 9901}},
        },
        "layered_runtime": {
            "layers": [
                {"name": "static_layer_0", "static_layer": flags},
                {"name": "admin_layer", "admin_layer": {}},
            ]
        },
        "cluster_manager": {"outlier_detection": {"event_log_path": "/dev/stdout"}},
        "dynamic_resources": {
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]},
            "lds_config": source,
            "cds_config": source,
        },
        "stats_config": {"stats_tags": [{"tag_name": tag, "regex": regex} for tag, regex in _TAGS.items()]},
    }
