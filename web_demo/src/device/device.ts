/**
 * A device in the browser, for an app developer: enrol, sync, score offline, upload.
 *
 * ```ts
 * const device = await Device.open(browserPlatform(startScoringWorker()));
 * await device.enrol("stella-enroll:1:https://fleet.example:...", { name: "pump 7" });
 * await device.sync();
 * const verdicts = await device.score([{ timestamp: new Date(), battery: 81, radio: -70 }]);
 * await device.upload();
 * ```
 *
 * What a reading causes is stored before its verdict is returned. Errors are the ones of `errors.ts`.
 */
import { parseEnrolmentLine } from "./contract/enrolment.ts";
import { enrol, type Wishes } from "./enrolment.ts";
import { ScoringError, StorageError } from "./errors.ts";
import { Emitter, type DeviceEvents } from "./events.ts";
import { loadIdentity, notEnrolled, type Identity } from "./identity.ts";
import { Leadership } from "./leadership.ts";
import { Outbox } from "./outbox/outbox.ts";
import { checkPlatform, type Platform } from "./platform.ts";
import { ReadingScorer, type Explain } from "./reading_scorer.ts";
import { parseReadings, type Reading } from "./readings.ts";
import { Queue } from "./queue.ts";
import { readStatus, reportStatus, type DeviceStatus } from "./status.ts";
import { BundleStore, type ActiveBundle } from "./store/bundles.ts";
import { Database } from "./store/database.ts";
import type { DeadLetter } from "./store/schema.ts";
import { synchronise, type SyncReport } from "./sync.ts";
import { Transport } from "./transport.ts";
import { uploadAll, type UploadReport } from "./upload.ts";
import type { Verdict } from "./verdict.ts";
import { runtimeFields } from "./versions.ts";

/** What a device's owner decides. */
export interface DeviceOptions {
  /** Name of the database in this origin; devices of other names are others. */
  readonly name: string;
  /** Which anomalies get contributions. */
  readonly explain: Explain;
  /** Whether a model that misses its makers' goals is refused. */
  readonly refuseBelowGoals: boolean;
}

const DEFAULT_OPTIONS: DeviceOptions = { name: "stella-edge", explain: "stored", refuseBelowGoals: false };

/**
 * One device. Readings are scored one call after the other, and so are errands on the network; the two do not wait for
 * each other, so that a silent server never holds a reading up.
 */
export class Device {
  private readonly platform: Platform;
  private readonly options: DeviceOptions;
  private readonly database: Database;
  private readonly leadership: Leadership;
  private readonly emitter = new Emitter();
  private scorer: ReadingScorer | null = null;
  private readonly scoring = new Queue();
  private readonly errands = new Queue();
  private closed = false;

  private constructor(platform: Platform, options: DeviceOptions, database: Database, leadership: Leadership) {
    this.platform = platform;
    this.options = options;
    this.database = database;
    this.leadership = leadership;
  }

  /**
   * Open the device of this browser. When another tab is the device already, this one stands by and takes over later.
   *
   * @throws UnsupportedError - The browser lacks what the device needs.
   * @throws StorageError - Storage is denied, full or damaged.
   */
  static async open(platform: Platform, options: Partial<DeviceOptions> = {}): Promise<Device> {
    checkPlatform(platform);
    const chosen = { ...DEFAULT_OPTIONS, ...options };
    const database = await Database.open(chosen.name, platform.indexedDB);
    // checkPlatform has seen to it that there are locks.
    const device = new Device(platform, chosen, database, new Leadership(platform.locks!, chosen.name));
    await device.leadership.claim(() => device.emitter.emit("takenOver", null));
    void database.lost.then(() => device.lose());
    return device;
  }

  /** Listen to what happens; the returned function ends it. */
  on<K extends keyof DeviceEvents>(kind: K, listener: (news: DeviceEvents[K]) => void): () => void {
    return this.emitter.on(kind, listener);
  }

  /** Whether this tab is the device; otherwise another one is. */
  get isActive(): boolean {
    return this.leadership.isHeld;
  }

  /**
   * Join a server as a device of kind `demo`, or join it again with a new line.
   *
   * @param line - The enrolment line.
   * @param wishes - Name and cohort, both optional.
   * @throws ContractError - This is no enrolment line.
   * @throws InputError - The name or cohort cannot be used.
   * @throws TrustError - Another root than the line names, another server than before, or an address that is not
   *   secure.
   * @throws TransportError - The server could not be reached, or refused the token.
   * @throws StorageError - Storage full or denied, or another tab is the device.
   */
  async enrol(line: string, wishes: Partial<Wishes> = {}): Promise<void> {
    const parsed = parseEnrolmentLine(line);
    await this.errand(async () => {
      const chosen = { name: null, cohort: null, ...wishes };
      await enrol(this.database, this.transport(parsed.url), parsed, chosen, await runtimeFields(this.platform));
    });
  }

  /**
   * Bring the device to the release that its channel gives it. What was wrong is in the report.
   *
   * @throws StorageError - Not enrolled, another tab is the device, or not even the outcome could be stored.
   */
  async sync(): Promise<SyncReport> {
    return this.errand(async () => {
      const identity = await this.identity();
      const report = await synchronise({
        database: this.database,
        transport: this.transport(identity.serverUrl),
        identity,
        runtime: this.platform.runtime,
        clock: this.platform.clock,
        freeBytes: this.platform.freeBytes,
        refuseBelowGoals: this.options.refuseBelowGoals,
        progress: (bytes, all) => this.emitter.emit("downloading", { bytes, all }),
      });
      this.emitter.emit("synced", report);
      return report;
    });
  }

