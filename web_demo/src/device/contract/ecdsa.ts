/** ECDSA P-256 with SHA-256 through WebCrypto: keys as DER, signatures as DER, both read strictly. */
import { ContractError } from "../errors.ts";
import { fromBase64, hex, type Bytes } from "./bytes.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256" } as const;
const SCALAR_BYTES = 32;
const SEQUENCE = 0x30;
const INTEGER = 0x02;
const PEM = /^-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----\s*$/;

/**
 * Read a public key.
 *
 * @param der - SubjectPublicKeyInfo.
 * @throws ContractError - Not such a key, or not ECDSA P-256.
 */
export async function importKey(der: Bytes): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey("spki", der, ALGORITHM, true, ["verify"]);
  } catch (error) {
    // WebCrypto says DataError for another curve or broken bytes; Node adds errors of its own kinds.
    if (!(error instanceof Error)) throw error;
    throw new ContractError("A public key is not an ECDSA P-256 key.");
  }
}

/**
 * Read a public key in PEM.
 *
 * @throws ContractError - As {@link importKey}.
 */
export async function importPem(pem: string): Promise<CryptoKey> {
  const body = PEM.exec(pem)?.[1];
  if (body === undefined) throw new ContractError("A public key is not in PEM.");
  return importKey(fromBase64(body.replaceAll(/\s/g, "")));
}

/** Return what is the same for one public key however its text was spelt: its SubjectPublicKeyInfo, in hex. */
export async function keyIdentity(key: CryptoKey): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.exportKey("spki", key)));
}

/**
 * Say whether a key signed a message.
 *
 * @param signature - DER: SEQUENCE of two INTEGERs. Anything else is no signature.
 */
export async function verify(key: CryptoKey, signature: Bytes, message: Bytes): Promise<boolean> {
  const raw = rawSignature(signature);
  return raw !== null && crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, raw, message);
}

/**
 * Turn a DER signature into r and s of 32 bytes each (IEEE P1363), which is what WebCrypto takes.
 *
 * @returns Null unless it is minimal DER (X.690, 8.3.2 and 10.1) of two positive numbers that fit.
 */
export function rawSignature(der: Uint8Array): Bytes | null {
  // Two numbers of at most 33 bytes make less than 128: the length has one byte.
  if (der.length < 2 || der[0] !== SEQUENCE || der[1] !== der.length - 2 || der.length > 72) return null;
  const raw = new Uint8Array(2 * SCALAR_BYTES);
  let at = 2;
  for (const end of [SCALAR_BYTES, 2 * SCALAR_BYTES]) {
    const size = der[at + 1];
    if (der[at] !== INTEGER || size === undefined || size === 0 || at + 2 + size > der.length) return null;
    const scalar = positive(der.subarray(at + 2, at + 2 + size));
    if (scalar === null) return null;
    raw.set(scalar, end - scalar.length);
    at += 2 + size;
  }
  return at === der.length ? raw : null;
}

function positive(integer: Uint8Array): Uint8Array | null {
  const first = integer[0]!;
  if (first >= 0x80) return null;
  const padded = first === 0 && integer.length > 1;
  if (padded && integer[1]! < 0x80) return null;
  const scalar = padded ? integer.subarray(1) : integer;
  return scalar.length > SCALAR_BYTES ? null : scalar;
}
