/**
 * What a device believes: The Update Framework's metadata, refreshed and read.
 *
 * Trust begins with one root whose digest came with the enrolment line; every refresh starts from it. A newer root is
 * kept as soon as it is verified, so that keys that it revokes stay revoked whatever fails afterwards. Of the other
 * roles nothing is kept unless the update succeeds as a whole: the caller stores the returned state in one transaction.
 * Expiry is judged after everything else, and also for metadata that is already known, so that an expired timestamp
 * that is replayed is noticed.
 *
 * Source: The Update Framework specification 1.0.34, section 5 (detailed client workflow).
 */
import { TransportError, TrustError } from "../errors.ts";
import { equal, sha256Hex, type Bytes } from "../contract/bytes.ts";
import { METADATA } from "../contract/routes.ts";
import { TOO_LONG, type Transport } from "../transport.ts";
import {
  checkSigned,
  readFileFacts,
  readMetadata,
  readRoot,
  type FileFacts,
  type Metadata,
  type RoleName,
  type Root,
} from "./metadata.ts";
import { expired, refused } from "./refusals.ts";
import { readView, type View } from "./view.ts";

// As python-tuf bounds them (UpdaterConfig).
const MAX_ROOT_ROTATIONS = 256;
/** Most bytes of root.json. */
export const MAX_ROOT_BYTES = 512_000;
const MAX_BYTES = { timestamp: 16_384, snapshot: 2_000_000, targets: 5_000_000 } as const;

/** Verified metadata as it is stored: the bytes that were verified. */
export interface TrustState {
  /** SHA-256 of the pinned root, hex. */
  readonly rootDigest: string;
  /** The pinned root and every root after it, in order. */
  readonly roots: readonly Bytes[];
  /** The other roles, or null before the first refresh. */
  readonly known: { readonly timestamp: Bytes; readonly snapshot: Bytes; readonly targets: Bytes } | null;
}

/** Stores a state in which only roots are news. */
export type KeepRoots = (state: TrustState) => Promise<void>;

/** What a refresh gives: what to believe, and what to store of it. */
export interface Refreshed {
  readonly view: View;
  readonly state: TrustState;
  /** When the earliest of the four roles expires, UTC epoch milliseconds. */
  readonly expiresMs: number;
}

/**
 * Check that bytes are the root metadata with a digest, and a root that signs itself.
 *
 * @throws TrustError - Another digest (reason `wrong_root`), or no valid root (`metadata_invalid`,
 *   `metadata_unsigned`).
 */
export async function checkRoot(data: Bytes, digest: string): Promise<void> {
  if ((await sha256Hex(data)) !== digest) {
    throw new TrustError(
      "The server's root of trust is not the one that the enrolment line names.",
      "wrong_root",
      "Get a new line from the operator; if it happens again, something between you and the server lies.",
    );
  }
  const root = readRoot(data);
  await checkSigned(root, root.roles.root);
}

/**
 * Fetch and verify root, timestamp, snapshot and targets, and read them.
 *
 * @param before - What was verified before, or after enrolment the pinned root alone.
 * @param transport - Where the repository is.
 * @param nowMs - The device's clock.
 * @param oldestTargets - Targets older than this version are refused (enrolment line).
 * @param keepRoots - Called with each newer root that was verified, before anything else is fetched (spec 5.3.8).
 * @throws TrustError - Refused; reason `metadata_expired`, `metadata_rollback`, `metadata_unsigned`,
 *   `metadata_mismatch`, `metadata_too_large`, `metadata_invalid` or `trust_damaged`.
 * @throws TransportError - The repository could not be reached, or did not answer as one.
 */
