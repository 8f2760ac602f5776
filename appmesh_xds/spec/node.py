"""Virtual nodes."""

from __future__ import annotations

from ._base import Spec
from .common import (
    BackendDefaults,
    ClientPolicy,
    Duration,
    ListenerTlsCertificate,
    ListenerTlsValidationContext,
    Logging,
)
from .types import (
    AwsCloudMapAttributeKey,
    AwsCloudMapAttributeValue,
    AwsCloudMapName,
    DnsResponseType,
    HealthCheckIntervalMillis,
    HealthCheckThreshold,
    HealthCheckTimeoutMillis,
    Hostname,
    IpPreference,
    ListenerTlsMode,
    MaxConnections,
    MaxEjectionPercent,
    MaxPendingRequests,
    MaxRequests,
    MaxServerErrors,
    Port,
    PortProtocol,
    RequestText,
    ServiceName,
)


class PortMapping(Spec, frozen=True, kw_only=True):
    port: Port
    protocol: PortProtocol


class ListenerTls(Spec, frozen=True, kw_only=True):
    """TLS of a listener. The certificate is required by the API even with DISABLED."""

    mode: ListenerTlsMode
    certificate: ListenerTlsCertificate
    validation: ListenerTlsValidationContext | None = None


class HealthCheckPolicy(Spec, frozen=True, kw_only=True):
    """Active health check, run by every client of the node. `path` counts for http and http2 only."""

    protocol: PortProtocol
    healthy_threshold: HealthCheckThreshold
    unhealthy_threshold: HealthCheckThreshold
    interval_millis: HealthCheckIntervalMillis
    timeout_millis: HealthCheckTimeoutMillis
    path: RequestText | None = None
    port: Port | None = None


class OutlierDetection(Spec, frozen=True, kw_only=True):
    """Passive health check, run by every client of the node."""

    base_ejection_duration: Duration
    interval: Duration
    max_ejection_percent: MaxEjectionPercent
    max_server_errors: MaxServerErrors


class HttpTimeout(Spec, frozen=True, kw_only=True):
    """`perRequest` and `idle`, for http, http2 and grpc. 0 switches the timeout off."""

    idle: Duration | None = None
    per_request: Duration | None = None


class TcpTimeout(Spec, frozen=True, kw_only=True):
    idle: Duration | None = None


class ListenerTimeout(Spec, frozen=True, kw_only=True):
    """Union: exactly one member, that of the listener's protocol."""

    grpc: HttpTimeout | None = None
    http: HttpTimeout | None = None
    http2: HttpTimeout | None = None
    tcp: TcpTimeout | None = None


class HttpConnectionPool(Spec, frozen=True, kw_only=True):
    max_connections: MaxConnections
    max_pending_requests: MaxPendingRequests | None = None


class RequestConnectionPool(Spec, frozen=True, kw_only=True):
    """For http2 and grpc, where one connection carries many requests."""

    max_requests: MaxRequests


class TcpConnectionPool(Spec, frozen=True, kw_only=True):
    max_connections: MaxConnections


class ConnectionPool(Spec, frozen=True, kw_only=True):
    """Union: exactly one member, that of the listener's protocol."""

    grpc: RequestConnectionPool | None = None
    http: HttpConnectionPool | None = None
    http2: RequestConnectionPool | None = None
    tcp: TcpConnectionPool | None = None


class Listener(Spec, frozen=True, kw_only=True):
    port_mapping: PortMapping
    connection_pool: ConnectionPool | None = None
    health_check: HealthCheckPolicy | None = None
    outlier_detection: OutlierDetection | None = None
    timeout: ListenerTimeout | None = None
    tls: ListenerTls | None = None


class AwsCloudMapInstanceAttribute(Spec, frozen=True, kw_only=True):
    key: AwsCloudMapAttributeKey
    value: AwsCloudMapAttributeValue


class AwsCloudMapServiceDiscovery(Spec, frozen=True, kw_only=True):
    """Instances registered in Cloud Map; all `attributes` must match. Facts hold the endpoints."""

    namespace_name: AwsCloudMapName
    service_name: AwsCloudMapName
    attributes: tuple[AwsCloudMapInstanceAttribute, ...] | None = None
    ip_preference: IpPreference | None = None


class DnsServiceDiscovery(Spec, frozen=True, kw_only=True):
    """A host name. LOADBALANCER (the default) uses one address at a time, ENDPOINTS all of them."""

    hostname: Hostname
    ip_preference: IpPreference | None = None
    response_type: DnsResponseType | None = None


class ServiceDiscovery(Spec, frozen=True, kw_only=True):
    """Union: exactly one member."""

    aws_cloud_map: AwsCloudMapServiceDiscovery | None = None
    dns: DnsServiceDiscovery | None = None


class VirtualServiceBackend(Spec, frozen=True, kw_only=True):
    virtual_service_name: ServiceName
    client_policy: ClientPolicy | None = None


class Backend(Spec, frozen=True, kw_only=True):
    """Union: exactly one member (of one)."""

    virtual_service: VirtualServiceBackend | None = None


class VirtualNodeSpec(Spec, frozen=True, kw_only=True):
    backend_defaults: BackendDefaults | None = None
    backends: tuple[Backend, ...] | None = None
    listeners: tuple[Listener, ...] | None = None
    logging: Logging | None = None
    service_discovery: ServiceDiscovery | None = None
