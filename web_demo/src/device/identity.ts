/** Who this device is: the installation id it made for itself, and what enrolment pinned. */
import { StorageError } from "./errors.ts";
import { randomHex } from "./contract/bytes.ts";
import type { Database } from "./store/database.ts";
import { ONLY } from "./store/schema.ts";

/** What enrolment gave and pinned. */
export interface Identity {
  /** The server's name for this device. */
  readonly deviceId: string;
  /** 32 hex digits, made by this installation. */
  readonly installationId: string;
  /** Where metadata, bundles and results travel. */
  readonly serverUrl: string;
  /** The only model this device runs. */
  readonly model: string;
  /** The line of releases it follows. */
  readonly channel: string;
  readonly cohort: string | null;
  /** A name for people, or null. */
  readonly name: string | null;
  /** SHA-256 of the pinned TUF root, hex. */
  readonly rootDigest: string;
  /** Older targets metadata than this version is refused. */
  readonly targetsVersion: number;
  /** The device token, secret. */
  readonly token: string;
}

/**
 * Return this installation's id, making it (128 random bits, stored before it is used) the first time.
 *
 * @throws StorageError - It cannot be stored.
 */
export async function installationId(database: Database): Promise<string> {
  const fresh = randomHex(16);
  return database.write(["installation"], async (tx) => {
    const known = await tx.get("installation", ONLY);
    if (known === null) await tx.put("installation", fresh, ONLY);
    return known ?? fresh;
  });
}

/**
 * Return who this device is, or null before enrolment.
 *
 * @throws StorageError - The database cannot be read.
 */
export async function loadIdentity(database: Database): Promise<Identity | null> {
  return database.read(["identity"], (tx) => tx.get("identity", ONLY));
}

/** Return the error of a browser that is no device yet. */
export function notEnrolled(): StorageError {
  return new StorageError(
    "This browser is not enrolled as a device.",
    "not_enrolled",
    "Open the link that an operator made for it, or paste the enrolment line.",
  );
}
