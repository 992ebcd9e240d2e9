"""Publishing over HTTP: once, again, and against servers that misbehave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.publish_server import PublishServer, problem, serving
from simulators.release_desk import NOW, ReleaseDesk
from werkzeug.wrappers import Request, Response

from edge_runtime.errors import InputError, TransportError, TrustError
from exporter.channels import change_channel, show_channel, start_rollout
from exporter.keys import create_key
from exporter.publish import publish_release, server_state, update_repository
from exporter.release import adopt_release, prepare_release, sign_release
from exporter.repository import load_repository, renew_root
from exporter.server import Server


@pytest.fixture
def desk(tmp_path: Path) -> ReleaseDesk:
    return ReleaseDesk(tmp_path)


@pytest.fixture
def remote(desk: ReleaseDesk) -> Iterator[PublishServer]:
    with serving(PublishServer(desk.online.public.pem.decode())) as server:
        yield server


def connect(remote: PublishServer, waits: list[float] | None = None) -> Server:
    return Server(remote.url, "st_pub_x", sleep=(waits if waits is not None else []).append)


def test_first_publish_brings_root_and_bundles(desk: ReleaseDesk, remote: PublishServer) -> None:
    folder, summary = desk.prepare(1, "phone")
    published = publish_release(connect(remote), folder)
    assert (published.root_version, published.targets_version) == (1, 1)
    assert published.added == summary.added
    assert set(remote.bundles) == set(summary.added)
    assert 1 in remote.roots


def test_publishing_again_changes_nothing(desk: ReleaseDesk, remote: PublishServer) -> None:
    folder, _ = desk.prepare(1)
    publish_release(connect(remote), folder)
    again = publish_release(connect(remote), folder)
    assert again.held_already
    assert [method for method, _ in remote.requests].count("POST") == 1


def test_answer_lost_after_the_server_took_it(desk: ReleaseDesk, remote: PublishServer) -> None:
    folder, _ = desk.prepare(1)
    remote.after.append(lambda request: Response("<h1>Bad gateway</h1>", 502, content_type="text/html"))
    waits: list[float] = []
    published = publish_release(connect(remote, waits), folder)
    assert published.held_already
    assert published.targets_version == 1
    assert waits == [1.0]


def test_second_release_withdraws_what_nothing_runs(desk: ReleaseDesk, remote: PublishServer) -> None:
    for number in (1, 2, 3):
        state = server_state(connect(remote))
        folder, _ = desk.prepare(number, in_use=state.in_use, keep=1)
        published = publish_release(connect(remote), folder)
        adopt_release(desk.repository_folder, folder)
        if number == 1:
            start_rollout(connect(remote), "stable", "fleet", 1, 10_000)
    assert published.withdrawn == ("fleet/1.2/default.bundle",)
    assert set(remote.bundles) == {"fleet/1.1/default.bundle", "fleet/1.3/default.bundle"}


def test_somebody_published_before(desk: ReleaseDesk, remote: PublishServer, tmp_path: Path) -> None:
    mine, _ = desk.prepare(1)
    theirs, _ = desk.prepare(2)
    publish_release(connect(remote), theirs)
    with pytest.raises(TransportError, match="next targets version is 2") as caught:
        publish_release(connect(remote), mine)
    assert caught.value.exit_code == 5
    updated = update_repository(connect(remote), desk.repository)
    assert updated.targets is not None
    assert updated.next_release_number("fleet") == 3
    publish_release(connect(remote), desk.prepare(3)[0])


def test_update_brings_newer_roots_and_refuses_a_server_that_went_back(
    desk: ReleaseDesk, remote: PublishServer, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(desk.repository_folder, tmp_path / "old")
    renew_root(desk.repository, signers=[desk.root], online_key=None, now=NOW)
    folder, _ = desk.prepare(1)
    publish_release(connect(remote), folder)
    assert set(remote.roots) == {1, 2}
    assert len(update_repository(connect(remote), load_repository(tmp_path / "old")).roots) == 2
    adopt_release(desk.repository_folder, folder)
    remote.targets.clear()
    with pytest.raises(TrustError, match="holds targets 0, this folder 1"):
        update_repository(connect(remote), desk.repository)


def test_update_refuses_metadata_of_a_stranger(desk: ReleaseDesk, remote: PublishServer, tmp_path: Path) -> None:
    folder, _ = ReleaseDesk(tmp_path / "stranger").prepare(1)
    remote.targets[1] = (folder / "metadata" / "1.targets.json").read_bytes()
    remote.roots[1] = b"not looked at"
    with pytest.raises(TrustError, match="0 of 1 needed targets"):
        update_repository(connect(remote), desk.repository)
    assert desk.repository.targets is None


def test_unsigned_release_is_not_sent(desk: ReleaseDesk, remote: PublishServer) -> None:
    folder, _ = desk.prepare(1, signed=False)
    with pytest.raises(TrustError, match="exporter sign"):
        publish_release(connect(remote), folder)
    assert remote.requests == []


def test_server_with_another_online_key_is_told_before_anything_is_sent(
    desk: ReleaseDesk, remote: PublishServer
) -> None:
    remote.online_key = desk.root.public.pem.decode()
    folder, _ = desk.prepare(1)
    with pytest.raises(TrustError, match="another online key"):
        publish_release(connect(remote), folder)
    assert not remote.bundles


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (Response("<html>oops</html>", 500, content_type="text/html"), r"status 500 and no explanation \(text/html\)"),
        (problem(401, "token_revoked", "The token was revoked."), r"refused \(401\): The token was revoked"),
        (problem(422, "bad_metadata", "Too few signatures."), "Too few signatures"),
        (Response("", 302, headers={"Location": "http://elsewhere"}), "status 302"),
        (Response("<html>log in</html>", 200, content_type="text/html"), "is not JSON"),
        (Response("[1]", 200, content_type="application/json"), "is not JSON"),
        (Response("{", 400, content_type="application/problem+json"), "status 400"),
        (Response('{"channels": {"stable": 3}}', 200, content_type="application/json"), "makes no sense"),
    ],
)
def test_refusals_become_one_sentence(
    desk: ReleaseDesk, remote: PublishServer, response: Response, sentence: str
) -> None:
    folder, _ = desk.prepare(1)
    remote.before.append(lambda request: response)
    with pytest.raises(TransportError, match=sentence) as caught:
        publish_release(connect(remote), folder)
    assert caught.value.exit_code == 5
    assert caught.value.advice
    assert not remote.bundles


def test_not_now_is_retried_as_the_server_asks(desk: ReleaseDesk, remote: PublishServer) -> None:
    busy = problem(503, "busy", "Migrating")
    busy.headers["Retry-After"] = "7"
    remote.before += [lambda request: busy, lambda request: busy]
    waits: list[float] = []
    assert server_state(connect(remote, waits)).targets_version == 0
    assert waits == [7.0, 7.0]


def test_patience_ends(remote: PublishServer) -> None:
    def busy(request: Request) -> Response:
        return problem(503, "busy", "Migrating")

    remote.before += [busy] * 10
    with pytest.raises(TransportError, match="Migrating"):
        server_state(connect(remote))
    assert len(remote.requests) == 4


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransportError, match="refused the connection") as caught:
        server_state(Server(f"http://127.0.0.1:{port}", None, sleep=lambda seconds: None))
    assert "nothing is done twice" in caught.value.advice


@pytest.mark.parametrize("url", ["ftp://x", "edge.example", "https://"])
def test_url_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match="not a server's URL"):
        Server(url, None)


def test_token_stays_off_plain_http() -> None:
    with pytest.raises(TrustError, match="plain http"):
        Server("http://edge.example", "st_pub_x")
    Server("http://edge.example", "st_pub_x", allow_insecure_http=True)
    Server("https://edge.example", "st_pub_x")
    Server("http://[::1]:5000", "st_pub_x")


def test_rollout_is_started_widened_paused_and_rolled_back(remote: PublishServer) -> None:
    server = connect(remote)
    started = start_rollout(server, "stable", "fleet", 1, 2500)
    assert (started.release, started.share, started.state) == (1, 2500, "running")
    assert change_channel(server, "stable", {"action": "share", "share": 5000}).share == 5000
    assert change_channel(server, "stable", {"action": "pause"}).state == "paused"
    assert change_channel(server, "stable", {"action": "roll_back"}).state == "rolled_back"
    assert show_channel(server, "stable").state == "rolled_back"
    assert server_state(server).in_use == {("fleet", 1)}


def test_starting_the_running_rollout_again_is_success(remote: PublishServer) -> None:
    server = connect(remote)
    first = start_rollout(server, "stable", "fleet", 1, 2500)
    assert start_rollout(server, "stable", "fleet", 1, 2500) == first
    with pytest.raises(TransportError, match="still rolls out 1"):
        start_rollout(server, "stable", "fleet", 2, 2500)


def test_refused_start_says_why_and_not_that_nothing_runs(remote: PublishServer) -> None:
    remote.before.append(lambda request: problem(409, "wrong_channel", "Release 1 was not made for channel beta."))
    with pytest.raises(TransportError, match="not made for channel beta"):
        start_rollout(connect(remote), "beta", "fleet", 1, 10_000)


def test_share_out_of_range(remote: PublishServer) -> None:
    with pytest.raises(InputError, match="out of range"):
        start_rollout(connect(remote), "stable", "fleet", 1, 10_001)


def test_keys_changed_here_reach_the_server_with_the_renewed_list(
    desk: ReleaseDesk, remote: PublishServer, tmp_path: Path
) -> None:
    first, _ = desk.prepare(1)
    publish_release(connect(remote), first)
    adopt_release(desk.repository_folder, first)
    new = create_key(tmp_path / "new.key", "targets", None)
    for _ in range(2):
        pending = load_repository(desk.repository_folder, strict=False)
        renew_root(pending, signers=[desk.root], now=NOW, targets_keys=[new.public])
    between = update_repository(connect(remote), load_repository(desk.repository_folder, strict=False))
    folder = tmp_path / "renewed"
    prepare_release(between, [], folder, channels=[], now=NOW, renew=True)
    sign_release(folder, [new])
    published = publish_release(connect(remote), folder)
    assert (published.root_version, published.targets_version) == (3, 2)
    adopt_release(desk.repository_folder, folder)
    assert desk.repository.root.version == 3
