"""Release keys: made once, opened with a passphrase, refused when they are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import InputError, StorageError, TrustError
from exporter.keys import create_key, load_key, load_public_key, require_role


def refuse_to_ask() -> bytes:
    raise AssertionError("a passphrase was asked for")


def test_key_survives_the_file_and_keeps_its_role(tmp_path: Path) -> None:
    made = create_key(tmp_path / "k" / "root.key", "root", b"secret words")
    loaded = load_key(tmp_path / "k" / "root.key", lambda: b"secret words")
    public = load_public_key(tmp_path / "k" / "root.key.pub")
    assert made.public.text == loaded.public.text == public.text
    assert loaded.role == public.role == "root"


def test_private_file_is_for_its_owner_only_and_encrypted(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", "targets", b"secret words")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in (tmp_path / "a.key").read_bytes()


def test_open_key_asks_for_no_passphrase(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", "targets", None)
    assert load_key(tmp_path / "a.key", refuse_to_ask).role == "targets"


def test_wrong_passphrase_is_a_refusal_of_trust(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", "targets", b"right")
    with pytest.raises(TrustError, match="does not open") as caught:
        load_key(tmp_path / "a.key", lambda: b"wrong")
    assert caught.value.exit_code == 4


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", "root", None)
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        create_key(tmp_path / "a.key", "targets", None)
    (tmp_path / "b.key.pub").write_text("somebody's")
    with pytest.raises(InputError, match=r"b\.key\.pub exists"):
        create_key(tmp_path / "b.key", "root", None)
    assert (tmp_path / "a.key").read_bytes() == before
    assert not (tmp_path / "b.key").exists()


def test_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        create_key(tmp_path / "a.key", "root", b"")


def test_two_keys_in_a_file_are_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "a.key", "root", None)
    create_key(tmp_path / "b.key", "targets", None)
    both = tmp_path / "both.key"
    both.write_bytes((tmp_path / "a.key").read_bytes() + (tmp_path / "b.key").read_bytes())
    with pytest.raises(InputError, match="holds 2 keys"):
        load_key(both, refuse_to_ask)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError):
        load_key(tmp_path / "x", refuse_to_ask)
    with pytest.raises(InputError):
        load_public_key(tmp_path / "x")


def test_other_kinds_of_key_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / "x").write_bytes(pem)
        with pytest.raises(InputError, match="P-256"):
            load_key(tmp_path / "x", refuse_to_ask)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keys create"):
        load_key(tmp_path / "none", refuse_to_ask)


def test_role_of_the_file_is_held_to(tmp_path: Path) -> None:
    key = create_key(tmp_path / "a.key", "root", None)
    with pytest.raises(InputError, match="is a root key, not a targets key"):
        require_role(key, "targets", tmp_path / "a.key")
    require_role(key, "root", tmp_path / "a.key")


def test_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        create_key(tmp_path / "file" / "a.key", "root", None)
