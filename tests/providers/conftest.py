"""One loopback provider for all wire tests, and real requests to it allowed."""

from collections.abc import Iterator

import pytest
from pydantic_ai import models

from tests.provider_server import ProviderServer, provider_server


@pytest.fixture(scope="session")
def loopback() -> Iterator[ProviderServer]:
    with provider_server() as server:
        yield server


@pytest.fixture
def server(loopback: ProviderServer) -> Iterator[ProviderServer]:
    loopback.reset()
    with models.override_allow_model_requests(True):
        yield loopback
