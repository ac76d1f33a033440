"""A fake server and a client of it."""

from collections.abc import Iterator

import pytest
from trimtab import Client

from tests.support.fake_server import FakeServer, run_fake


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """Runs a fake server."""
    with run_fake() as fake:
        yield fake


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    """Makes a client of the running server."""
    with Client(fake.target) as client:
        yield client
