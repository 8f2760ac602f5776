"""Files that others wrote, in every dialect: each loads or says what is wrong, and Envoy takes what loads.

The files lie outside the project (see test_corpus.py); without them these tests skip.
"""

from __future__ import annotations

import csv
import json
import re
from functools import cache
from typing import Any

import pytest
from oracle import Oracle
from test_corpus import CORPUS

import appmesh_xds as am
from appmesh_xds.errors import errors_in
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.options import Options
from appmesh_xds.readers import Reading, read
from appmesh_xds.resource import TYPE_NAMES
from appmesh_xds.translator import Translator
from appmesh_xds.writers import Dialect, convert

_ARN = re.compile(r"arn:aws[a-z-]*:acm[^\"'\s]+")
#: What a deployment in no particular place would have said.
_DEPLOYED = {"AWS::Region": "us-west-2", "AWS::AccountId": "111122223333"}
_OPTIONS = Options(sds_socket="/run/sds.sock")


def _rows(name: str) -> list[dict[str, str]]:
    if not CORPUS.is_dir():
        return []
    with (CORPUS / name).open() as file:
        return list(csv.DictReader(file))


FILES = _rows("INDEX.csv")
MESHES = {row["mesh"]: row for row in _rows("MESHES.csv") if row["dialect"] != "api"}
#: Why a mesh does not translate as a whole.
EXCEPTIONS = {
    "wt-howto-outlier-detection": "CloudFormation refuses its template: OutlierDetection is in camelCase",
}
WHOLE = [name for name in MESHES if name not in EXCEPTIONS]


@pytest.mark.parametrize("row", FILES, ids=lambda row: row["file"][-60:])
def test_every_file_loads_or_says_what_is_wrong(row: dict[str, str]) -> None:
    reading = read(CORPUS / row["file"], strict=False, mesh="m")
    for problem in reading.problems:
        assert problem.message and problem.file.endswith(row["file"].rpartition("/")[2])
    # Namespaces and backend groups say something, though they are no resources.
    assert reading.resources or reading.problems or reading.files[0].dialects


@pytest.mark.parametrize("row", [r for r in FILES if r["schema_issues"]], ids=lambda row: row["file"][-60:])
def test_what_a_schema_does_not_know_is_named(row: dict[str, str]) -> None:
    parameters = {**_DEPLOYED, "ProjectName": "p"}
    problems = read(CORPUS / row["file"], strict=False, mesh="m", parameters=parameters).problems
    if any("no virtual gateway takes this route" in problem.message for problem in problems):
        return  # it stands alone, and is not looked at
    for issue in row["schema_issues"].split(" | "):
        if not issue.endswith(("unknown field", "unknown property")):
            continue
        name = issue.partition(":")[0].rpartition(".")[2]
        found = [one for one in problems if re.search(rf"\b{name}\b", f"{one.path} {one.message}")]
        assert found, (issue, [str(one) for one in problems])
        severity = "error" if row["dialect"] == "cloudformation" else "warning"
        assert {one.severity for one in found} == {severity}
        assert all(one.line for one in found)


# --- whole meshes -----------------------------------------------------------------------------------------


def _reading(row: dict[str, str]) -> Reading:
    def given(column: str) -> dict[str, str]:
        return json.loads(row[column]) if row[column] else {}

    externals = {
        name.split(" ", 1)[1]: name.split(" ", 1)[1].partition(".")[0].lower()
        for name in row["cfn_externals"].split(";")
        if name.startswith("GetAtt ")
    }
    return read(
        *(CORPUS / file for file in row["files"].split(";")),
        strict=False,
        parameters={**_DEPLOYED, **given("cfn_params")},
        imports=given("cfn_imports"),
        externals=externals,
    )


@cache
def _meshes(name: str) -> tuple[am.Mesh, ...]:
    row = MESHES[name]
    reading = _reading(row)
    assert not errors_in(reading.problems), [str(one) for one in errors_in(reading.problems)]
    return tuple(map(_with_facts, (reading.mesh(one) for one in reading.meshes)))


def _with_facts(mesh: am.Mesh) -> am.Mesh:
    """Stand-ins for every ARN and every Cloud Map service."""
    arns = set(_ARN.findall(json.dumps([repr(data) for data in mesh.resources()])))
    return mesh.replace(
        certificates=dict.fromkeys(arns, FileCertificate(certificate_chain="/c.pem", private_key="/k.pem")),
        authorities=dict.fromkeys(arns, FileTrust(certificate_chain="/ca.pem")),
        endpoints={name: [_endpoint(node)] for name, node in mesh.virtual_nodes.items()},
    )


def _endpoint(node: Any) -> Endpoint:
    """Loopback, as the oracle asks for, with whatever the node filters by."""
    cloud_map = node.spec.service_discovery and node.spec.service_discovery.aws_cloud_map
    wanted = (cloud_map.attributes if cloud_map else None) or ()
    six = cloud_map is not None and cloud_map.ip_preference == "IPv6_ONLY"
    return Endpoint(
        address="::1" if six else "127.0.0.2", attributes=tuple((one.key, one.value) for one in wanted)
    )


@pytest.mark.parametrize("name", WHOLE)
def test_envoy_accepts_every_proxy(name: str, oracle: Oracle) -> None:
    judged = 0
    for mesh in _meshes(name):
        snapshots = {one.proxy: one for one in Translator(_OPTIONS).translate_all(mesh)}
        for proxy in mesh.proxies():
            snapshot = am.translate(mesh, proxy, _OPTIONS)
            assert not snapshot.errors, (proxy, [str(problem) for problem in snapshot.errors])
            assert snapshots[proxy] == snapshot
            verdict = oracle.accepts(snapshot)
            assert verdict, f"{proxy}: {verdict}"
            judged += 1
    assert judged


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_one(name: str) -> None:
    if not MESHES:
        pytest.skip(f"no corpus at {CORPUS}: set APPMESH_XDS_CORPUS")
    found = errors_in(_reading(MESHES[name]).problems)
    assert any("unknown property 'baseEjectionDuration'" in problem.message for problem in found)


@pytest.mark.parametrize("to", ["api", "cloudformation", "kubernetes"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_mesh_is_the_same_in_another_dialect(name: str, to: Dialect) -> None:
    for mesh in _meshes(name):
        converted = convert(mesh, to)
        if any(
            "refused" in problem.message or "left out" in problem.message for problem in converted.problems
        ):
            continue
        again = _with_facts(am.loads(converted.to_text()))
        for proxy in mesh.proxies():
            one, two = am.translate(mesh, proxy, _OPTIONS), am.translate(again, proxy, _OPTIONS)
            for kind in TYPE_NAMES:
                assert getattr(one, kind) == getattr(two, kind), (proxy, kind)
