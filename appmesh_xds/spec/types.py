"""The scalar types of the App Mesh API with their bounds.

Bounds are those of the service model `appmesh/2019-01-25`. Where a bound is ours, because the value must
fit what Envoy can hold, the line says so; `BEYOND_MODEL` lists those and a test allows no others.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

UINT32_MAX: Final = 2**32 - 1
INT64_MAX: Final = 2**63 - 1
#: Envoy's durations end at 315,576,000,000 s by protobuf and at 2**63 ns inside; the smaller, rounded down.
DURATION_MAX_SECONDS: Final = 9_200_000_000

IpPreference = Literal["IPv6_PREFERRED", "IPv4_PREFERRED", "IPv4_ONLY", "IPv6_ONLY"]
EgressFilterType = Literal["ALLOW_ALL", "DROP_ALL"]
PortProtocol = Literal["http", "tcp", "http2", "grpc"]
VirtualGatewayPortProtocol = Literal["http", "http2", "grpc"]
ListenerTlsMode = Literal["STRICT", "PERMISSIVE", "DISABLED"]
DnsResponseType = Literal["LOADBALANCER", "ENDPOINTS"]
DurationUnit = Literal["s", "ms"]
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
HttpScheme = Literal["http", "https"]
TcpRetryPolicyEvent = Literal["connection-error"]
GrpcRetryPolicyEvent = Literal[
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"
]
DefaultGatewayRouteRewrite = Literal["ENABLED", "DISABLED"]

Port = Annotated[int, Meta(ge=1, le=65535)]
ResourceName = Annotated[str, Meta(min_length=1, max_length=255)]
AccountId = Annotated[str, Meta(min_length=12, max_length=12)]
FilePath = Annotated[str, Meta(min_length=1, max_length=255)]
#: Ours: not empty (Envoy refuses an empty secret name, an empty ARN resolves to nothing), and the length.
SdsSecretName = Annotated[str, Meta(min_length=1, max_length=1024)]
Arn = Annotated[str, Meta(min_length=1, max_length=2048)]
#: Ours: not empty (it becomes a domain of a virtual host, or the address of an endpoint), and the length.
ServiceName = Annotated[str, Meta(min_length=1, max_length=1024)]
Hostname = Annotated[str, Meta(min_length=1, max_length=254)]
#: Ours: at least one. An empty list would switch the check off where the author meant to restrict it.
SubjectAlternativeName = Annotated[str, Meta(min_length=1, max_length=254)]
SubjectAlternativeNameList = Annotated[tuple[SubjectAlternativeName, ...], Meta(min_length=1)]
CertificateAuthorityArns = Annotated[tuple[Arn, ...], Meta(min_length=1, max_length=3)]

#: Ours: the upper bounds of the five below, which Envoy holds in 32 bits.
MaxRequests = Annotated[int, Meta(ge=1, le=UINT32_MAX)]
MaxConnections = Annotated[int, Meta(ge=1, le=UINT32_MAX)]
MaxPendingRequests = Annotated[int, Meta(ge=1, le=UINT32_MAX)]
MaxServerErrors = Annotated[int, Meta(ge=1, le=UINT32_MAX)]
MaxRetries = Annotated[int, Meta(ge=0, le=UINT32_MAX)]

HealthCheckThreshold = Annotated[int, Meta(ge=2, le=10)]
HealthCheckIntervalMillis = Annotated[int, Meta(ge=5000, le=300000)]
HealthCheckTimeoutMillis = Annotated[int, Meta(ge=2000, le=60000)]
MaxEjectionPercent = Annotated[int, Meta(ge=0, le=100)]
#: The bound in milliseconds; a check holds seconds to `DURATION_MAX_SECONDS`.
DurationValue = Annotated[int, Meta(ge=0, le=DURATION_MAX_SECONDS * 1000)]

JsonKey = Annotated[str, Meta(min_length=1, max_length=100)]
JsonValue = Annotated[str, Meta(min_length=1, max_length=100)]
TextFormat = Annotated[str, Meta(min_length=1, max_length=1000)]
AwsCloudMapName = Annotated[str, Meta(min_length=1, max_length=1024)]
AwsCloudMapAttributeKey = Annotated[str, Meta(min_length=1, max_length=255, pattern="^[a-zA-Z0-9!-~]+$")]
AwsCloudMapAttributeValue = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        pattern="^([a-zA-Z0-9!-~][  a-zA-Z0-9!-~]*){0,1}[a-zA-Z0-9!-~]{0,1}$",
    ),
]

Priority = Annotated[int, Meta(ge=0, le=1000)]
Weight = Annotated[int, Meta(ge=0, le=100)]
HeaderName = Annotated[str, Meta(min_length=1, max_length=50)]
HeaderMatchValue = Annotated[str, Meta(min_length=1, max_length=255)]
MethodName = Annotated[str, Meta(min_length=1, max_length=50)]
HttpPathValue = Annotated[str, Meta(min_length=1, max_length=255)]
GatewayPrefix = Annotated[str, Meta(min_length=1, max_length=255)]
GatewayHostname = Annotated[str, Meta(min_length=1, max_length=253)]
#: Ours: not empty and the length; Envoy requires a name and refuses longer ones.
QueryParameterName = Annotated[str, Meta(min_length=1, max_length=1024)]
#: Ours: the length. Prefixes, paths and query values; Envoy refuses requests with more than 60 KiB of
#: headers.
RequestText = Annotated[str, Meta(max_length=60 * 1024)]
HttpRetryPolicyEvent = Annotated[str, Meta(min_length=1, max_length=25)]
#: Ours, both: `Long` in the model is 64 bits wide.
RangeBound = Annotated[int, Meta(ge=-(2**63), le=INT64_MAX)]

#: Bounds we hold and the service model does not state: the type here, and why.
BEYOND_MODEL: Final[dict[str, str]] = {
    "SdsSecretName": "Envoy refuses a secret without a name; a name is no document",
    "Arn": "an empty ARN names nothing, and AWS makes none longer than 2048",
    "ServiceName": "a virtual host's domain cannot be empty; a name is no document",
    "Hostname": "an endpoint's address cannot be empty, and DNS ends at 253 and a dot",
    "SubjectAlternativeNameList": "an empty list would switch the check off (documents, enable mutual TLS)",
    "MaxRequests": "Envoy holds it in 32 bits",
    "MaxConnections": "Envoy holds it in 32 bits",
    "MaxPendingRequests": "Envoy holds it in 32 bits",
    "MaxServerErrors": "Envoy holds it in 32 bits",
    "MaxRetries": "Envoy holds it in 32 bits",
    "DurationValue": "Envoy's clocks overflow above 9.2e9 seconds",
    "QueryParameterName": "Envoy requires a name of at most 1024 bytes",
    "RequestText": "Envoy refuses requests that are longer",
    "RangeBound": "64 bits, as the model's type says",
}
