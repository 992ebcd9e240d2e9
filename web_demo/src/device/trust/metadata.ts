/**
 * One TUF metadata file, read strictly: envelope, fields of its role, and whether a role's keys signed it.
 *
 * Bytes in, a checked value or an error out: nothing here fetches or stores.
 *
 * Source: The Update Framework specification 1.0.34, sections 4.2 to 4.6.
 */
import { ContractError, TrustError } from "../errors.ts";
import { fromHex, type Bytes } from "../contract/bytes.ts";
import * as checks from "../contract/checks.ts";
import { importPem, keyIdentity, verify } from "../contract/ecdsa.ts";
import { parseObject, type Json, type JsonObject } from "../contract/json.ts";
import { canonicalBytes } from "./canonical.ts";
import { refused } from "./refusals.ts";

/** A top-level role; there are no delegations. */
export type RoleName = "root" | "timestamp" | "snapshot" | "targets";

const MAX_SIGNATURES = 64;
const MAX_KEYS = 64;
const EXPIRES = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/;

/** What every role's metadata has. */
export interface Metadata {
  readonly role: RoleName;
  readonly version: number;
  /** UTC epoch milliseconds. */
  readonly expiresMs: number;
  /** The signed part, fields of ours included. */
  readonly signed: JsonObject;
  /** What the signatures cover. */
  readonly signedBytes: Bytes;
  readonly signatures: readonly { readonly keyId: string; readonly signature: Bytes }[];
}

/** Who may sign a role, and how many must. */
export interface RoleKeys {
  /** Public keys in PEM by their ids. */
  readonly keys: ReadonlyMap<string, string>;
  readonly threshold: number;
}

/** root.json: who may sign what. */
export interface Root extends Metadata {
  readonly roles: Readonly<Record<RoleName, RoleKeys>>;
}

/** What one metadata file says of another, or targets.json of a bundle. */
export interface FileFacts {
  readonly version: number;
  /** Bytes, or null when it is not said. */
  readonly length: number | null;
  /** SHA-256 in hex, or null when it is not said. */
  readonly sha256: string | null;
}

/**
 * Read metadata of a role; signatures are read, not yet checked.
 *
 * @throws TrustError - It cannot be read (reason `metadata_invalid`).
 */
export function readMetadata(data: Bytes, role: RoleName): Metadata {
  return readable(role, () => {
    const value = parseObject(data, `${role}.json`);
    const signed = checks.table(checks.get(value, "signed"), "signed");
    if (checks.get(signed, "_type") !== role) throw new ContractError(`It is no ${role} metadata.`);
    const spec = checks.text(checks.get(signed, "spec_version"), "spec_version", 32);
    if (!/^1\.\d+(\.\d+)?$/.test(spec)) throw new ContractError(`Its spec_version is ${spec}.`);
    return {
      role,
      version: checks.integer(checks.get(signed, "version"), "version", { least: 1 }),
      expiresMs: readExpiry(checks.get(signed, "expires")),
      signed,
      signedBytes: canonicalBytes(signed),
      signatures: readSignatures(checks.get(value, "signatures")),
    };
  });
}

/**
 * Read root.json.
 *
 * @throws TrustError - It cannot be read (reason `metadata_invalid`).
 */
export function readRoot(data: Bytes): Root {
  const metadata = readMetadata(data, "root");
  return readable("root", () => {
    if (checks.optional(metadata.signed, "consistent_snapshot") !== true) {
      throw new ContractError("Its repository has no consistent snapshots.");
    }
    const keys = checks.table(checks.get(metadata.signed, "keys"), "keys");
    const roles = checks.table(checks.get(metadata.signed, "roles"), "roles");
    const role = (name: RoleName): RoleKeys => readRole(checks.table(checks.get(roles, name), name), keys);
    return {
      ...metadata,
      roles: { root: role("root"), timestamp: role("timestamp"), snapshot: role("snapshot"), targets: role("targets") },
    };
  });
}

/**
 * Read what snapshot.json or timestamp.json says of another metadata file.
 *
 * @throws TrustError - It says nothing of it, or cannot be read (reason `metadata_invalid`).
 */
