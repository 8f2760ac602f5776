"""Meshes that others wrote, as they called the API: every proxy's snapshot is accepted by Envoy.

The files lie outside the project (`APPMESH_XDS_CORPUS` names their folder, `../shared/corpus` by default);
without them these tests skip. `meshes/*.json` lists calls in their order; a request is the file's content
with the call's parameters merged over it. Facts stand in for every ARN and every Cloud Map service.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle import Oracle

from appmesh_xds import spec
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust
from appmesh_xds.mesh import Mesh
from appmesh_xds.options import Options
from appmesh_xds.snapshot import translate
from appmesh_xds.spec.convert import convert
from appmesh_xds.translator import Translator

CORPUS = Path(os.environ.get("APPMESH_XDS_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
MESHES = sorted((CORPUS / "meshes").glob("*.json"))

_ARN = re.compile('arn:[^"]+')
_OPERATION = re.compile("(?:create|update)-(.+)")


def test_the_corpus_is_there() -> None:
    if not CORPUS.is_dir():
        pytest.skip(f"no corpus at {CORPUS}: set APPMESH_XDS_CORPUS")
    assert MESHES, f"{CORPUS} has no meshes/*.json"


def _states(manifest: Path) -> Iterator[tuple[str, Mesh]]:
    """The mesh after its base calls, and after each call that follows them."""
    steps = json.loads(manifest.read_text())["steps"]
    base = [step for step in steps if step["phase"] == "base"]
    mesh = Mesh.of(*map(_resource, base))
    arns = {arn for step in steps for arn in _ARN.findall(json.dumps(_request(step)))}
    mesh = mesh.replace(
        certificates=dict.fromkeys(arns, FileCertificate(certificate_chain="/c.pem", private_key="/k.pem")),
        authorities=dict.fromkeys(arns, FileTrust(certificate_chain="/ca.pem")),
        # Loopback, as the oracle asks for.
        endpoints={name: [Endpoint(address="127.0.0.2")] for name in mesh.virtual_nodes},
    )
    yield "base", mesh
    for step in steps:
        if step["phase"] != "base":
            mesh = mesh.replace(_resource(step))
            yield f"{step['operation']} {step['file']}", mesh


def _request(step: dict[str, Any]) -> dict[str, Any]:
    body = json.loads((CORPUS / step["file"]).read_text() or "{}") if step["file"] else {}
    return {**body, **step["params"]}


def _resource(step: dict[str, Any]) -> spec.Data:
    operation = _OPERATION.fullmatch(step["operation"])
    assert operation, step["operation"]
    first, *rest = operation[1].split("-")
    kind = first + "".join(word.capitalize() for word in rest)
    conversion = convert(_request(step), spec.BY_KIND[kind])
    assert conversion.value is not None, [str(problem) for problem in conversion.problems]
    return conversion.value


@pytest.mark.parametrize(
    "options", [Options(), Options(single_hop=True, delivery="inline")], ids=["two hops", "one"]
)
@pytest.mark.parametrize("manifest", MESHES, ids=lambda path: path.stem)
def test_envoy_accepts_every_proxy(manifest: Path, options: Options, oracle: Oracle) -> None:
    judged = 0
    for state, mesh in _states(manifest):
        for proxy in mesh.proxies():
            snapshot = translate(mesh, proxy, options)
            assert not snapshot.errors, (state, proxy, [str(problem) for problem in snapshot.errors])
            verdict = oracle.accepts(snapshot)
            assert verdict, f"{state}: {proxy}: {verdict}"
            judged += 1
    assert judged


@pytest.mark.parametrize("manifest", MESHES, ids=lambda path: path.stem)
def test_a_translator_says_the_same(manifest: Path) -> None:
    """Through every step that the mesh took, whatever it remembers of the steps before."""
    translator, followed = Translator(), 0
    for state, mesh in _states(manifest):
        found = {snapshot.proxy: snapshot for snapshot in translator.translate_all(mesh)}
        assert found == {proxy: translate(mesh, proxy) for proxy in mesh.proxies()}, state
        followed += 1
    assert followed
