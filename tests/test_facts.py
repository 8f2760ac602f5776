"""Facts files: what they may say, and every way to get it wrong with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pki import Certificates

import appmesh_xds as am
from appmesh_xds.facts import Endpoint, FileCertificate, FileTrust, Pem, PemTrust, SdsSecret
from appmesh_xds.readers.facts import Facts, load_facts

NODE: dict[str, Any] = {"meshName": "shop", "virtualNodeName": "color", "spec": {}}


def _write(folder: Path, text: str, name: str = "facts.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _refused(path: Path) -> list[tuple[str, str]]:
    """(place, message) of every problem."""
    with pytest.raises(am.SpecErrors) as errors:
        load_facts(path)
    assert all(problem.file == str(path) for problem in errors.value.problems)
    return [(f"{p.line} {p.path}", p.message) for p in errors.value.problems]


def test_every_form(tmp_path: Path, certificates: Certificates) -> None:
    for name, source in (
        ("a.crt", certificates.server.certificate),
        ("a.key", certificates.server.private_key),
        ("ca.crt", certificates.authority),
    ):
        (tmp_path / name).write_bytes(source.read_bytes())
    path = _write(
        tmp_path,
        """
certificates:
  arn:1: {certificateChain: /certs/a.crt, privateKey: /certs/a.key}
  arn:2: {secretName: a}
  arn:3: {pem: {certificateChain: a.crt, privateKey: a.key}}
authorities:
  arn:4: {certificateChain: /certs/ca.crt}
  arn:5: {secretName: ca}
  arn:6: {pem: {certificateChain: ca.crt}}
endpoints:
  color:
  - {address: 10.0.0.1, port: 8080, health: UNHEALTHY, attributes: {version: v1, az: a}}
  - {address: "fd00::1"}
  - {ipv4: 10.0.0.2, ipv6: "fd00::2"}
  empty: []