export function readFileFacts(metadata: Metadata, name: string): FileFacts {
  return readable(metadata.role, () => {
    const meta = checks.table(checks.get(metadata.signed, "meta"), "meta");
    const entry = checks.table(checks.get(meta, name), name);
    const length = checks.optional(entry, "length");
    return {
      version: checks.integer(checks.get(entry, "version"), "version", { least: 1 }),
      length: length === null ? null : checks.integer(length, "length", { least: 1 }),
      sha256: readSha256(checks.optional(entry, "hashes")),
    };
  });
}

/**
 * Check that enough of a role's keys signed metadata; one key counts once, under whatever ids and in whatever spelling
 * it is listed.
 *
 * @throws TrustError - Fewer than the threshold (reason `metadata_unsigned`).
 */
export async function checkSigned(metadata: Metadata, role: RoleKeys): Promise<void> {
  const valid = new Set<string>();
  for (const { keyId, signature } of metadata.signatures) {
    const pem = role.keys.get(keyId);
    const signer = pem === undefined ? null : await signerOf(pem, signature, metadata.signedBytes);
    if (signer !== null) valid.add(signer);
  }
  if (valid.size < role.threshold) {
    throw refused("metadata_unsigned", `${metadata.role} has ${valid.size} of ${role.threshold} signatures`);
  }
}

/** Return the key itself if it signed the message, else null. */
async function signerOf(pem: string, signature: Bytes, message: Bytes): Promise<string | null> {
  try {
    const key = await importPem(pem);
    return (await verify(key, signature, message)) ? await keyIdentity(key) : null;
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    return null; // a key that cannot be read signs nothing
  }
}

function readRole(value: JsonObject, keys: JsonObject): RoleKeys {
  const ids = checks.array(checks.get(value, "keyids"), "keyids", MAX_KEYS).map((id) => checks.text(id, "keyids"));
  if (new Set(ids).size !== ids.length) throw new ContractError("A role names a key twice.");
  const threshold = checks.integer(checks.get(value, "threshold"), "threshold", { least: 1, most: MAX_KEYS });
  return { keys: new Map(ids.map((id) => [id, readKey(checks.table(checks.get(keys, id), "keys"))])), threshold };
}

function readKey(value: JsonObject): string {
  const kind = [checks.optional(value, "keytype"), checks.optional(value, "scheme")];
  if (kind[0] !== "ecdsa" || kind[1] !== "ecdsa-sha2-nistp256") {
    throw new ContractError("A key is not an ECDSA P-256 key.");
  }
  const pem = checks.get(checks.table(checks.get(value, "keyval"), "keyval"), "public");
  if (typeof pem !== "string" || pem.length > 1024) throw new ContractError("A key is not in PEM.");
  return pem;
}

function readSignatures(value: Json): Metadata["signatures"] {
  const seen = new Set<string>();
  return checks.array(value, "signatures", MAX_SIGNATURES).map((item) => {
    const entry = checks.table(item, "signatures");
    const keyId = checks.text(checks.get(entry, "keyid"), "keyid");
    if (seen.has(keyId)) throw new ContractError("A key signs twice.");
    seen.add(keyId);
    return { keyId, signature: fromHex(checks.text(checks.get(entry, "sig"), "sig", 512)) };
  });
}

function readExpiry(value: Json): number {
  const moment = typeof value === "string" && EXPIRES.test(value) ? Date.parse(value) : NaN;
  if (!Number.isFinite(moment)) throw new ContractError("Its time of expiry cannot be read.");
  return moment;
}

/**
 * Read the SHA-256 among hashes.
 *
 * @throws ContractError - Hashes are given, and none of them is a SHA-256.
 */
export function readSha256(hashes: Json): string | null {
  if (hashes === null) return null;
  return checks.hex64(checks.get(checks.table(hashes, "hashes"), "sha256"), "sha256");
}

function readable<T>(role: RoleName, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ContractError) || error instanceof TrustError) throw error;
    throw refused("metadata_invalid", `${role}.json: ${error.message.replace(/\.$/, "")}`);
  }
}