export async function refresh(
  before: TrustState,
  transport: Transport,
  nowMs: number,
  oldestTargets: number,
  keepRoots: KeepRoots,
): Promise<Refreshed> {
  const refresher = new Refresher(transport, nowMs);
  const { roots, root } = await refresher.roots(before, keepRoots);
  const known = before.known === null ? null : await knownUnder(root, before.known);
  const timestamp = await refresher.timestamp(root, known?.timestamp ?? null);
  const snapshot = await refresher.snapshot(root, timestamp.metadata, known?.snapshot ?? null);
  const targets = await refresher.targets(root, snapshot.metadata, known?.targets ?? null);
  const view = readView(timestamp.metadata, targets.metadata);
  if (view.targetsVersion < oldestTargets) {
    throw refused("metadata_rollback", `targets ${view.targetsVersion}, enrolled at ${oldestTargets}`);
  }
  const roles = [root, timestamp.metadata, snapshot.metadata, targets.metadata];
  const state = {
    rootDigest: before.rootDigest,
    roots,
    known: { timestamp: timestamp.data, snapshot: snapshot.data, targets: targets.data },
  };
  return { view, state, expiresMs: Math.min(...roles.map((metadata) => metadata.expiresMs)) };
}

interface Verified {
  readonly data: Bytes;
  readonly metadata: Metadata;
}

interface Known {
  readonly timestamp: Verified | null;
  readonly snapshot: Verified | null;
  readonly targets: Verified | null;
}

/** Return the stored roles that the current root still vouches for: after a change of keys, versions begin afresh. */
async function knownUnder(root: Root, known: NonNullable<TrustState["known"]>): Promise<Known> {
  return {
    timestamp: await stillSigned(root, "timestamp", known.timestamp),
    snapshot: await stillSigned(root, "snapshot", known.snapshot),
    targets: await stillSigned(root, "targets", known.targets),
  };
}

async function stillSigned(root: Root, role: RoleName, data: Bytes): Promise<Verified | null> {
  try {
    const metadata = readMetadata(data, role);
    await checkSigned(metadata, root.roles[role]);
    return { data, metadata };
  } catch (error) {
    if (!(error instanceof TrustError)) throw error;
    return null;
  }
}

/** One refresh: each step fetches what it needs, checks it against what the steps before found, and returns it. */
class Refresher {
  private readonly transport: Transport;
  private readonly nowMs: number;

  constructor(transport: Transport, nowMs: number) {
    this.transport = transport;
    this.nowMs = nowMs;
  }

  /** Spec 5.3: from the pinned root, each next one signed by the keys of both. */
  async roots(
    before: TrustState,
    keepRoots: KeepRoots,
  ): Promise<{ readonly roots: readonly Bytes[]; readonly root: Root }> {
    const pinned = before.roots[0];
    if (pinned === undefined || (await sha256Hex(pinned)) !== before.rootDigest) {
      throw new TrustError(
        "The pinned root of trust is missing or was changed.",
        "trust_damaged",
        "Enrol this browser again with a new line.",
      );
    }
    let root = readRoot(pinned);
    for (const data of before.roots.slice(1)) root = await nextRoot(root, data);
    let roots = before.roots;
    for (let number = 0; number < MAX_ROOT_ROTATIONS; number += 1) {
      const data = await this.nextRootBytes(root.version + 1);
      if (data === null) break;
      root = await nextRoot(root, data);
      roots = [...roots, data];
      await keepRoots({ ...before, roots });
    }
    this.checkExpiry(root);
    return { roots, root };
  }

  /** Spec 5.4: versions never go back, neither its own nor the snapshot's. */
  async timestamp(root: Root, known: Verified | null): Promise<Verified> {
    const data = await this.fetch("timestamp.json", MAX_BYTES.timestamp);
    const metadata = readMetadata(data, "timestamp");
    await checkSigned(metadata, root.roles.timestamp);
    const facts = readFileFacts(metadata, "snapshot.json");
    if (known !== null) {
      checkVersion("timestamp", metadata.version, known.metadata.version);
      checkVersion("snapshot", facts.version, readFileFacts(known.metadata, "snapshot.json").version);
    }
    // Two timestamps of one version are never both right: the one that was verified first counts (spec 5.4.3.1).
    const chosen = known !== null && known.metadata.version === metadata.version ? known : { data, metadata };
    this.checkExpiry(chosen.metadata);
    return chosen;
  }

