"""The examples of docs/server.md, run as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from test_cloud_map import color, front, service
from test_server_grpc import _request, _sotw
from test_translator import _node, _small

import appmesh_xds as am
from appmesh_xds import proto
from appmesh_xds.cloud_map import CloudMapService
from appmesh_xds.resource import ENDPOINTS

CLUSTER = "cds_egress_shop_color_http_8080"
PAGE = Path(__file__).parent.parent / "docs" / "server.md"


def _examples() -> list[str]:
    """Each on any free port."""
    embedding = PAGE.read_text().partition("## Embedding")[2]
    found = [
        code.replace("127.0.0.1:18000", "127.0.0.1:0")
        for code in re.findall(r"```python\n(.*?)```", embedding, re.DOTALL)
    ]
    assert len(found) == 2 and all("127.0.0.1:0" in code for code in found)
    return found


def test_the_example_follows_a_mesh(capsys: Any) -> None:
    code = _examples()[0]
    told: list[set[str]] = []

    async def changes() -> AsyncIterator[am.Mesh]:
        """A client sees the mesh as it was; then the mesh changes, and the client is told."""
        port = int(capsys.readouterr().out.split()[-1])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = _sotw(channel)

            async def names() -> set[str]:
                data = await asyncio.wait_for(stream.read(), 20)
                response = proto.DiscoveryResponse.FromString(data)
                await stream.write(
                    _request(version_info=response.version_info, response_nonce=response.nonce)
                )
                return {proto.Cluster.FromString(one.value).name for one in response.resources}

            await stream.write(_request(node="mesh/m/virtualNode/a"))
            told.append(await names())
            yield _small().replace(_node("c", port=81))
            told.append(await names())

    scope: dict[str, Any] = {"changes": changes}
    exec(compile(code, str(PAGE), "exec"), scope)
    asyncio.run(scope["main"](_small()))
    assert "cds_egress_m_c_http_80" in told[0] and "cds_egress_m_c_http_81" not in told[0]
    assert "cds_egress_m_c_http_81" in told[1]


def test_the_example_of_a_source_follows_a_registry(capsys: Any) -> None:
    known = {"color": ["10.0.0.1"]}

    def look_up(service: str, namespace: str) -> list[str]:
        assert namespace == "shop.internal"
        if service not in known:
            raise OSError("the registry is away")
        return known[service]

    async def addresses(stream: Any) -> list[str]:
        data = await asyncio.wait_for(stream.read(), 20)
        response = proto.DiscoveryResponse.FromString(data)
        (assignment,) = [proto.ClusterLoadAssignment.FromString(one.value) for one in response.resources]
        await stream.write(
            _request(
                type_url=ENDPOINTS,
                resource_names=[CLUSTER],
                version_info=response.version_info,
                response_nonce=response.nonce,
            )
        )
        found = [one.endpoint.address.socket_address for one in assignment.endpoints[0].lb_endpoints]
        return [one.address for one in found]

    async def follow() -> None:
        mesh = am.loads([front("color"), service(), color()])
        server = asyncio.create_task(scope["main"](mesh))
        while not (out := capsys.readouterr().out):
            assert not server.done(), server.exception()
            await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{out.split()[-1]}") as channel:
            stream = _sotw(channel)
            first = {"type_url": ENDPOINTS, "resource_names": [CLUSTER]}
            await stream.write(_request(node="mesh/shop/virtualNode/front", **first))
            assert await addresses(stream) == ["10.0.0.1"]
            known["color"] = ["10.0.0.3", "10.0.0.2"]
            assert await addresses(stream) == ["10.0.0.2", "10.0.0.3"]
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server

    scope: dict[str, Any] = {"look_up": look_up}
    exec(compile(_examples()[1], str(PAGE), "exec"), scope)
    asyncio.run(follow())
    del known["color"]
    found = scope["Registry"]().discover([CloudMapService("shop.internal", "color")])
    assert found.instances == {} and list(found.failed.values()) == ["the registry is away"]
