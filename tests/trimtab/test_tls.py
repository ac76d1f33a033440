"""Tests the clients and the command over TLS, with a certificate created for the test."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from trimtab import AsyncClient, Client, Unavailable
from trimtab.cli import main
from trimtab.v1 import recommendation_pb2_grpc

from tests.support.fake_server import FakeServer, Recommendations


@dataclass
class Encrypted:
    """A server that accepts only TLS, and the certificate of its authority."""

    fake: FakeServer
    target: str
    ca: Path


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Encrypted]:
    """Starts a server for "localhost"."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to create a certificate")
    key = tmp_path / "key.pem"
    ca = tmp_path / "ca.pem"
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                str(key),
                "-out",
                str(ca),
            ),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    fake = FakeServer()
    server = grpc.server(ThreadPoolExecutor(4))
    recommendation_pb2_grpc.add_RecommendationServiceServicer_to_server(
        Recommendations(fake), server
    )
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), ca.read_bytes())])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield Encrypted(fake, f"localhost:{port}", ca)
    server.stop(None).wait()


async def test_both_clients_use_tls_and_send_their_token(encrypted: Encrypted) -> None:
    credentials = grpc.ssl_channel_credentials(encrypted.ca.read_bytes())
    with Client(encrypted.target, credentials=credentials, token="secret") as client:
        client.recommend(42)
    async with AsyncClient(encrypted.target, credentials=credentials, token="secret") as client:
        await client.recommend(42)
    assert [metadata["authorization"] for metadata in encrypted.fake.metadata] == [
        "Bearer secret"
    ] * 2


def test_a_server_with_an_unknown_authority_is_refused(encrypted: Encrypted) -> None:
    with (
        Client(encrypted.target, credentials=grpc.ssl_channel_credentials()) as client,
        pytest.raises(Unavailable),
    ):
        client.recommend(42)
    assert encrypted.fake.requests == []


def test_the_command_uses_tls_with_a_given_authority(encrypted: Encrypted) -> None:
    argv = ["--target", encrypted.target, "recommend", "--user", "42"]
    assert main([*argv, "--ca", str(encrypted.ca)]) == 0
    assert main([*argv, "--tls"]) == 1
    assert main(argv) == 1
    assert len(encrypted.fake.requests) == 1
