"""The archive of a bundle: a plain zip with flat names, written reproducibly and read within limits.

Reading is for hostile input: names are checked against one pattern, so nothing can climb out of a folder; sizes are
bounded before and while anything is inflated; nothing is executed or unpickled.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.errors import ContractError

MANIFEST_NAME = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The earliest time a zip can hold: nothing in a bundle depends on when it was packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_UNIX = 3
_ENCRYPTED = 0x1
_CHUNK = 1 << 16
_FIRST_ENTRY = b"PK\x03\x04"
# End of central directory record without a comment (APPNOTE.TXT 4.3.16): 22 bytes.
_END = b"PK\x05\x06"
_END_BYTES = 22


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader is ready to hold.

    Attributes:
        bundle_bytes: Size of the archive.
        unpacked_bytes: Size of all files together.
        files: Number of files.
    """

    bundle_bytes: int = 64 * 2**20
    unpacked_bytes: int = 256 * 2**20
    files: int = 64


DEFAULT_LIMITS = Limits()


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of some files; the same files give the same bytes.

    Args:
        files: Content by name. ``manifest.json`` comes first, the others by name.

    Returns:
        A zip: deflated entries, times of 1980, mode 0644.

    Raises:
        ContractError: A name breaks the rule.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files, key=lambda name: (name != MANIFEST_NAME, name)):
            _check_name(name)
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _MODE
            entry.create_system = _UNIX
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """Read an archive within limits.

    Args:
        data: The bytes of the zip.
        limits: What the reader is ready to hold.

    Returns:
        Content by name.

    Raises:
        ContractError: Not a zip, too large, too many files, a name that breaks the rule or stands twice, encryption,
            another compression, a declared size that is not true, a damaged entry, or bytes around the archive.
    """
    if len(data) > limits.bundle_bytes:
        raise ContractError(f"The bundle has {len(data)} bytes; at most {limits.bundle_bytes} are read.")
    # A reader that seeks its own way could see another archive in bytes before, behind or in a comment.
    if not data.startswith(_FIRST_ENTRY) or data[-_END_BYTES:][:4] != _END:
        raise ContractError("The bundle is not a whole zip archive.", advice="Download it again.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _checked(archive, limits)
            files = {entry.filename: _inflate(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError) as error:
        raise ContractError(f"The bundle is not a whole zip archive: {error}.", advice="Download it again.") from error
    return files


def _checked(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise ContractError(f"The bundle holds {len(entries)} files; at most {limits.files} are read.")
    if sum(entry.file_size for entry in entries) > limits.unpacked_bytes:
        raise ContractError(f"The bundle claims more than {limits.unpacked_bytes} bytes unpacked.")
    seen: set[str] = set()
    for entry in entries:
        # orig_filename is what the archive says; ZipFile cuts filename at a NUL byte.
        _check_name(entry.orig_filename)
        if entry.orig_filename in seen:
            raise ContractError(f"The bundle holds {entry.orig_filename!r} twice.")
        seen.add(entry.orig_filename)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & _ENCRYPTED:
            raise ContractError(f"{entry.filename!r} in the bundle is encrypted or compressed in an unknown way.")
    return entries


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # ZipExtFile stops at the declared size and checks the CRC there, so memory stays within the sum checked above.
    content = bytearray()
    with archive.open(entry) as stream:
        while chunk := stream.read(_CHUNK):
            content += chunk
    if len(content) != entry.file_size:
        raise ContractError(f"{entry.filename!r} in the bundle is not as long as the archive says.")
    return bytes(content)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ContractError(f"{name[:80]!r} is no name for a file in a bundle.")
