/** Sync: refresh trust, decide, fetch, verify, try out, activate. Whatever fails, the active bundle stays. */
import { DEFAULT_LIMITS } from "./contract/archive.ts";
import { checkCustom, checkSigner, openBundle, type Bundle } from "./contract/bundle.ts";
import { sha256Hex, type Bytes } from "./contract/bytes.ts";
import { chooseTarget } from "./contract/release.ts";
import { decide } from "./contract/rollout.ts";
import { TARGETS } from "./contract/routes.ts";
import { ContractError, StellaError, StorageError, TransportError, TrustError } from "./errors.ts";
import type { Identity } from "./identity.ts";
import { appendRecords, DEFAULT_LIMITS as OUTBOX_LIMITS, OUTBOX_STORES } from "./outbox/writing.ts";
import type { ScoringRuntime } from "./scoring/scorer.ts";
import { selfTest } from "./scoring/self_test.ts";
import { BundleStore, type Pointer, type SlotEntry } from "./store/bundles.ts";
import type { Database } from "./store/database.ts";
import { ONLY } from "./store/schema.ts";
import { TOO_LONG, type Transport } from "./transport.ts";
import { refresh, sameState, type TrustState } from "./trust/client.ts";
import type { Target, View } from "./trust/view.ts";
import { outcomeOf, sameNews, toEvent, type UpdateOutcome } from "./update_outcome.ts";
import { checkRuntime } from "./versions.ts";

// What storage must hold beyond the bundle itself: metadata, readings, the outbox's next transactions.
const SPARE_BYTES = 4 * 2 ** 20;
// 64 MiB in ten minutes: the slowest link that is worth waiting for.
const DOWNLOAD_DEADLINE_MS = 600_000;

/** What a sync did. */
export interface SyncReport {
  /** How it ended. */
  readonly outcome: UpdateOutcome;
  /** What ended it, or null. */
  readonly error: StellaError | null;
  /** Size of the bundle that was fetched, 0 when none was. */
  readonly downloadedBytes: number;
  /** How far the server's clock is ahead of this device's, in milliseconds; null when the server did not say. */
  readonly clockOffsetMs: number | null;
}

/** What a sync works with. */
export interface Syncing {
  readonly database: Database;
  readonly transport: Transport;
  readonly identity: Identity;
  readonly runtime: ScoringRuntime;
  readonly clock: () => number;
  /** Bytes that the browser still gives this page, or null when it does not say. */
  readonly freeBytes: () => Promise<number | null>;
  /** Whether a model that misses its makers' goals is refused. */
  readonly refuseBelowGoals: boolean;
  /** Told (bytes here, bytes in all) while a bundle arrives. */
  readonly progress?: (bytes: number, all: number) => void;
}

/**
 * Bring the device to the release that its channel gives it.
 *
 * 1. Refresh trust. 2. Decide by the contract. 3. Fetch what is not here. 4. Verify size, digest, archive, manifest,
 * signature. 5. Run the golden windows in this browser. 6. Flip the pointer. 7. Remember and report how it ended.
 *
 * @returns How it ended; trust, network, storage and model errors are in it.
 * @throws StorageError - Not even the outcome could be stored.
 */
export async function synchronise(syncing: Syncing): Promise<SyncReport> {
  const run = new Run(syncing);
  const ended = await run.end();
  const outcome = await remember(syncing, ended.outcome);
  const { clockOffsetMs } = syncing.transport;
  return { outcome, error: ended.error, downloadedBytes: run.downloadedBytes, clockOffsetMs };
}

/** One sync, and what it has learnt so far, for the report of one that fails. */
class Run {
  downloadedBytes = 0;
  private release: number | null = null;
  private readonly syncing: Syncing;
  private readonly store: BundleStore;

  constructor(syncing: Syncing) {
    this.syncing = syncing;
    this.store = new BundleStore(syncing.database);
  }

  /** Do it; what goes wrong is how it ended. */
  async end(): Promise<Pick<SyncReport, "outcome" | "error">> {
    try {
      return { outcome: await this.update(), error: null };
    } catch (error) {
      if (!(error instanceof StellaError)) throw error;
      return { outcome: outcomeOf(error, this.release, this.syncing.clock()), error };
    }
  }

