import { beforeEach, expect, test, vi } from "vitest";
import type { Device } from "../../src/device/device.ts";
import { TransportError } from "../../src/device/errors.ts";
import { Emitter } from "../../src/device/events.ts";
import type { DeviceStatus } from "../../src/device/status.ts";
import type { SyncReport } from "../../src/device/sync.ts";
import type { UploadReport } from "../../src/device/upload.ts";
import { Connection } from "../../src/page/connection.ts";

const told = new Map<string, string>();
const signs: string[] = [];

vi.mock("../../src/page/messages.ts", () => ({
  tell: (subject: string, _: string, text: string) => told.set(subject, text),
  forget: (subject: string) => told.delete(subject),
}));
vi.mock("../../src/page/dom.ts", () => ({
  byId: () => ({ dataset: {} }),
  setText: (id: string, text: string) => (id === "sign-word" ? signs.push(text) : 0),
}));

const status = { role: "device", expiresMs: null, pointer: null } as unknown as DeviceStatus;
const synced = { outcome: { outcome: "unchanged" }, error: null } as unknown as SyncReport;
const uploaded = { refused: 0 } as unknown as UploadReport;
let news: Emitter;
let connection: Connection;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("addEventListener", () => undefined);
  told.clear();
  news = new Emitter();
  connection = new Connection({ on: news.on.bind(news), isActive: true } as unknown as Device);
});

function sign(): string {
  connection.show(status);
  return signs.at(-1)!;
}

function fail(what: "sync" | "upload", code: number | null): void {
  const error = new TransportError(`The ${what} got ${code}.`, "", { status: code });
  news.emit("failed", { what, error, retrySeconds: 1 });
}

test("a device whose token was revoked is told so, and metadata that is public does not take it back", () => {
  news.emit("synced", synced);
  expect(sign()).toBe("Online");
  fail("upload", 401);
  news.emit("synced", synced);
  expect(sign()).toBe("Refused");
  expect(told.get("server")).toBe("The upload got 401.");
  news.emit("uploaded", uploaded);
  expect(sign()).toBe("Online");
  expect(told.size).toBe(0);
});

test.each([302, 404, 502, 503])("an answer of %i is trouble until the next success", (code) => {
  fail("sync", code);
  expect(sign()).toBe("Server in trouble");
  expect(told.get("server")).toBe(`The sync got ${code}.`);
  news.emit("synced", synced);
  expect(sign()).toBe("Online");
});

test("no answer at all is offline, whatever there was before", () => {
  fail("upload", 401);
  fail("sync", null);
  expect(sign()).toBe("Offline");
});
