"""Bundles in S3, against moto's server: published, served whole and in parts, and each thing that can be wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from moto.server import ThreadedMotoServer
from simulators.bundles import SmallBundle
from simulators.release_engineer import ReleaseEngineer, multipart

from edge_runtime.errors import InputError
from sync_server.app import create_app
from sync_server.blobs import Blobs
from sync_server.config import ServerConfig
from sync_server.db import Database
from sync_server.repository.online_key import load_or_create, public_pem

pytestmark = pytest.mark.usefixtures("readiness_afresh")


def _ask(method: str, url: str, body: bytes = b"") -> None:
    urllib.request.urlopen(
        urllib.request.Request(url, body, {"Content-Type": "text/plain"}, method=method), timeout=10
    ).close()


@pytest.fixture(scope="module")
def moto() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def endpoint(moto: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty S3 without a bucket, named by the environment as operators name theirs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    _, port = moto.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    _ask("POST", f"{url}/moto-api/reset")
    for name, value in {
        "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return url


@pytest.fixture
def bucket(endpoint: str) -> str:
    _ask("PUT", f"{endpoint}/bundles")
    return endpoint


@pytest.fixture
def client(server_config: ServerConfig, database: Database, endpoint: str) -> FlaskClient:
    config = dataclasses.replace(server_config, blobs_url="s3://bundles/stella")
    load_or_create(config.online_key_path)
    return create_app(config, database).test_client()


@pytest.fixture
def publish(client: FlaskClient, auth: Callable[..., dict[str, str]]) -> Callable[[], tuple[int, str, bytes]]:
    """Return a function that publishes a release, and returns the status, the bundle's place and its bytes."""

    def send() -> tuple[int, str, bytes]:
        key = load_or_create(client.application.extensions["config"].online_key_path)
        engineer = ReleaseEngineer(public_pem(key))
        bundle = SmallBundle(version="v1", release_number=1).build()
        parts = {**engineer.sign_root(), **engineer.sign_targets(bundle)}
        answer = client.post("/api/publish", data=multipart(parts), headers=auth("pub"))
        (path, data) = next((name.removeprefix("targets/"), data) for name, data in parts.items() if "targets/" in name)
        return answer.status_code, path, data

    return send


@pytest.mark.usefixtures("bucket")
def test_published_and_served(client: FlaskClient, publish: Callable[[], tuple[int, str, bytes]]) -> None:
    status, path, data = publish()
    assert status == 201
    folder, _, name = path.rpartition("/")
    url = f"/repository/targets/{folder}/{hashlib.sha256(data).hexdigest()}.{name}"
    whole = client.get(url)
    assert (whole.status_code, whole.data) == (200, data)
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.data) == (206, data[100:200])
    assert client.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert client.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert client.head(url).content_length == len(data)
    assert client.get("/health/ready").json["checks"]["blobs"] == "ok"


def test_a_missing_bucket(
    client: FlaskClient, publish: Callable[[], tuple[int, str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    assert publish()[0] == 503
    assert "the bucket does not exist. Make it, or correct the setting blobs_url." in caplog.text
    assert client.get("/health/ready").json["checks"]["blobs"] != "ok"
    assert client.get("/repository/metadata/timestamp.json").status_code == 404, "nothing was published"


def test_wrong_credentials(
    client: FlaskClient, bucket: str, publish: Callable[[], tuple[int, str, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    _ask("POST", f"{bucket}/moto-api/reset-auth", b"0")  # from now on moto looks at credentials
    try:
        assert publish()[0] == 503
        assert "the credentials are refused. Check the AWS_* environment" in caplog.text
        assert client.get("/health/ready").json["checks"]["blobs"] != "ok"
    finally:
        _ask("POST", f"{bucket}/moto-api/reset-auth", b"inf")


def test_a_store_that_is_away(
    client: FlaskClient,
    publish: Callable[[], tuple[int, str, bytes]],
    endpoint: str,
    server_config: ServerConfig,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    blobs = Blobs.from_config(dataclasses.replace(server_config, blobs_url="s3://bundles/stella"))
    client.application.extensions["blobs"] = blobs
    assert publish()[0] == 503
    assert "could not be stored" in caplog.text
    assert client.get("/health/ready").json["checks"]["blobs"] != "ok"


def test_no_store_of_that_kind(server_config: ServerConfig) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        Blobs.from_config(dataclasses.replace(server_config, blobs_url="ftp://bundles"))
