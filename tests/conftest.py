"""Fixtures of tests with a real Envoy: certificates, applications and Envoys live as long as the session."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from apps import GrpcApp, H2App, HttpApp, ServerFirstApp, TcpApp
from hypothesis import settings
from oracle import Oracle
from pki import Certificates, make_certificates
from real_envoy import Bootstrap, Envoy

# The suite is the same in every run: what passed once does not fail by chance. The commands that search in
# depth (APPMESH_XDS_DEPTH=N) throw new dice each time.
settings.register_profile("repeatable", derandomize=True)
if "APPMESH_XDS_DEPTH" not in os.environ:
    settings.load_profile("repeatable")

RunEnvoy = Callable[[Bootstrap], Envoy]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def run_envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunEnvoy]:
    """`run_envoy(bootstrap)` starts an Envoy and waits until it is ready; all end with the session.

    Session and module fixtures use it for Envoys that many tests share. A test that needs one for itself
    writes `with Envoy(bootstrap, tmp_path) as envoy`.
    """
    folder = tmp_path_factory.mktemp("envoys")
    numbers = itertools.count()
    with contextlib.ExitStack() as running:
        yield lambda bootstrap: running.enter_context(Envoy(bootstrap, folder / str(next(numbers))))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Oracle]:
    with Oracle(tmp_path_factory.mktemp("oracle"), certificates) as running:
        yield running


@pytest.fixture(scope="session")
def http_app() -> Iterator[HttpApp]:
    with HttpApp("http-app") as app:
        yield app


@pytest.fixture(scope="session")
def h2_app() -> Iterator[H2App]:
    with H2App("h2-app") as app:
        yield app


@pytest.fixture(scope="session")
def grpc_app() -> Iterator[GrpcApp]:
    with GrpcApp("grpc-app") as app:
        yield app


@pytest.fixture(scope="session")
def tcp_app() -> Iterator[TcpApp]:
    with TcpApp("tcp-app") as app:
        yield app


@pytest.fixture(scope="session")
def server_first_app() -> Iterator[ServerFirstApp]:
    with ServerFirstApp("server-first-app") as app:
        yield app
