"""Where instances are read from: files of several forms, and AWS Cloud Map behind boto3's stub."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

import appmesh_xds as am
from appmesh_xds.cloud_map import CloudMapService, Found, endpoints_of, services_of
from appmesh_xds.cloud_map import aws as module
from appmesh_xds.cloud_map.aws import AwsSource, aws_client
from appmesh_xds.cloud_map.file import FileSource
from appmesh_xds.facts import Endpoint

COLOR, OTHER = CloudMapService("shop.internal", "color"), CloudMapService("shop.internal", "other")


def told(found: Found) -> list[tuple[str, str]]:
    return [(f"{problem.line} {problem.path}", problem.message) for problem in found.problems]


# --- files ------------------------------------------------------------------------------------------------


def _file(folder: Path, text: str) -> FileSource:
    path = folder / "instances.yaml"
    path.write_text(text)
    return FileSource(path)


def _answer(service: str, *instances: Mapping[str, Any]) -> dict[str, Any]:
    """As `aws servicediscovery discover-instances` prints it."""
    return {
        "Instances": [
            {
                "InstanceId": f"i-{index}",
                "NamespaceName": "shop.internal",
                "ServiceName": service,
                "HealthStatus": "UNKNOWN",
                **instance,
            }
            for index, instance in enumerate(instances)
        ],
        "InstancesRevision": 1,
    }


def test_every_form_of_an_instance(tmp_path: Path) -> None:
    source = _file(
        tmp_path,
        """
