/**
 * The big sign: online, offline or stale, judged by what requests did and not by what the browser believes.
 *
 * While the server is out of reach and somebody looks, it is asked every few seconds; the device's own rounds wait
 * longer after each failure, as every device does.
 */
import type { Device } from "../device/device.ts";
import { StellaError, TransportError } from "../device/errors.ts";
import type { DeviceStatus } from "../device/status.ts";
import { byId, setText } from "./dom.ts";
import { duration } from "./formats.ts";
import { forget, tell } from "./messages.ts";

const PROBE_MS = 5_000;

/** What a device asks of its server; the two are answered apart, so one may be refused and the other not. */
export type Errand = "sync" | "upload";

/** What the sign can show. */
export type SignState = "starting" | "online" | "offline" | "stale" | "standby" | "refused";

/** Show a state with its word and reason. */
export function showSign(state: SignState, word: string, why: string): void {
  byId("sign").dataset["state"] = state;
  setText("sign-word", word);
  setText("sign-why", why);
}

/** Follows a device and keeps the sign true. */
export class Connection {
  private readonly device: Device;
  private reachable: boolean | null = null;
  private sinceMs = Date.now();
  private readonly troubles = new Map<Errand, TransportError>();
  private busy: Promise<void> | null = null;

  constructor(device: Device) {
    this.device = device;
    device.on("synced", ({ error }) => this.heard("sync", error));
    device.on("uploaded", () => this.heard("upload", null));
    device.on("failed", ({ what, error }) => this.heard(what, error));
    setInterval(() => void this.probe(), PROBE_MS);
    // What the browser believes is no verdict, but a good moment to ask.
    for (const hint of ["online", "offline"]) addEventListener(hint, () => void this.ask());
  }

  /** Sync and upload now; a request that is under way is waited for. */
  async ask(): Promise<void> {
    this.busy ??= this.round().finally(() => (this.busy = null));
    await this.busy;
  }

  /** Bring the sign up to date. */
  show(status: DeviceStatus): void {
    const since = duration(Date.now() - this.sinceMs);
    const left = status.expiresMs === null ? null : status.expiresMs - Date.now();
    const stale =
      left !== null && left <= 0
        ? `What it knows of releases expired ${duration(-left)} ago: results are marked stale.`
        : "";
    if (status.role === "standby") {
      showSign(
        "standby",
        "Standing by",
        "Another tab of this browser is the device. Close it, and this one takes over.",
      );
    } else if (this.reachable === null) {
      showSign("starting", "Starting", "Asking the server for the first time.");
    } else if (!this.reachable) {
      const scores =
        status.pointer === null
          ? "There is no model yet, so nothing is scored."
          : "Scoring goes on, results wait here.";
      showSign("offline", "Offline", `No answer from the server for ${since}. ${stale || scores}`);
    } else if (this.trouble !== null) {
      const refuses = isRefusal(this.trouble);
      showSign("refused", refuses ? "Refused" : "Server in trouble", `The server answers with ${this.trouble.status}.`);
    } else if (stale !== "") {
      showSign("stale", "Stale", stale);
    } else {
      showSign("online", "Online", `The server answered ${since} ago.`);
    }
  }

  private get trouble(): TransportError | null {
    return this.troubles.values().next().value ?? null;
  }

  private heard(what: Errand, error: StellaError | null): void {
    const silent = error instanceof TransportError && error.status === null;
    // Errors of storage or of the model say nothing about the network.
    if (error !== null && !(error instanceof TransportError)) return;
    // Offline counts from the first failure, online from the latest answer.
    if (!silent || this.reachable !== false) this.sinceMs = Date.now();
    this.reachable = !silent;
    if (error === null) this.troubles.delete(what);
    else if (!silent) this.troubles.set(what, error);
    this.explain();
  }

  private explain(): void {
    if (this.trouble === null) forget("server");
    else tell("server", isRefusal(this.trouble) ? "bad" : "warn", this.trouble.toString());
  }

  private async probe(): Promise<void> {
    if (this.reachable === false && this.device.isActive && document.visibilityState === "visible") await this.ask();
  }

  private async round(): Promise<void> {
    try {
      const { error } = await this.device.sync();
      if (!(error instanceof TransportError)) await this.device.upload(false);
    } catch (error) {
      if (!(error instanceof StellaError)) throw error;
      this.heard("upload", error);
    }
  }
}

function isRefusal(error: TransportError): boolean {
  return error.status === 401 || error.status === 403;
}
