import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { jittered, parseRetryAfter, retryDelay } from "../../src/device/backoff.ts";
import { bearer, DEFAULT_PATIENCE, Transport, type Fetch } from "../../src/device/transport.ts";

const servers: { close: () => void; closeAllConnections: () => void }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A real server and a transport to it. */
async function serving(listener: RequestListener, patience = DEFAULT_PATIENCE): Promise<Transport> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const plain: Fetch = (url, init) => fetch(url, init);
  return new Transport(`http://127.0.0.1:${port}`, plain, () => Date.now(), patience);
}

// For failures that have to be waited for.
const HURRIED = { silenceMs: 300, deadlineMs: 900 };
const get = { method: "GET", path: "/a", limit: 100 } as const;

describe("answers", () => {
  test("come as bytes, and tell the server's clock", async () => {
    const transport = await serving((_, answer) => answer.end("hello"));
    expect(new TextDecoder().decode(await transport.call(get))).toBe("hello");
    expect(Math.abs(transport.clockOffsetMs!)).toBeLessThan(5000);
  });

  const failures: readonly (readonly [string, RequestListener, object])[] = [
    ["more bytes than the limit", (_, answer) => answer.end("x".repeat(101)), { problem: "answer_too_long" }],
    ["no end", (_, answer) => void setInterval(() => answer.write("x"), 20).unref(), { message: /deadline/ }],
    ["silence before the first byte", () => undefined, { message: /fell silent/ }],
    ["silence after it", (_, answer) => answer.write("x"), { message: /fell silent/ }],
    ["a connection that breaks", (request) => request.socket.destroy(), { message: /not available/, status: null }],
    [
      "a redirect",
      (_, answer) => answer.writeHead(302, { location: "/b" }).end(),
      { status: 302, message: /not followed/ },
    ],
    [
      "a web page",
      (_, answer) => answer.writeHead(502, { "content-type": "text/html" }).end(),
      { message: /a web page/ },
    ],
    ["a refused token", (_, answer) => answer.writeHead(401).end(), { status: 401, advice: /proxy/ }],
    ["overload", (_, answer) => answer.writeHead(503, { "retry-after": "7" }).end(), { retryAfterSeconds: 7 }],
  ];
  test.each(failures)("%s is an error with a sentence", async (what, listener, expected) => {
    const patience = /silence|no end/.test(what) ? HURRIED : DEFAULT_PATIENCE;
    const error: unknown = await (await serving(listener, patience)).call(get).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "transport", advice: expect.stringMatching(/./) as unknown });
    for (const [field, value] of Object.entries(expected)) {
      const found = (error as Record<string, unknown>)[field];
      if (value instanceof RegExp) expect(found).toMatch(value);
      else expect(found).toBe(value);
    }
  });

  test("problem+json is told as the server says it, without what cannot be printed", async () => {
    const body = JSON.stringify({
      code: "token_revoked",
      detail: "This token\u0007 was revoked.",
      advice: "Enrol again.",
    });
    const transport = await serving((_, answer) =>
      answer.writeHead(403, { "content-type": "application/problem+json" }).end(body),
    );
    const error: unknown = await transport.call({ ...get, headers: bearer("t") }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ status: 403, problem: "token_revoked", advice: "Enrol again." });
    expect(String(error)).toContain("403: This token was revoked. Enrol again.");
  });

  test("what should be JSON and is not", async () => {
    await expect((await serving((_, answer) => answer.end("<html>"))).callJson(get)).rejects.toThrow("a web page");
    await expect((await serving((_, answer) => answer.end("[]"))).callJson(get)).rejects.toThrow("not JSON");
  });
});

test.each(["http://fleet.example", "http://192.168.0.7:8080", "http://localhost.example"])(
  "tokens do not travel to %s",
  (url) => {
    expect(() => new Transport(url, fetch as Fetch, Date.now)).toThrow(
      expect.objectContaining({ reason: "insecure_http" }),
    );
  },
);

test.each(["https://fleet.example", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080"])(
  "they do to %s",
  (url) => {
    expect(new Transport(url, fetch as Fetch, Date.now).serverUrl).toBe(url);
  },
);

describe("back-off", () => {
  test("draws from a cap that doubles up to a quarter of an hour", () => {
    expect([1, 2, 3, 20, 5000].map((attempt) => retryDelay(attempt, null, 0.5))).toEqual([1, 2, 4, 450, 450]);
    expect(retryDelay(1, null, 0)).toBe(0);
  });

  test("never comes before Retry-After, nor waits for ever", () => {
    expect(retryDelay(1, 100, 0)).toBe(100);
    expect(retryDelay(1, 100, 1)).toBe(110);
    expect(retryDelay(1, 1e9, 0)).toBe(6 * 3600);
    expect(retryDelay(3, 0, 1)).toBe(8);
  });

  test("spreads a regular interval by a tenth", () => {
    expect([0, 0.5, 1].map((draw) => Math.round(jittered(100, draw)))).toEqual([90, 100, 110]);
  });

  test("reads Retry-After", () => {
    const now = Date.UTC(2026, 0, 1);
    expect(parseRetryAfter(" 120 ", now)).toBe(120);
    expect(parseRetryAfter("Thu, 01 Jan 2026 00:01:00 GMT", now)).toBe(60);
    expect(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now)).toBe(0);
    for (const text of ["", "soon", "-5", "1.5"]) expect(parseRetryAfter(text, now)).toBeNull();
  });
});
