"""model.sig: a signature over every file of a bundle, in the OpenSSF Model Signing v1 format.

A sigstore bundle v0.3 (JSON) holds a DSSE envelope around an in-toto statement that lists the SHA-256 of every file.
Keys are ECDSA P-256. Made and checked with ``cryptography`` alone; the ``model-signing`` package is a test oracle.

Sources: OpenSSF Model Signing specification v1.0, https://github.com/ossf/model-signing-spec; DSSE v1 protocol,
https://github.com/secure-systems-lab/dsse (pre-authentication encoding); in-toto Statement v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_runtime.contract import checks
from edge_runtime.errors import ContractError, TrustError

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_SIGNATURE_BYTES = 1 << 20
SIGNATURE_NAME = "model.sig"


def sign(files: Mapping[str, bytes], private_key: ec.EllipticCurvePrivateKey, *, name: str = "model") -> bytes:
    """Sign files.

    Args:
        files: Content by name, without ``model.sig``.
        private_key: ECDSA P-256.
        name: The statement's subject, for people.

    Returns:
        The content of ``model.sig``. ECDSA nonces are deterministic (RFC 6979), so that packing is reproducible.
    """
    payload = json.dumps(_statement(files, name), indent=None, sort_keys=True).encode()
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    signature = private_key.sign(_pre_authentication_encoding(payload), algorithm)
    bundle = {
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(private_key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True).encode()


def verify(signature: bytes, files: Mapping[str, bytes], public_key: ec.EllipticCurvePublicKey) -> None:
    """Check that a key signed exactly these files.

    1. The envelope is one this format knows. 2. Its signature is the key's. 3. The statement lists exactly the files
    at hand. 4. Every digest is theirs.

    Args:
        signature: The content of ``model.sig``.
        files: Content by name, without ``model.sig``.
        public_key: ECDSA P-256.

    Raises:
        TrustError: With reason ``bad_signature``.
    """
    try:
        payload, raw_signature = _open_envelope(signature)  # 1
        public_key.verify(raw_signature, _pre_authentication_encoding(payload), ec.ECDSA(hashes.SHA256()))  # 2
        listed = _listed(payload)
    except (ContractError, InvalidSignature, binascii.Error, ValueError) as error:
        detail = error.message if isinstance(error, ContractError) else "the key did not sign it"
        raise _refusal(f"model.sig does not verify: {detail}") from error
    if set(listed) != set(files):  # 3
        difference = ", ".join(sorted(set(listed) ^ set(files))[:5])
        raise _refusal(f"model.sig lists other files than the bundle holds: {difference}")
    for name, content in files.items():  # 4
        if hashlib.sha256(content).hexdigest() != listed[name]:
            raise _refusal(f"{name} is not the file that was signed")


def public_key_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as targets.json carries it: base64 of its DER SubjectPublicKeyInfo."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def load_public_key_text(text: str) -> ec.EllipticCurvePublicKey:
    """Read a public key from base64 of its DER SubjectPublicKeyInfo.

    Raises:
        TrustError: Not such a key, or not ECDSA P-256; reason ``bad_key``.
    """
    try:
        key = serialization.load_der_public_key(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise TrustError("The signer's public key cannot be read.", reason="bad_key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError("The signer's public key is not an ECDSA P-256 key.", reason="bad_key")
    return key


def _statement(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    digests = {file: hashlib.sha256(files[file]) for file in sorted(files)}
    whole = hashlib.sha256(b"".join(digest.digest() for digest in digests.values()))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME],
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest.hexdigest()} for file, digest in digests.items()
            ],
        },
    }


def _open_envelope(signature: bytes) -> tuple[bytes, bytes]:
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise ContractError("it is too large")
    bundle = checks.parse_object(signature, "model.sig")
    envelope = checks.table(checks.get(bundle, "dsseEnvelope"), "dsseEnvelope")
    signatures = checks.array(checks.get(envelope, "signatures"), "signatures", most=1)
    if bundle.get("mediaType") != BUNDLE_MEDIA_TYPE or envelope.get("payloadType") != PAYLOAD_TYPE or not signatures:
        raise ContractError("it is of a kind that this program does not know")
    encoded = checks.text(checks.get(checks.table(signatures[0], "signatures"), "sig"), "sig", most=512)
    payload = checks.text(checks.get(envelope, "payload"), "payload", most=MAX_SIGNATURE_BYTES)
    return base64.b64decode(payload, validate=True), base64.b64decode(encoded, validate=True)


def _listed(payload: bytes) -> dict[str, str]:
    statement = checks.parse_object(payload, "The statement in model.sig")
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != PREDICATE_TYPE:
        raise ContractError("its statement is of a kind that this program does not know")
    predicate = checks.table(checks.get(statement, "predicate"), "predicate")
    listed: dict[str, str] = {}
    for item in checks.array(checks.get(predicate, "resources"), "resources", most=1024):
        resource = checks.table(item, "resources")
        if resource.get("algorithm") != "sha256":
            raise ContractError("it uses another digest than SHA-256")
        name = checks.text(checks.get(resource, "name"), "name")
        if name in listed:
            raise ContractError(f"it lists {name!r} twice")
        listed[name] = checks.hex64(checks.get(resource, "digest"), "digest")
    whole = hashlib.sha256(b"".join(bytes.fromhex(listed[name]) for name in sorted(listed))).hexdigest()
    subjects = checks.array(checks.get(statement, "subject"), "subject", most=1)
    if not subjects or checks.table(subjects[0], "subject").get("digest") != {"sha256": whole}:
        raise ContractError("its subject is not the digest of the files it lists")
    return listed


def _pre_authentication_encoding(payload: bytes) -> bytes:
    # DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _refusal(message: str) -> TrustError:
    return TrustError(
        f"{message}.",
        reason="bad_signature",
        advice="Do not use this bundle; fetch it again, and ask the release engineers when it stays so.",
    )