""",
    )
    facts = load_facts(path)
    assert facts.certificates == {
        "arn:1": FileCertificate(certificate_chain="/certs/a.crt", private_key="/certs/a.key"),
        "arn:2": SdsSecret(secret_name="a"),
        "arn:3": Pem(
            certificate_chain=certificates.server.certificate.read_bytes(),
            private_key=certificates.server.private_key.read_bytes(),
        ),
    }
    assert facts.authorities == {
        "arn:4": FileTrust(certificate_chain="/certs/ca.crt"),
        "arn:5": SdsSecret(secret_name="ca"),
        "arn:6": PemTrust(certificate_chain=certificates.authority.read_bytes()),
    }
    attributes = (("az", "a"), ("version", "v1"))
    assert facts.endpoints == {
        "color": (
            Endpoint(address="10.0.0.1", port=8080, health="UNHEALTHY", attributes=attributes),
            Endpoint(address="fd00::1"),
            Endpoint(address="10.0.0.2", other_address="fd00::2"),
        ),
        "empty": (),
    }
    mesh = facts.apply(am.loads(NODE))
    assert mesh.certificates == facts.certificates
    assert mesh.authorities == facts.authorities
    assert mesh.endpoints == facts.endpoints
    (stranger,) = facts.strangers(mesh)
    assert (stranger.severity, stranger.path) == ("warning", "$.endpoints.empty")


def test_json_and_files_that_say_little(tmp_path: Path) -> None:
    path = _write(tmp_path, '{"certificates": {"arn:1": {"secretName": "a"}}}', "facts.json")
    assert load_facts(path).certificates == {"arn:1": SdsSecret(secret_name="a")}
    path = _write(tmp_path, "certificates:\nendpoints: {}\n")
    assert load_facts(path) == Facts(file=str(path), certificates={}, authorities={}, endpoints={})


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[]", "1 $", "expected a mapping"),
        ("a", "1 $", "expected a mapping"),
        ("certificate: {}", "1 $.certificate", "unknown; known are"),
        ("certificates: []", "1 $.certificates", "expected a mapping"),
        ("endpoints:\n  a: {address: 10.0.0.1}", "2 $.endpoints.a", "expected a list"),
        ("endpoints:\n  a: [10.0.0.1]", "2 $.endpoints.a[0]", "expected an object"),
        ("endpoints: {a: [{}]}", "1 $.endpoints.a[0].address", "missing"),
        ("endpoints: {a: [{address: h.local}]}", "1 $.endpoints.a[0].address", "is not an IP address"),
        ("endpoints: {a: [{address: 1.1.1.1, port: 0}]}", "1 $.endpoints.a[0].port", "out of range"),
        ("endpoints: {a: [{address: 1.1.1.1, health: OK}]}", "1 $.endpoints.a[0].health", "expected one of"),
        ("endpoints: {a: [{address: 1.1.1.1, ip: x}]}", "1 $.endpoints.a[0].ip", "unknown field"),
        (
            "endpoints: {a: [{address: 1.1.1.1, attributes: [v]}]}",
            "1 $.endpoints.a[0].attributes",
            "expected a mapping",
        ),
        (
            "endpoints: {a: [{address: 1.1.1.1, attributes: {v: 1}}]}",
            "1 $.endpoints.a[0].attributes.v",
            "expected a string",
        ),
        ("certificates: {x: {certificateChain: /a}}", "1 $.certificates.x.privateKey", "missing"),
        (
            "certificates: {x: {secretName: a, privateKey: b}}",
            "1 $.certificates.x.privateKey",
            "unknown field",
        ),
        ("certificates: {x: !Ref y}", "1 $.certificates.x", "expected an object"),
        (
            "certificates: {x: {pem: {certificateChain: no, privateKey: no}}}",
            "1 $.certificates.x.pem.certificateChain",
            "cannot be read",
        ),
        (
            'authorities: {x: {pem: {certificateChain: "a\\0"}}}',
            "1 $.authorities.x.pem.certificateChain",
            "NUL in its name",
        ),
        (
            "authorities: {x: {pem: {certificateChain: facts.yaml}}}",
            "1 $.authorities.x.pem.certificateChain",
            "holds no PEM certificate",
        ),
        ("authorities: {x: {pem: a}}", "1 $.authorities.x.pem", "expected an object"),
        (
            "authorities: {x: {secretName: a, pem: {certificateChain: facts.yaml}}}",
            "1 $.authorities.x.secretName",
            "does not go with `pem`",
        ),
        ("certificates: {x: {secretName: a}\n", "2 ", ""),
        ("a: 1\n---\nb: 2\n", "0 $", "several documents"),
        ("certificates: {}\ncertificates: {}\n", "2 ", ""),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, place: str, message: str) -> None:
    found = _refused(_write(tmp_path, text))
    assert any(at.startswith(place) and message in said for at, said in found), found


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = "certificates: {x: {}}\nauthorities: {y: 1}\nendpoints: {z: 1}\n"
    assert {at.split(".")[1] for at, _ in _refused(_write(tmp_path, text))} == {
        "certificates",
        "authorities",
        "endpoints",
    }


def test_a_key_in_the_wrong_place_is_not_shown(tmp_path: Path, certificates: Certificates) -> None:
    key = certificates.server.private_key
    text = f"certificates: {{x: {{pem: {{certificateChain: {key}, privateKey: {key}}}}}}}"
    found: Any = _refused(_write(tmp_path, text))
    assert any("holds no PEM certificate" in said for _, said in found)
    assert key.read_text().splitlines()[1] not in str(found)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert _refused(tmp_path / "gone.yaml") == [("0 $", "cannot be read: No such file or directory")]


def test_a_pair_that_does_not_fit(tmp_path: Path, certificates: Certificates) -> None:
    """What one sees in the middle of a rotation, too."""
    chain, key = certificates.server.certificate, certificates.client.private_key
    text = f"certificates: {{x: {{pem: {{certificateChain: {chain}, privateKey: {key}}}}}}}"
    ((place, message),) = _refused(_write(tmp_path, text))
    assert place == "1 $.certificates.x.pem"
    assert message == "the private key does not belong to the certificate"


def test_files_that_are_read_are_told(tmp_path: Path, certificates: Certificates) -> None:
    pair = certificates.server
    text = f"""
certificates:
  a: {{pem: {{certificateChain: {pair.certificate}, privateKey: {pair.private_key}}}}}
  b: {{certificateChain: /certs/a.crt, privateKey: /certs/a.key}}
"""
    assert load_facts(_write(tmp_path, text)).materials == (str(pair.certificate), str(pair.private_key))


def test_endpoints_of_one_mesh_among_several(tmp_path: Path) -> None:
    text = """
endpoints:
  color: [{address: 10.0.0.1}]
  other: []
  mesh/mall/virtualNode/color: [{address: 10.0.0.2}]
  mesh/mall/virtualNode/gone: []
  mesh/else/virtualNode/color: []
"""
    facts = load_facts(_write(tmp_path, text))
    shop, mall = am.loads(NODE), am.loads({**NODE, "meshName": "mall"})
    assert facts.apply(shop).endpoints == {"color": (Endpoint(address="10.0.0.1"),), "other": ()}
    assert facts.apply(mall).endpoints == {
        "color": (Endpoint(address="10.0.0.2"),),
        "gone": (),
        "other": (),
    }
    # Of a mesh that is not here nobody can say.
    assert [(one.path, one.message) for one in facts.strangers(shop, mall)] == [
        ('$.endpoints["mesh/mall/virtualNode/gone"]', "mesh shop or mall has no virtual node of this name"),
        ("$.endpoints.other", "mesh shop or mall has no virtual node of this name"),
    ]
    assert [one.path for one in facts.strangers(shop)] == ["$.endpoints.other"]
