"""The gRPC health service (grpc.health.v1), as much of it as probes use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

_SERVICE: Final = "grpc.health.v1.Health"
#: HealthCheckResponse with `status` (field 1) SERVING or NOT_SERVING.
_SERVING: Final = b"\x08\x01"
_NOT_SERVING: Final = b"\x08\x02"


class Health:
    """SERVING until `stop`. It speaks of the whole server, whatever service is asked about."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            },
        )

    async def _check(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return _NOT_SERVING if self._stopping.is_set() else _SERVING

    async def _watch(
        self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        if not self._stopping.is_set():
            yield _SERVING
            await self._stopping.wait()
        yield _NOT_SERVING
