/** Everything on the page that follows an enrolled device. */
import type { Contribution } from "../device/contract/result.ts";
import type { Device } from "../device/device.ts";
import { ScoringError, StellaError, StorageError, TransportError } from "../device/errors.ts";
import { Rounds } from "../device/rounds.ts";
import type { DeviceStatus } from "../device/status.ts";
import type { ActiveBundle } from "../device/store/bundles.ts";
import type { SyncReport } from "../device/sync.ts";
import { ScoreChart, chartWords } from "./chart.ts";
import { Connection } from "./connection.ts";
import { byId, setText } from "./dom.ts";
import { Feed, type Scored } from "./feed.ts";
import { askToKeepStorage } from "./installation.ts";
import { forget, tell } from "./messages.ts";
import { addAnomaly, showBundle, showIdentity, showOutbox, showSignals, showVerdict } from "./panels.ts";
import { Sources } from "./sources.ts";

// A person watches: oftener than a device that nobody looks at.
const INTERVALS = { syncSeconds: 20, uploadSeconds: 15, summarySeconds: 900 };
const STATUS_MS = 1_000;

/** Shows one device. */
export class DeviceView {
  private readonly device: Device;
  private readonly chart = new ScoreChart();
  private readonly connection: Connection;
  private readonly feed: Feed;
  private readonly sources: Sources;
  private bundle: ActiveBundle | null = null;
  private contributions: readonly Contribution[] = [];
  private begun = false;
  private storageKept = false;

  constructor(device: Device) {
    this.device = device;
    this.connection = new Connection(device);
    this.feed = new Feed(device, {
      scored: (news) => this.scored(news),
      failed: (error) => this.failed(error),
    });
    this.sources = new Sources(this.feed, () => this.chart.clear());
    this.listen();
  }

  /** Follow the device from now on; it is enrolled. */
  async begin(): Promise<void> {
    byId("join").hidden = true;
    byId("device").hidden = false;
    // First of all, so that nothing that is damaged here keeps the device from its server.
    if (this.begun) void this.connection.ask();
    else this.startRounds();
    await this.refreshBundle();
    await this.showStatus();
  }

  private startRounds(): void {
    this.begun = true;
    // Firefox asks its user, who may take any time to answer.
    void askToKeepStorage().then((kept) => (this.storageKept = kept));
    setInterval(() => void this.showStatus(), STATUS_MS);
    new Rounds(this.device, INTERVALS).start();
  }

  private listen(): void {
    this.device.on("synced", (report) => void this.synced(report));
    this.device.on("activated", () => void this.refreshBundle());
    this.device.on("uploaded", ({ refused }) => {
      if (refused > 0)
        tell("refused-records", "warn", `The server refused ${refused} records; they are kept here as dead letters.`);
    });
    this.device.on("takenOver", () => void this.takeOver());
    this.device.on("storageLost", () =>
      tell("storage", "bad", "The browser took the device's storage away. Load this page again."),
    );
    byId("sync").addEventListener("click", () => void this.askNow());
    byId("leave").addEventListener("click", () => void this.askWhetherToLeave());
    byId("remove").addEventListener("click", () => void this.leave());
  }

  private async takeOver(): Promise<void> {
    const { identity } = await this.device.status();
    if (identity !== null) await this.begin();
  }

  /** Ask as a person wishes: the button is busy until the answer is on the page. */
  private async askNow(): Promise<void> {
    const button = byId("sync");
    button.setAttribute("aria-busy", "true");
    try {
      await this.connection.ask();
      await this.showStatus();
    } finally {
      button.removeAttribute("aria-busy");
    }
  }

  private async askWhetherToLeave(): Promise<void> {
    const { outbox } = await this.device.status();
    const asked = (byId("leaving").hidden = !byId("leaving").hidden);
    byId("leave").setAttribute("aria-expanded", String(!asked));
    setText("leaving-words", `The device goes from this browser for good, with ${outbox.records} results that wait.`);
  }

  private async leave(): Promise<void> {
    try {
      await this.device.remove();
      location.reload();
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      tell("leave", "bad", error.toString());
    }
  }

  private async synced({ outcome, error }: SyncReport): Promise<void> {
    // One that was damaged may be whole again.
    if (outcome.outcome === "activated" || this.bundle === null) await this.refreshBundle();
    if (outcome.outcome === "activated") {
      tell(
        "update",
        "good",
        `Release ${outcome.release} was verified, passed its self-test in this browser, and is active.`,
      );
    } else if (outcome.outcome === "refused") {
      const stays =
        this.bundle === null ? "Nothing is active." : `Release ${this.bundle.manifest.releaseNumber} stays active.`;
      tell("update", "bad", `An update is refused: ${error?.toString() ?? outcome.message} ${stays}`);
    } else if (error !== null && !(error instanceof TransportError)) {
      // Of the network the sign tells.
      tell("update", "bad", error.toString());
    } else if (outcome.outcome === "unchanged") {
      forget("update");
    }
    await this.showStatus();
  }

  private async refreshBundle(): Promise<void> {
    try {
      this.show(await this.device.bundle());
      forget("bundle");
    } catch (error) {
      if (!(error instanceof StellaError)) throw error;
      tell("bundle", "bad", error.toString());
    }
  }

  private show(bundle: ActiveBundle | null): void {
    if (bundle === null || bundle.digest === this.bundle?.digest) return;
    this.bundle = bundle;
    this.chart.setThreshold(bundle.manifest.threshold.anomalyScore);
    showBundle(bundle);
    // Nothing waits for it: a recording may take its time to come.
    void this.sources.offer(bundle.manifest);
  }

  private async showStatus(): Promise<void> {
    const status: DeviceStatus = await this.device.status();
    this.connection.show(status);
    showOutbox(status);
    showIdentity(status, this.storageKept);
    this.sources.describe();
  }

  private scored({ readings, verdicts }: Scored): void {
    const latest = verdicts.at(-1);
    if (this.bundle === null || latest === undefined) return;
    forget("scoring");
    const points = verdicts.flatMap(({ timestampMs, score }) =>
      score === null ? [] : [{ timestampMs, score: score.anomalyScore, isAnomaly: score.isAnomaly }],
    );
    this.chart.add(points);
    for (const verdict of verdicts) if (verdict.score?.stored === true) addAnomaly(verdict);
    showVerdict(latest, this.bundle.manifest.window.minimumReadings);
    // Windows that become no record are not explained: what the last one said holds for its incident.
    const explained = verdicts.findLast(({ score }) => score?.stored === true)?.score?.contributions;
    this.contributions = latest.score?.isAnomaly === true ? (explained ?? this.contributions) : [];
    showSignals(this.bundle, readings.at(-1)!, this.contributions);
    const point = points.at(-1);
    if (point !== undefined) setText("chart-words", chartWords(point, this.bundle.manifest.threshold.anomalyScore));
  }

  private failed(error: unknown): void {
    // Before the first bundle there is nothing to score with; the sign says so.
    if (error instanceof ScoringError && error.reason === "no_bundle") return;
    const words =
      error instanceof StellaError ? error.toString() : `The page met a fault of its own: ${String(error)}.`;
    tell("scoring", "bad", words);
  }
}