  private async update(): Promise<UpdateOutcome> {
    const view = await this.refreshed(); // 1
    const pointer = await this.pointer();
    this.release = await this.wanted(view, pointer); // 2
    if (this.release === null) return this.unchanged(pointer);
    const target = this.chosen(view, this.release);
    if (pointer?.active.digest === target.sha256 && (await this.store.isWhole(pointer.active))) {
      return this.unchanged(pointer);
    }
    const kept = await this.keptSlot(pointer, target);
    if (kept === null) {
      await this.store.install(await this.fetched(target)); // 3 to 6
    } else {
      // Going back needs no network: the previous bundle was verified when it came, and is still listed.
      this.checkGoals(kept.releaseNumber, (await this.store.open(kept)).manifest.belowGoals);
      await this.store.activate(kept);
    }
    return this.outcome("activated", this.release, `Release ${this.release} (${target.path}) is active.`);
  }

  private async refreshed(): Promise<View> {
    const { database, transport, identity, clock } = this.syncing;
    const before = await database.read(["trust"], (tx) => tx.get("trust", ONLY));
    if (before === null || before.rootDigest !== identity.rootDigest) {
      throw new TrustError("The pinned root of trust is missing.", "trust_damaged", "Enrol this browser again.");
    }
    const keepRoots = async (state: TrustState): Promise<void> => {
      await database.write(["trust"], (tx) => tx.put("trust", state, ONLY));
    };
    const { view, state, expiresMs } = await refresh(before, transport, clock(), identity.targetsVersion, keepRoots);
    if (sameState(before, state)) return view;
    await database.write(["trust", "expiry"], async (tx) => {
      await tx.put("trust", state, ONLY);
      await tx.put("expiry", expiresMs, ONLY);
    });
    return view;
  }

  /** What is active, or null when that is of a model this device was enrolled for before. */
  private async pointer(): Promise<Pointer | null> {
    const pointer = await this.store.pointer();
    return pointer?.active.model === this.syncing.identity.model ? pointer : null;
  }

  private async wanted(view: View, pointer: Pointer | null): Promise<number | null> {
    const { identity } = this.syncing;
    const rollout = view.rollouts.get(identity.channel) ?? null;
    if (rollout !== null && rollout.model !== identity.model) {
      throw new TrustError(
        `Channel ${identity.channel} rolls out ${rollout.model}; this device runs ${identity.model}.`,
        "wrong_model",
        "Correct the channel on the server, or enrol the device for the other model.",
      );
    }
    const activeRelease = pointer?.active.releaseNumber ?? null;
    const wanted = await decide(rollout, { deviceId: identity.deviceId, cohort: identity.cohort, activeRelease });
    if (wanted !== null || pointer === null || activeRelease === null) return wanted;
    // To keep what it has, a device needs it whole, and not below a floor that has risen since.
    const keeps = activeRelease >= view.floor(identity.model) && (await this.store.isWhole(pointer.active));
    return keeps ? null : activeRelease;
  }

  private chosen(view: View, release: number): Target {
    const { model, channel, cohort } = this.syncing.identity;
    const customs = new Map([...view.targets].map(([path, target]) => [path, target.custom]));
    const path = chooseTarget(customs, { model, channel, cohort, release, floor: view.floor(model) });
    return view.targets.get(path)!;
  }

  private async keptSlot(pointer: Pointer | null, target: Target): Promise<SlotEntry | null> {
    for (const entry of [pointer?.active, pointer?.previous]) {
      if (entry?.digest === target.sha256 && (await this.store.isWhole(entry))) return entry;
    }
    return null;
  }

  private async fetched(target: Target): Promise<Bundle> {
    await this.checkRoom(target);
    const data = await this.download(target);
    this.downloadedBytes = data.length;
    const bundle = await opened(data, target);
    checkCustom(bundle, target.custom);
    await checkSigner(bundle, target.custom.signer);
    this.checkGoals(bundle.manifest.releaseNumber, bundle.manifest.belowGoals);
    checkRuntime(String(bundle.manifest.runtime.get("onnxruntime") ?? ">=0"), await this.syncing.runtime.version());
    await selfTest(bundle, this.syncing.runtime);
    return bundle;
  }