color.shop.internal:
- {address: 10.0.0.1, port: 8080, health: UNHEALTHY, attributes: {version: v1, az: a}}
- {ipv4: 10.0.0.2, ipv6: "fd00::2", health: UNKNOWN}
- {ipv6: "fd00::3"}
other.shop.internal: []
""",
    )
    found = source.discover([COLOR, OTHER])
    assert found == Found(
        instances={
            COLOR: (
                Endpoint(
                    address="10.0.0.1",
                    port=8080,
                    health="UNHEALTHY",
                    attributes=(("az", "a"), ("version", "v1")),
                ),
                Endpoint(address="10.0.0.2", other_address="fd00::2"),
                Endpoint(address="fd00::3"),
            ),
            OTHER: (),
        }
    )


ATTRIBUTES = {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "9999", "version": "v1"}
PAIR = {"AWS_INSTANCE_IPV4": "10.0.0.2", "AWS_INSTANCE_IPV6": "fd00::2"}


@pytest.mark.parametrize(
    "put_together",
    [
        lambda answers: "\n---\n".join(json.dumps(answer) for answer in answers),
        lambda answers: json.dumps(answers, indent=1),
    ],
    ids=["documents", "list"],
)
def test_answers_of_cloud_map_as_they_are(tmp_path: Path, put_together: Any) -> None:
    answers = [
        _answer("color", {"Attributes": ATTRIBUTES}, {"Attributes": PAIR, "HealthStatus": "UNHEALTHY"}),
        _answer("other", {"Attributes": {"AWS_INSTANCE_IPV6": "fd00::4"}}),
    ]
    found = _file(tmp_path, put_together(answers)).discover([COLOR, OTHER])
    # The port stays that of the node's listener (reference §2.4).
    assert found.instances == {
        COLOR: (
            Endpoint(address="10.0.0.1", attributes=tuple(sorted(ATTRIBUTES.items()))),
            Endpoint(
                address="10.0.0.2",
                other_address="fd00::2",
                health="UNHEALTHY",
                attributes=tuple(sorted(PAIR.items())),
            ),
        ),
        OTHER: (Endpoint(address="fd00::4", attributes=(("AWS_INSTANCE_IPV6", "fd00::4"),)),),
    }
    assert found.problems == ()


def test_what_is_not_told_and_what_nobody_asked_for(tmp_path: Path) -> None:
    found = _file(tmp_path, "color.shop.internal: []\nelse.shop.internal: []\n").discover([COLOR, OTHER])
    assert found.instances == {COLOR: ()}
    assert told(found) == [
        ('2 $["else.shop.internal"]', "no virtual node is found by else.shop.internal"),
        ("0 $", "says nothing of other.shop.internal"),
    ]
    assert {problem.severity for problem in found.problems} == {"warning"}


def test_instances_that_a_proxy_cannot_send_to(tmp_path: Path) -> None:
    other = {"Attributes": {"AWS_INSTANCE_CNAME": "a.b"}}
    wrong = {"Attributes": {**ATTRIBUTES, "AWS_INSTANCE_IPV6": "10.0.0.1"}}
    answer = _answer("color", other, {"Attributes": ATTRIBUTES}, {}, wrong)
    found = _file(tmp_path, json.dumps([answer, _answer("other")])).discover([COLOR])
    assert [one.address for one in found.instances[COLOR]] == ["10.0.0.1"]
    assert [message for _, message in told(found)] == [
        "has neither AWS_INSTANCE_IPV4 nor AWS_INSTANCE_IPV6; it is left out",
        "has no Attributes that map names to strings; it is left out",
        "has an AWS_INSTANCE_IPV6 that is no IPv6 address: '10.0.0.1'; it is left out",
        "has no instances, and does not say of which service",
    ]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "0 $", "is empty"),
        ("# soon\n", "0 $", "is empty"),
        ("a", "1 $", "expected a mapping"),
        ("[1]", "1 $[0]", "expected an answer of discover-instances"),
        ("[{Instances: {}}]", "1 $[0]", "expected an answer of discover-instances"),
        ("{Instances: [1]}", "1 $.Instances[0]", "expected an instance, with ServiceName and NamespaceName"),
        ("a.b: 1", '1 $["a.b"]', "expected a list of endpoints"),
        ("a.b:\n- {ip: 1}\n", '2 $["a.b"][0].ip', "unknown field"),
        ("a.b: [{}]", '1 $["a.b"][0].address', "missing"),
        ("a.b: [{address: a.local}]", '1 $["a.b"][0].address', "is not an IP address"),
        ("a.b: [{ipv4: 'fd00::1'}]", '1 $["a.b"][0].ipv4', "is not an IPv4 address"),
        ("a.b: [{ipv6: 10.0.0.1}]", '1 $["a.b"][0].ipv6', "is not an IPv6 address"),
        ("a.b: [{address: 'fe80::1%eth0'}]", '1 $["a.b"][0].address', "is not an IP address"),
        ("a.b: [{address: 10.0.0.1, ipv4: 10.0.0.1}]", '1 $["a.b"][0].address', "does not go with ipv4"),
        ("a.b: [{address: 10.0.0.1, health: ILL}]", '1 $["a.b"][0].health', "expected one of"),
        ("a.b: []\n---\na.b: []\n", '3 $["a.b"]', "was given before"),
        ("a.b: [", "", ""),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, place: str, message: str) -> None:
    source = _file(tmp_path, text)
    for _ in range(2):  # the second time out of memory
        with pytest.raises(am.SpecErrors) as errors:
            source.discover([COLOR])
        assert all(problem.file == source.path for problem in errors.value.problems)
        found = [(f"{problem.line} {problem.path}", problem.message) for problem in errors.value.problems]
        assert any(at.startswith(place) and message in said for at, said in found), found


def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    source = _file(tmp_path, "color.shop.internal: [{address: 10.0.0.1}]")
    first = source.discover([COLOR]).instances[COLOR]
    assert source.discover([COLOR]).instances[COLOR] is first
    (tmp_path / "instances.yaml").write_text("color.shop.internal: [{address: 10.0.0.2}]")
    assert [one.address for one in source.discover([COLOR]).instances[COLOR]] == ["10.0.0.2"]
    (tmp_path / "instances.yaml").unlink()
    with pytest.raises(am.SpecErrors, match="No such file"):
        source.discover([COLOR])


# --- AWS --------------------------------------------------------------------------------------------------


class Aws:
    """Cloud Map as boto3 reaches it, with answers that were prepared, in their order."""

    def __init__(self) -> None:
        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "none"}
        client = boto3.client("servicediscovery", region_name="us-west-2", **keys)
        self.stub = Stubber(client)
        # One at a time, because the stub's answers have an order.
        self.source = AwsSource(client, parallel=1)

    def expect(self, service: CloudMapService) -> dict[str, Any]:
        return {
            "NamespaceName": service.namespace,
            "ServiceName": service.service,
            "MaxResults": 1000,
            "HealthStatus": "ALL",
        }

    def answers(self, service: CloudMapService, answer: Mapping[str, Any]) -> None:
        self.stub.add_response("discover_instances", dict(answer), self.expect(service))

    def refuses(self, service: CloudMapService, code: str) -> None:
        self.stub.add_client_error(
            "discover_instances", code, f"this is {code}", expected_params=self.expect(service)
        )


@pytest.fixture
def aws() -> Iterator[Aws]:
    made = Aws()
    with made.stub:
        yield made
        made.stub.assert_no_pending_responses()


def test_aws_is_asked_for_all_instances(aws: Aws) -> None:
    aws.answers(COLOR, _answer("color", {"Attributes": ATTRIBUTES}, {"Attributes": PAIR}))
    aws.answers(OTHER, _answer("other"))
    found = aws.source.discover([COLOR, OTHER])
    assert [(one.address, one.other_address) for one in found.instances[COLOR]] == [
        ("10.0.0.1", None),
        ("10.0.0.2", "fd00::2"),
    ]
    assert found.instances[OTHER] == ()
    assert (found.failed, found.problems, found.busy) == ({}, (), False)


@pytest.mark.parametrize("code", ["ServiceNotFound", "NamespaceNotFound"])
def test_what_aws_does_not_have_is_not_there(aws: Aws, code: str) -> None:
    aws.refuses(COLOR, code)
    aws.answers(OTHER, _answer("other"))
    found = aws.source.discover([COLOR, OTHER])
    assert (found.instances, found.gone, found.failed, found.busy) == ({OTHER: ()}, {COLOR}, {}, False)
    (problem,) = found.problems
    assert str(problem) == f"warning: AWS Cloud Map has no color.shop.internal ({code})"


@pytest.mark.parametrize(
    ("code", "busy"), [("RequestLimitExceeded", True), ("ThrottlingException", True), ("InvalidInput", False)]
)
def test_what_aws_refuses_to_say_is_not_known(aws: Aws, code: str, busy: bool) -> None:
    aws.refuses(COLOR, code)
    aws.answers(OTHER, _answer("other", {"Attributes": PAIR}))
    found = aws.source.discover([COLOR, OTHER])
    assert found.instances.keys() == {OTHER}
    assert code in found.failed[COLOR] and found.busy is busy


def test_when_every_question_fails_there_shall_be_fewer(aws: Aws) -> None:
    for service in (COLOR, OTHER):
        aws.refuses(service, "AccessDeniedException")
    found = aws.source.discover([COLOR, OTHER])
    assert found.failed.keys() == {COLOR, OTHER} and found.busy


def test_where_aws_cannot_be_reached_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Unreachable:
        def discover_instances(self, **request: Any) -> Mapping[str, Any]:
            asked.append(request["ServiceName"])
            raise EndpointConnectionError(endpoint_url="https://data-servicediscovery")

    source = AwsSource(Unreachable(), parallel=1)
    found = source.discover([COLOR, OTHER])
    assert asked == ["color"]
    assert found.failed.keys() == {COLOR, OTHER} and found.busy
    assert "Could not connect" in found.failed[OTHER]
    source.discover([OTHER])
    assert asked == ["color", "other"], "the next time it is tried again"


def test_what_aws_says_of_more_than_it_names(aws: Aws) -> None:
    many = [{"Attributes": {"AWS_INSTANCE_IPV4": f"10.0.{n // 250}.{n % 250}"}} for n in range(999)]
    aws.answers(COLOR, _answer("color", *many, {"Attributes": {}}))
    found = aws.source.discover([COLOR])
    assert len(found.instances[COLOR]) == 999
    assert [problem.message for problem in found.problems] == [
        "instance i-999 of color.shop.internal has neither AWS_INSTANCE_IPV4 nor AWS_INSTANCE_IPV6; "
        "it is left out",
        "color.shop.internal has 1000 instances or more, and AWS Cloud Map names no more than these",
    ]


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(am.UsageError, match=r"needs boto3: pip install 'appmesh-xds\[aws\]'"):
        aws_client()


def test_without_a_region_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(am.UsageError, match="--cloud-map aws: You must specify a region"):
        aws_client()


def test_the_client_gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    client: Any = aws_client()
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (2, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}
    assert config.max_pool_connections == module._PARALLEL


# --- meshes -----------------------------------------------------------------------------------------------


def _node(name: str, service: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"dns": {"hostname": name}}
    if service is not None:
        found = {"awsCloudMap": {"namespaceName": "shop.internal", "serviceName": service}}
    listeners = [{"portMapping": {"port": 80, "protocol": "http"}}]
    return {
        "meshName": "m",
        "virtualNodeName": name,
        "spec": {"listeners": listeners, "serviceDiscovery": found},
    }


def test_nodes_have_the_instances_of_their_service() -> None:
    mesh = am.loads([_node("a", "color"), _node("b", "color"), _node("c", "other"), _node("d", None)])
    assert services_of(mesh) == {COLOR: ["a", "b"], OTHER: ["c"]}
    one, own = Endpoint(address="10.0.0.1"), Endpoint(address="10.0.0.2")
    assert endpoints_of(mesh, {COLOR: (one,)}) == {"a": (one,), "b": (one,)}
    assert endpoints_of(mesh.replace(endpoints={"b": (own,)}), {COLOR: (one,)}) == {"a": (one,)}
