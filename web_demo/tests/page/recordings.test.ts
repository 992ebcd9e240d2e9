import { afterEach, expect, test, vi } from "vitest";
import { fetchRecording } from "../../src/page/recordings.ts";

/** Serve a body that is made piece by piece; it ends with the signal, as the platform's does. */
function serve(pull: (controller: ReadableStreamDefaultController<Uint8Array>) => void): void {
  vi.stubGlobal("fetch", async (_: string, { signal }: RequestInit) => {
    const start = (controller: ReadableStreamDefaultController<Uint8Array>): void =>
      signal!.addEventListener("abort", () => controller.error(signal!.reason));
    return new Response(new ReadableStream<Uint8Array>({ start, pull }));
  });
}

afterEach(() => vi.unstubAllGlobals());

test("a recording comes as it is", async () => {
  vi.stubGlobal("fetch", async () => new Response("timestamp,heat\n0,1\n"));
  expect(await fetchRecording("pumps")).toBe("timestamp,heat\n0,1\n");
});

test("a server that falls silent in the middle is given up at the deadline", async () => {
  serve((controller) => {
    controller.enqueue(new Uint8Array(8));
    return new Promise(() => undefined);
  });
  await expect(fetchRecording("pumps", 20)).rejects.toThrow("too slow");
});

test("a recording without end is given up at the limit", async () => {
  let sent = 0;
  serve((controller) => {
    sent += 2 ** 22;
    controller.enqueue(new Uint8Array(2 ** 22));
  });
  await expect(fetchRecording("pumps")).rejects.toThrow("too large");
  expect(sent).toBeLessThan(2 ** 26);
});

test("no recording, and no server, are a sentence each", async () => {
  vi.stubGlobal("fetch", async () => new Response("", { status: 404 }));
  await expect(fetchRecording("pumps")).rejects.toThrow("no recording of pumps");
  vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("Failed to fetch")));
  await expect(fetchRecording("pumps")).rejects.toThrow("the server is not there");
});
