"""No field of the API is silently ignored, and docs/fields.md says what each does."""

from __future__ import annotations

import pytest
from fields import NO_EFFECT, PAGE, RERUN, all_leaves, page, rows


def test_every_field_has_an_effect_or_a_reason() -> None:
    assert len(all_leaves()) == 262
    assert sorted(set(all_leaves()) - set(rows()) - set(NO_EFFECT)) == []
    assert sorted(set(rows()) & set(NO_EFFECT)) == []
    assert sorted(set(NO_EFFECT) - set(all_leaves())) == []


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), f"run: {RERUN}"


NODE = "virtualNode.spec.listeners[]"
THRESHOLDS = "Cluster.circuit_breakers.thresholds[]"
MANAGER = "Listener.filter_chains[].filters[]"
TLS = "Cluster.transport_socket.common_tls_context"
ROUTE = "RouteConfiguration.virtual_hosts[].routes[]"


@pytest.mark.parametrize(
    ("leaf", "field"),
    [
        (f"{NODE}.connectionPool.http.maxConnections", f"{THRESHOLDS}.max_connections"),
        (f"{NODE}.connectionPool.http.maxPendingRequests", f"{THRESHOLDS}.max_pending_requests"),
        (f"{NODE}.connectionPool.grpc.maxRequests", f"{THRESHOLDS}.max_requests"),
        (f"{NODE}.healthCheck.intervalMillis", "Cluster.health_checks[].interval"),
        (f"{NODE}.healthCheck.path", "Cluster.health_checks[].http_health_check.path"),
        (f"{NODE}.outlierDetection.maxServerErrors", "Cluster.outlier_detection.consecutive_5xx"),
        (f"{NODE}.timeout.http.perRequest.value", f"{ROUTE}.route.timeout"),
        (f"{NODE}.timeout.tcp.idle.value", f"{MANAGER}.idle_timeout"),
        ("virtualNode.spec.logging.accessLog.file.path", f"{MANAGER}.access_log[].path"),
        ("virtualNode.spec.serviceDiscovery.dns.responseType", "Cluster.type"),
        ("virtualNode.spec.serviceDiscovery.dns.ipPreference", "Cluster.dns_lookup_family"),
        (
            "virtualNode.spec.serviceDiscovery.awsCloudMap.attributes[].value",
            "ClusterLoadAssignment.endpoints[].lb_endpoints[].endpoint.address.socket_address.address",
        ),
        (
            "virtualNode.spec.backendDefaults.clientPolicy.tls.validation.trust.file.certificateChain",
            f"{TLS}.validation_context.trusted_ca.filename",
        ),
        (
            "virtualNode.spec.backendDefaults.clientPolicy.tls.certificate.sds.secretName",
            f"{TLS}.tls_certificate_sds_secret_configs[].name",
        ),
        ("route.spec.httpRoute.match.headers[].match.range.end", f"{ROUTE}.match.headers[].range_match.end"),
        ("route.spec.httpRoute.retryPolicy.maxRetries", f"{ROUTE}.route.retry_policy.num_retries"),
        (
            "route.spec.httpRoute.action.weightedTargets[].weight",
            f"{ROUTE}.route.weighted_clusters.clusters[].weight",
        ),
        ("gatewayRoute.spec.httpRoute.action.rewrite.prefix.value", f"{ROUTE}.route.prefix_rewrite"),
        ("gatewayRoute.spec.httpRoute.match.hostname.exact", "RouteConfiguration.virtual_hosts[].domains[]"),
    ],
)
def test_where_fields_are_known_to_land(leaf: str, field: str) -> None:
    assert field in rows()[leaf].fields
