"""The example of docs/server.md, run as it stands there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from test_server_grpc import _request, _sotw
from test_translator import _node, _small

import appmesh_xds as am
from appmesh_xds import proto

PAGE = Path(__file__).parent.parent / "docs" / "server.md"


def test_the_example_follows_a_mesh(capsys: Any) -> None:
    embedding = PAGE.read_text().partition("## Embedding")[2]
    (code,) = re.findall(r"```python\n(.*?)```", embedding, re.DOTALL)
    code = code.replace("127.0.0.1:18000", "127.0.0.1:0")
    assert "127.0.0.1:0" in code
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