  /** Spec 5.5: the one that timestamp names, whole, and no file in it older than before. */
  async snapshot(root: Root, timestamp: Metadata, known: Verified | null): Promise<Verified> {
    const facts = readFileFacts(timestamp, "snapshot.json");
    const found = await this.named("snapshot", facts, root, known);
    if (known !== null) {
      const targets = readFileFacts(found.metadata, "targets.json").version;
      checkVersion("targets", targets, readFileFacts(known.metadata, "targets.json").version);
    }
    this.checkExpiry(found.metadata);
    return found;
  }

  /** Spec 5.6: the one that snapshot names. */
  async targets(root: Root, snapshot: Metadata, known: Verified | null): Promise<Verified> {
    const found = await this.named("targets", readFileFacts(snapshot, "targets.json"), root, known);
    this.checkExpiry(found.metadata);
    return found;
  }

  private async named(
    role: "snapshot" | "targets",
    facts: FileFacts,
    root: Root,
    known: Verified | null,
  ): Promise<Verified> {
    if (known !== null && known.metadata.version === facts.version && (await fits(known.data, facts))) return known;
    const data = await this.fetch(`${facts.version}.${role}.json`, facts.length ?? MAX_BYTES[role]);
    if (!(await fits(data, facts))) throw refused("metadata_mismatch", `${role} ${facts.version}`);
    const metadata = readMetadata(data, role);
    await checkSigned(metadata, root.roles[role]);
    if (metadata.version !== facts.version) {
      throw refused("metadata_rollback", `${role} ${metadata.version} instead of ${facts.version}`);
    }
    return { data, metadata };
  }

  private async nextRootBytes(version: number): Promise<Bytes | null> {
    try {
      return await this.fetch(`${version}.root.json`, MAX_ROOT_BYTES);
    } catch (error) {
      // 404 is how TUF says that there is no newer root; 403 is the same from some object stores.
      if (error instanceof TransportError && (error.status === 404 || error.status === 403)) return null;
      throw error;
    }
  }

  private async fetch(name: string, limit: number): Promise<Bytes> {
    try {
      return await this.transport.call({ method: "GET", path: METADATA + name, limit });
    } catch (error) {
      if (error instanceof TransportError && error.problem === TOO_LONG) throw refused("metadata_too_large", name);
      throw error;
    }
  }

  private checkExpiry(metadata: Metadata): void {
    if (metadata.expiresMs > this.nowMs) return;
    throw expired(metadata.role, metadata.expiresMs, this.nowMs, this.transport.clockOffsetMs);
  }
}

async function nextRoot(root: Root, data: Bytes): Promise<Root> {
  const next = readRoot(data);
  await checkSigned(next, root.roles.root);
  await checkSigned(next, next.roles.root);
  if (next.version !== root.version + 1) {
    throw refused("metadata_rollback", `root ${next.version} instead of ${root.version + 1}`);
  }
  return next;
}

function checkVersion(role: RoleName, found: number, known: number): void {
  if (found < known) throw refused("metadata_rollback", `${role} ${found}, known is ${known}`);
}

async function fits(data: Bytes, facts: FileFacts): Promise<boolean> {
  if (facts.length !== null && data.length !== facts.length) return false;
  return facts.sha256 === null || (await sha256Hex(data)) === facts.sha256;
}

/** Say whether two states hold the same metadata, so that a poll without news writes nothing. */
export function sameState(one: TrustState, other: TrustState): boolean {
  const bytes = (state: TrustState): readonly Bytes[] =>
    state.known === null
      ? state.roots
      : [...state.roots, state.known.timestamp, state.known.snapshot, state.known.targets];
  const [left, right] = [bytes(one), bytes(other)];
  return left.length === right.length && left.every((data, index) => equal(data, right[index]!));
}
