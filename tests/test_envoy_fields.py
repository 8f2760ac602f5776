"""What is written needs no newer Envoy than 1.22, the oldest among App Mesh's images that the design minds.

`envoy_fields.txt` lists every field, every value of an enumeration and every type that may be written. Each
was looked up before it came there: all stand in the API of August 2021, before Envoy 1.20, but for those in
`SINCE`. Before another is added: since which Envoy does it *work*? Some stand in the API long before. What
1.22 does not know needs an option, or another way to say it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from strategies import meshes, options
from test_golden import CASES, _case
from test_properties import _messages, _quick, _walk

from appmesh_xds import proto
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.snapshot import translate

REVIEWED = set((Path(__file__).parent / "envoy_fields.txt").read_text().splitlines())

#: Newer than that, and there in 1.22.
_TLS = "envoy.extensions.transport_sockets.tls.v3"
SINCE = {
    "envoy.config.cluster.v3.Cluster.dns_lookup_family=V4_PREFERRED": "1.20",  # envoyproxy/envoy#18108
    f"{_TLS}.CertificateValidationContext.match_typed_subject_alt_names": "1.21",  # its release notes
    f"{_TLS}.SubjectAltNameMatcher.matcher": "1.21",
    f"{_TLS}.SubjectAltNameMatcher.san_type": "1.21",
    f"{_TLS}.SubjectAltNameMatcher.san_type=DNS": "1.21",
    f"{_TLS}.SubjectAltNameMatcher.san_type=IP_ADDRESS": "1.21",
    f"{_TLS}.SubjectAltNameMatcher.san_type=URI": "1.21",
}
#: In the API of 1.22, and without effect there.
USELESS = {
    "envoy.config.core.v3.HeaderValueOption.append_action": "1.24",  # envoyproxy/envoy#22723
}


def written(mesh: Mesh, proxy: str, given: Options) -> set[str]:
    found: set[str] = set()
    for message in _messages(translate(mesh, proxy, given)):
        for _, field, value in _walk(message):
            if field.full_name.startswith("google.protobuf."):
                continue  # as old as protobuf
            found.add(field.full_name)
            if field.enum_type is not None:
                found.add(f"{field.full_name}={field.enum_type.values_by_number[value].name}")
            elif getattr(value, "DESCRIPTOR", None) is proto.Any.DESCRIPTOR:
                found.add(f"type {value.type_url.rpartition('/')[2]}")
    return found


@pytest.mark.parametrize("name", CASES)
def test_of_the_golden_files(name: str) -> None:
    mesh, proxies, given = _case(name)
    for delivery in ("ads", "inline"):
        shaped: Any = msgspec.structs.replace(given, delivery=delivery)
        for proxy in proxies:
            assert written(mesh, proxy, shaped) <= REVIEWED


@settings(_quick, max_examples=15)
@given(mesh=meshes(), options=options)
def test_of_anything(mesh: Mesh, options: Options) -> None:
    for proxy in mesh.proxies():
        assert written(mesh, proxy, options) <= REVIEWED


def test_the_review() -> None:
    assert set(SINCE) <= REVIEWED and not set(USELESS) & REVIEWED
    assert all(float(version) <= 1.22 for version in SINCE.values())