  /**
   * Score readings, offline.
   *
   * @param readings - In the order they came; a signal that is absent or null is missing.
   * @returns One verdict for each, in their order, once they are stored.
   * @throws InputError - A reading cannot be used; none is taken.
   * @throws ScoringError - There is no bundle yet (`no_bundle`), or the model failed.
   * @throws StorageError - Storage full, or another tab is the device.
   */
  async score(readings: readonly Reading[]): Promise<readonly Verdict[]> {
    return this.scoring.run(async () => {
      this.checkActive();
      const scorer = await this.currentScorer();
      const names = scorer.bundle.manifest.signals.map((signal) => signal.name);
      const parsed = parseReadings(readings, names);
      return scorer.score(parsed, (verdicts) => this.emitter.emit("verdicts", verdicts));
    });
  }

  /**
   * Send what waits, and tell the server how the device is.
   *
   * @param withSummaries - Whether the hour so far goes along.
   * @throws TransportError - The server could not be reached, or refused the device; what it does not hold stays.
   * @throws StorageError - Not enrolled, or another tab is the device.
   */
  async upload(withSummaries = true): Promise<UploadReport> {
    return this.errand(async () => {
      const identity = await this.identity();
      const transport = this.transport(identity.serverUrl);
      const sender = { database: this.database, transport, identity, clock: this.platform.clock };
      const report = await uploadAll(sender, withSummaries);
      await reportStatus(transport, identity.token, await this.status(), await runtimeFields(this.platform));
      this.emitter.emit("uploaded", report);
      return report;
    });
  }

  /**
   * Return how the device is; a tab that stands by may ask too.
   *
   * @throws StorageError - The database cannot be read.
   */
  async status(): Promise<DeviceStatus> {
    return readStatus(this.database, this.isActive ? "device" : "standby", this.platform.clock());
  }

  /**
   * Return the active bundle, every byte checked; null when there is none yet.
   *
   * @throws StorageError - It is damaged.
   */
  async bundle(): Promise<ActiveBundle | null> {
    return new BundleStore(this.database).active();
  }

  /**
   * Return the records that the server refused, oldest first.
   *
   * @throws StorageError - The database cannot be read.
   */
  async deadLetters(): Promise<readonly DeadLetter[]> {
    return new Outbox(this.database).deadLetters();
  }

  /** End the device's work in this tab; another one may take over. */
  async close(): Promise<void> {
    this.closed = true;
    await Promise.all([this.scoring.idle(), this.errands.idle()]);
    try {
      await this.scorer?.close();
    } finally {
      this.scorer = null;
      this.database.close();
      this.leadership.resign();
    }
  }

  /**
   * Remove the device from this browser with all that it holds, results that were not uploaded included.
   *
   * @throws StorageError - Another tab is the device, or the browser does not let its storage go.
   */
  async remove(): Promise<void> {
    this.checkActive();
    await this.close();
    await Database.remove(this.options.name, this.platform.indexedDB);
  }

  /** Tell listeners of the rounds what failed. */
  reportFailure(news: DeviceEvents["failed"]): void {
    this.emitter.emit("failed", news);
  }

  private lose(): void {
    if (this.closed) return;
    this.leadership.resign();
    this.emitter.emit("storageLost", null);
  }

  private async errand<T>(work: () => Promise<T>): Promise<T> {
    return this.errands.run(async () => {
      this.checkActive();
      return work();
    });
  }

  private checkActive(): void {
    if (!this.isActive) throw standby();
  }

  private async currentScorer(): Promise<ReadingScorer> {
    const store = new BundleStore(this.database);
    const pointer = await store.pointer();
    const model = (await this.identity()).model;
    if (pointer === null || pointer.active.model !== model) throw noBundle();
    if (this.scorer?.bundle.digest === pointer.active.digest) return this.scorer;
    return this.use(await store.open(pointer.active));
  }

  private async use(bundle: ActiveBundle): Promise<ReadingScorer> {
    const { runtime, clock } = this.platform;
    const options = { database: this.database, runtime, clock, explain: this.options.explain };
    const scorer = await ReadingScorer.load(bundle, options);
    await this.scorer?.close();
    this.scorer = scorer;
    this.emitter.emit("activated", bundle.digest);
    return scorer;
  }

  private async identity(): Promise<Identity> {
    const identity = await loadIdentity(this.database);
    if (identity === null) throw notEnrolled();
    return identity;
  }

  private transport(serverUrl: string): Transport {
    return new Transport(serverUrl, this.platform.fetch, this.platform.clock);
  }
}

function standby(): StorageError {
  return new StorageError(
    "Another tab of this browser is the device.",
    "other_tab",
    "Go to that tab, or close it: this one takes over by itself.",
  );
}

function noBundle(): ScoringError {
  return new ScoringError(
    "The device in this browser has no active bundle.",
    "no_bundle",
    "Synchronise while the server can be reached.",
  );
}