  private async download(target: Target): Promise<Bytes> {
    const { transport, progress } = this.syncing;
    const at = target.path.lastIndexOf("/") + 1;
    // Consistent snapshots: the digest stands in front of the file's name.
    const path = `${TARGETS}${target.path.slice(0, at)}${target.sha256}.${target.path.slice(at)}`;
    let data: Bytes;
    try {
      data = await transport.call({
        method: "GET",
        path,
        limit: target.length,
        deadlineMs: DOWNLOAD_DEADLINE_MS,
        progress: (bytes) => progress?.(bytes, target.length),
      });
    } catch (error) {
      if (!(error instanceof TransportError) || error.problem !== TOO_LONG) throw error;
      throw wrongBytes(target, `is longer than the ${target.length} bytes that the release keys signed`);
    }
    if (data.length < target.length) {
      const ended = `${transport.serverUrl}${path} ended after ${data.length} of ${target.length} bytes.`;
      throw new TransportError(ended, "It is fetched again at the next sync.");
    }
    if ((await sha256Hex(data)) === target.sha256) return data;
    throw wrongBytes(target, "does not have the digest that the release keys signed");
  }

  private checkGoals(release: number, belowGoals: readonly string[]): void {
    if (!this.syncing.refuseBelowGoals || belowGoals.length === 0) return;
    throw new TrustError(
      `Release ${release} misses goals of its makers: ${belowGoals.join(" ")}`,
      "below_goals",
      "The active bundle stays; publish a better model, or allow such models on this device.",
    );
  }

  private async checkRoom(target: Target): Promise<void> {
    const { bundleBytes, unpackedBytes } = DEFAULT_LIMITS;
    if (target.length > bundleBytes || target.custom.sizeUnpacked > unpackedBytes) {
      throw new TrustError(
        `The bundle ${target.path} has ${target.length} bytes, ${target.custom.sizeUnpacked} unpacked; ` +
          `a device takes at most ${bundleBytes} and ${unpackedBytes}.`,
        "bad_bundle",
        "The active bundle stays; publish a smaller one.",
      );
    }
    const needed = target.custom.sizeUnpacked + SPARE_BYTES;
    const free = await this.syncing.freeBytes();
    if (free === null || free >= needed) return;
    throw new StorageError(
      `The browser gives this page ${free} more bytes; release ${target.custom.releaseNumber} needs ${needed}.`,
      "disk_full",
      "Free some space on this machine and synchronise again; the active bundle stays.",
    );
  }

  private unchanged(pointer: Pointer | null): UpdateOutcome {
    if (pointer === null) return this.outcome("unchanged", null, "The channel has no release for this device yet.");
    const release = pointer.active.releaseNumber;
    return this.outcome("unchanged", release, `Release ${release} stays active.`);
  }

  private outcome(outcome: UpdateOutcome["outcome"], release: number | null, message: string): UpdateOutcome {
    return { outcome, reason: null, release, atMs: this.syncing.clock(), message, announced: null };
  }
}

async function opened(data: Bytes, target: Target): Promise<Bundle> {
  try {
    return await openBundle(data);
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new ContractError(
      `The bundle ${target.path} cannot be used: ${error.message}`,
      error.advice || "The active bundle stays; the release engineers must pack and publish it again.",
      error.fields,
    );
  }
}

/** Remember how a sync ended, and tell the server what is news, in one transaction. */
async function remember(syncing: Syncing, ended: UpdateOutcome): Promise<UpdateOutcome> {
  return syncing.database.write(["update", "pointer", ...OUTBOX_STORES], async (tx) => {
    const last = await tx.get("update", ONLY);
    const active = (await tx.get("pointer", ONLY))?.active.digest ?? null;
    // Killed between the flip and its record: told now, twice rather than never.
    const untold = ended.outcome === "unchanged" && active !== null && active !== (last?.announced ?? null);
    const outcome: UpdateOutcome = untold ? { ...ended, outcome: "activated" } : ended;
    const quiet =
      outcome.outcome === "unchanged" && (last === null || ["unchanged", "activated"].includes(last.outcome));
    if (quiet || (outcome.outcome !== "activated" && sameNews(outcome, last))) return outcome;
    // A server out of reach is every day's weather: it shows in the status, and fills no outbox.
    const weather = outcome.reason === "download_failed" && outcome.release === null;
    if (outcome.outcome !== "unchanged" && !weather) await appendRecords(tx, [toEvent(outcome, active)], OUTBOX_LIMITS);
    const announced = outcome.outcome === "activated" ? active : (last?.announced ?? null);
    await tx.put("update", { ...outcome, announced }, ONLY);
    return outcome;
  });
}

function wrongBytes(target: Target, what: string): TrustError {
  return new TrustError(
    `The server's copy of ${target.path} ${what}.`,
    "bad_digest",
    "The active bundle stays; tell the operator that the server's copy is damaged or was changed.",
  );
}
