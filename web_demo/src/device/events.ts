/** What a device tells the page while it works. */
import type { StellaError } from "./errors.ts";
import type { SyncReport } from "./sync.ts";
import type { UploadReport } from "./upload.ts";
import type { Verdict } from "./verdict.ts";

/** Every kind of news, with what it carries. */
export interface DeviceEvents {
  /** This tab has become the device, after another one closed. */
  takenOver: null;
  /** The browser took the database away: nothing works until the page is loaded again. */
  storageLost: null;
  /** A sync has ended, in whatever way. */
  synced: SyncReport;
  /** Another bundle is in use from now on; its digest. */
  activated: string;
  /** Bytes of a bundle that have come so far, and all of them. */
  downloading: { readonly bytes: number; readonly all: number };
  /** A group of readings was scored and stored. */
  verdicts: readonly Verdict[];
  /** An upload has ended well. */
  uploaded: UploadReport;
  /** Something that the rounds do by themselves failed, and when they try again. */
  failed: { readonly what: "sync" | "upload"; readonly error: StellaError; readonly retrySeconds: number };
}

type Listener<K extends keyof DeviceEvents> = (news: DeviceEvents[K]) => void;

/** Keeps listeners and tells them. */
export class Emitter {
  private readonly listeners = new Map<keyof DeviceEvents, Set<(news: never) => void>>();

  /** Listen; the returned function ends it. */
  on<K extends keyof DeviceEvents>(kind: K, listener: Listener<K>): () => void {
    const known = this.listeners.get(kind) ?? new Set();
    this.listeners.set(kind, known.add(listener));
    return () => known.delete(listener);
  }

  /** Tell everybody who listens. */
  emit<K extends keyof DeviceEvents>(kind: K, news: DeviceEvents[K]): void {
    for (const listener of this.listeners.get(kind) ?? []) (listener as Listener<K>)(news);
  }
}
