/**
 * Bundles in the database: which one is active, which was before, and the bytes of both.
 *
 * Bytes and pointer change in one transaction, so that a tab killed at any moment leaves the old bundle active or the
 * new one, whole. Opening a bundle checks every file against the digests that the pointer keeps.
 */
import { ContractError, StorageError } from "../errors.ts";
import { MANIFEST_NAME, type Bundle } from "../contract/bundle.ts";
import { sha256Hex, type Bytes } from "../contract/bytes.ts";
import { readManifest, type Manifest } from "../contract/manifest.ts";
import type { Database } from "./database.ts";
import { ONLY } from "./schema.ts";

/** What the pointer says of a bundle. */
export interface SlotEntry {
  /** SHA-256 of the bundle, hex. */
  readonly digest: string;
  readonly model: string;
  readonly version: string;
  readonly releaseNumber: number;
  readonly cohort: string | null;
  /** SHA-256 of every file, by name. */
  readonly files: ReadonlyMap<string, string>;
}

/** The two bundles that a device keeps. */
export interface Pointer {
  /** The one it scores with. */
  readonly active: SlotEntry;
  /** The one before it, or null. */
  readonly previous: SlotEntry | null;
}

/** The bundle a device scores with: the very bytes that were checked. */
export interface ActiveBundle {
  readonly digest: string;
  readonly manifest: Manifest;
  readonly files: ReadonlyMap<string, Bytes>;
}

/** The bundles of one device. */
export class BundleStore {
  private readonly database: Database;

  constructor(database: Database) {
    this.database = database;
  }

  /**
   * Read which bundles are kept, without opening them.
   *
   * @throws StorageError - The database cannot be read.
   */
  async pointer(): Promise<Pointer | null> {
    return this.database.read(["pointer"], (tx) => tx.get("pointer", ONLY));
  }

  /**
   * Open the active bundle and check every byte of it; null when the device has none yet.
   *
   * @throws StorageError - A file of it is missing or changed (reason `slot_damaged`).
   */
  async active(): Promise<ActiveBundle | null> {
    const pointer = await this.pointer();
    return pointer === null ? null : this.open(pointer.active);
  }

  /**
   * Open a bundle and check every file in it.
   *
   * @throws StorageError - A file is missing, changed or not listed (reason `slot_damaged`).
   */
  async open(entry: SlotEntry): Promise<ActiveBundle> {
    const stored = await this.database.read(["bundles"], (tx) => tx.get("bundles", entry.digest));
    if (stored === null) throw damaged("it is gone");
    if (stored.files.size !== entry.files.size) throw damaged("it holds other files than the bundle");
    for (const [name, digest] of entry.files) {
      const content = stored.files.get(name);
      if (content === undefined || (await sha256Hex(content)) !== digest) throw damaged(`${name} was changed`);
    }
    try {
      const manifest = readManifest(stored.files.get(MANIFEST_NAME) ?? new Uint8Array(0));
      return { digest: entry.digest, manifest, files: stored.files };
    } catch (error) {
      if (!(error instanceof ContractError)) throw error;
      throw damaged("manifest.json cannot be read");
    }
  }

  /** Say whether a bundle can be opened. */
  async isWhole(entry: SlotEntry): Promise<boolean> {
    try {
      await this.open(entry);
      return true;
    } catch (error) {
      if (error instanceof StorageError && error.reason === "slot_damaged") return false;
      throw error;
    }
  }

  /**
   * Store a verified bundle and make it the active one, in one transaction.
   *
   * @param bundle - Opened, its signature checked, its golden windows passed.
   * @throws StorageError - Full or not writable; the active bundle is as it was.
   */
  async install(bundle: Bundle): Promise<void> {
    await this.flip(await entryOf(bundle), bundle.files);
  }

  /**
   * Make a bundle that is stored the active one; the one before becomes `previous`.
   *
   * @throws StorageError - Not writable; the active bundle is as it was.
   */
  async activate(entry: SlotEntry): Promise<void> {
    await this.flip(entry, null);
  }

  private async flip(entry: SlotEntry, files: ReadonlyMap<string, Bytes> | null): Promise<void> {
    await this.database.write(["bundles", "pointer"], async (tx) => {
      const former = await tx.get("pointer", ONLY);
      // A repair of the active bundle keeps the one before it.
      const previous = former?.active.digest === entry.digest ? former.previous : (former?.active ?? null);
      if (files !== null) await tx.put("bundles", { digest: entry.digest, files });
      await tx.put("pointer", { active: entry, previous }, ONLY);
      for (const digest of await tx.keys("bundles")) {
        if (digest !== entry.digest && digest !== previous?.digest) await tx.delete("bundles", digest);
      }
    });
  }
}

async function entryOf(bundle: Bundle): Promise<SlotEntry> {
  const { manifest } = bundle;
  const files = new Map<string, string>();
  for (const [name, content] of bundle.files) files.set(name, await sha256Hex(content));
  return {
    digest: bundle.digest,
    model: manifest.model,
    version: manifest.version,
    releaseNumber: manifest.releaseNumber,
    cohort: manifest.cohort,
    files,
  };
}

function damaged(what: string): StorageError {
  return new StorageError(
    `The active bundle in this browser is damaged: ${what}.`,
    "slot_damaged",
    "Synchronise while the server can be reached: it downloads the release again.",
  );
}
