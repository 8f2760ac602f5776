"""What `appmesh-xds serve` shows of itself: it counts, notes, and answers probes and people."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ..errors import Problem
from ..facts import Pem, PemTrust
from ..mesh import Mesh
from ..snapshot import Snapshot
from .admin import MeshStatus, admin_answers, probe_answers
from .discovery import Discovery
from .grpc import Server
from .http import listening
from .logs import EventLog, note
from .meshes import Meshes
from .metrics import Metrics, each
from .session import Session
from .sizes import Sizes


class Loading(Protocol):
    """What loads meshes."""

    meshes: Meshes
    #: When what is served was loaded, in seconds since the epoch.
    loaded_at: float
    sizes: Sizes

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files as they are now, and with what is made of them."""


class Operations:
    """An `admin.Subject`: a server, and what loads its meshes."""

    def __init__(
        self, loading: Loading, certificate: str | None = None, discovery: Discovery | None = None
    ) -> None:
        """`certificate` is the path of the server's own, when it has one; `discovery` finds endpoints."""
        self.metrics = Metrics()
        #: The observer to give to `serve`.
        self.observe = each(self.metrics.observe, EventLog())
        self._loading = loading
        self._certificate = certificate
        if discovery is not None:
            self.metrics.watch_endpoints(discovery)
        self._server: Server | None = None
        self.metrics.watch_largest(lambda: loading.sizes.largest)

    # --- loading ------------------------------------------------------------------------------------------

    def loaded(self, reading: float, translation: float) -> None:
        """What was read is in use. It took so many seconds to read and to translate it."""
        meshes = self._loading.meshes
        self.metrics.loaded(meshes.sizes(), self._loading.problems(), reading, translation)

    def load_failed(self) -> None:
        self.metrics.load_failed(self._loading.problems())

    def asked(self) -> None:
        """Endpoints were asked for."""
        self.metrics.problems(self._loading.problems())

    # --- answering ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def answering(self, server: Server, admin: str | None, probe: str | None) -> AsyncIterator[None]:
        """Answers at these addresses while the context lasts. Raises `UsageError` for one that cannot be."""
        self._server = server
        self.metrics.watch(server.sessions)
        self.metrics.watch_certificates(self._expiries)
        async with AsyncExitStack() as stack:
            if admin is not None:
                answers = listening(admin, admin_answers(self), only_local=True)
                note(logging.INFO, "admin", listen=await stack.enter_async_context(answers))
            if probe is not None:
                answers = listening(probe, probe_answers(self), only_local=False)
                note(logging.INFO, "probe", listen=await stack.enter_async_context(answers))
            yield

    def not_ready(self) -> str:
        if self._server is None or self._server.draining:
            return "stopping"
        return ""

    def meshes(self) -> Iterable[MeshStatus]:
        for name, proxies in self._loading.meshes.sizes().items():
            yield MeshStatus(name=name, proxies=proxies, loaded_at=self._loading.loaded_at)

    def problems(self) -> Iterable[Problem]:
        return self._loading.problems()

    def _expiries(self) -> dict[tuple[str, str], float]:
        found = dict(_expiries(self._loading.meshes.meshes.values()))
        if self._certificate is not None:
            with suppress(OSError, ValueError):  # the log has it
                found["server", self._certificate] = expiry(Path(self._certificate).read_bytes())
        return found

    def sessions(self) -> Iterable[Session]:
        return () if self._server is None else self._server.sessions()

    def snapshot(self, node_id: str) -> Snapshot | None:
        return self._loading.meshes.snapshot(node_id)


def _expiries(meshes: Iterable[Mesh]) -> Iterator[tuple[tuple[str, str], float]]:
    """When the certificates that are sent to proxies expire. Files on a proxy's disk are not seen here."""
    for mesh in meshes:
        named: Mapping[str, object] = {**mesh.authorities, **mesh.certificates}
        for name, fact in named.items():
            if isinstance(fact, (Pem, PemTrust)):
                with suppress(ValueError):  # not a certificate: Envoy will say so
                    yield ("secret", name), expiry(fact.certificate_chain)


@lru_cache(maxsize=4096)
def expiry(chain: bytes) -> float:
    """When the first certificate of a PEM chain expires, in seconds since the epoch. ValueError for no such
    chain."""
    from cryptography import x509

    return min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(chain))
