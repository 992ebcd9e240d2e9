"""Reading a bundle is for hostile input: each trick is named after what it tries."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract import archive, signature
from edge_runtime.contract.archive import Limits
from edge_runtime.contract.bundle import check_signature, open_bundle
from edge_runtime.errors import ContractError, StellaError, TrustError

from .goldens import TEST_KEY, bundle_files

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def _zip(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries:
            made.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


@given(st.dictionaries(NAMES, st.binary(max_size=200), max_size=8))
def test_what_is_packed_unpacks(files: dict[str, bytes]) -> None:
    if not files:
        return
    packed = archive.pack(files)
    assert archive.unpack(packed) == files
    assert archive.pack(dict(reversed(list(files.items())))) == packed


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", "C:\\x", "a\\b", "", ".hidden", "x" * 65, "ü"])
def test_names_that_climb_are_refused(name: str) -> None:
    with pytest.raises(ContractError):
        archive.unpack(_zip((name, b"x")))


def test_a_name_cut_at_a_nul_byte_is_refused() -> None:
    with pytest.raises(ContractError, match="no name"):
        archive.unpack(_zip(("a_b", b"x")).replace(b"a_b", b"a\0b"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ContractError, match="twice"):
        archive.unpack(_zip(("a", b"1"), ("a", b"2")))


def test_an_archive_that_claims_ten_gigabytes_is_refused_before_it_is_read() -> None:
    honest = bytearray(_zip(("a", b"x" * 100)))
    central = honest.index(b"PK\x01\x02")
    struct.pack_into("<I", honest, central + 24, 0xF0000000)
    with pytest.raises(ContractError, match="claims more"):
        archive.unpack(bytes(honest))


def test_a_bomb_that_claims_little_stays_little() -> None:
    honest = bytearray(_zip(("a", b"\0" * 5_000_000)))
    central = honest.index(b"PK\x01\x02")
    struct.pack_into("<I", honest, central + 24, 10)
    with pytest.raises(ContractError):
        archive.unpack(bytes(honest))


def test_limits_hold() -> None:
    data = _zip(("a", b"1"), ("b", b"2"))
    with pytest.raises(ContractError, match="at most 1 are read"):
        archive.unpack(data, Limits(files=1))
    with pytest.raises(ContractError, match="at most 10"):
        archive.unpack(data, Limits(bundle_bytes=10))


def test_other_compression_is_refused() -> None:
    with pytest.raises(ContractError, match="unknown way"):
        archive.unpack(_zip(("a", b"1" * 100), method=zipfile.ZIP_BZIP2))


@pytest.mark.parametrize("data", [b"", b"PK", b"<html>no</html>", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(ContractError):
        archive.unpack(data)


def test_bytes_around_the_archive_are_refused() -> None:
    data = _zip(("a", b"1"))
    for changed in (b"#!/bin/sh\n" + data, data + b"more"):
        with pytest.raises(ContractError):
            archive.unpack(changed)


def test_a_changed_byte_anywhere_is_never_taken_for_the_signed_bundle() -> None:
    """Each byte flipped in turn: the archive, the manifest, the signature or the file's own digest notices.

    Bytes of a zip that carry no content (times, modes) may open; the digest that TUF signs covers them.
    """
    files = bundle_files()
    data = archive.pack({**files, "model.sig": signature.sign(files, TEST_KEY)})
    signer = signature.public_key_text(TEST_KEY.public_key())
    original = open_bundle(data)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]
        try:
            bundle = open_bundle(changed)
            check_signature(bundle, signer)
        except StellaError:
            continue
        assert bundle.files == original.files
        assert bundle.digest != original.digest


@pytest.mark.parametrize("name", sorted(bundle_files()))
def test_a_missing_or_added_or_changed_file_is_noticed(name: str) -> None:
    files = bundle_files()
    signed = {**files, "model.sig": signature.sign(files, TEST_KEY)}
    signer = signature.public_key_text(TEST_KEY.public_key())
    without = {key: value for key, value in signed.items() if key != name}
    with pytest.raises(ContractError):
        open_bundle(archive.pack(without))
    with pytest.raises(ContractError):
        open_bundle(archive.pack({**signed, "extra.txt": b"x"}))
    with pytest.raises((ContractError, TrustError)):
        check_signature(open_bundle(archive.pack({**signed, name: signed[name] + b" "})), signer)


def test_a_bundle_of_a_newer_format_says_so() -> None:
    files = bundle_files()
    files["manifest.json"] = files["manifest.json"].replace(b'"format":1', b'"format":2')
    with pytest.raises(ContractError, match="format 2") as caught:
        open_bundle(archive.pack({**files, "model.sig": b"{}"}))
    assert "Update" in caught.value.advice


def test_another_key_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    files = bundle_files()
    bundle = open_bundle(archive.pack({**files, "model.sig": signature.sign(files, TEST_KEY)}))
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(TrustError) as caught:
        check_signature(bundle, signature.public_key_text(other))
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    "text", ["", "AAAA", "not base64!", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="]
)
def test_a_signer_that_is_no_p256_key_is_refused(text: str) -> None:
    with pytest.raises(TrustError) as caught:
        signature.load_public_key_text(text)
    assert caught.value.reason == "bad_key"
