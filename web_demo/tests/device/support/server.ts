/** A server behind `fetch`: shows a moment of a scene, takes enrolments and results, and misbehaves when told to. */
import { gunzipSync } from "node:zlib";
import { fromBase64, type Bytes } from "../../../src/device/contract/bytes.ts";
import type { Fetch } from "../../../src/device/transport.ts";
import type { Moment, Scene } from "./fixtures.ts";

/** One request as it came. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly init: RequestInit;
}

type Fault = (path: string) => Promise<Response | null> | Response | null;

/** One server; `fetch` is its door. */
export class FakeServer {
  readonly url = "https://fleet.example";
  readonly seen: Seen[] = [];
  /** Asked first; what it returns is the answer. */
  fault: Fault = () => null;
  /** Sent as the Date header when set, UTC epoch milliseconds. */
  dateMs: number | null = null;
  /** Batches that came, unpacked. */
  readonly batches: { readonly stream: string; readonly [table: string]: unknown }[] = [];
  readonly statuses: unknown[] = [];
  /** What is answered to a batch; everything is held when it returns null. */
  answer: (sequences: readonly number[]) => object | null = () => null;
  enrolments = 0;
  private readonly scene: Scene;
  private moment: Moment;

  constructor(scene: Scene) {
    this.scene = scene;
    this.moment = scene.moments["first"]!;
  }

  /** Show another moment of the scene. */
  show(name: string): void {
    const moment = this.scene.moments[name];
    if (moment === undefined) throw new Error(`no moment ${name}`);
    this.moment = moment;
  }

  readonly fetch: Fetch = async (url, init) => {
    const path = url.slice(this.url.length);
    this.seen.push({ method: init.method ?? "GET", path, init });
    const answer = (await this.fault(path)) ?? this.serve(path, init);
    if (this.dateMs !== null) answer.headers.set("Date", new Date(this.dateMs).toUTCString());
    return answer;
  };

  /** Return how often a path was asked for. */
  asked(part: string): number {
    return this.seen.filter(({ path }) => path.includes(part)).length;
  }

  private serve(path: string, init: RequestInit): Response {
    if (path.startsWith("/repository/metadata/")) return file(this.moment.metadata[path.slice(21)]);
    if (path.startsWith("/repository/targets/")) return file(this.moment.targets[path.slice(20)]);
    if (path === "/api/devices") return this.enrol(init);
    if (path === "/api/results") return this.results(init);
    if (path === "/api/device-status") {
      this.statuses.push(JSON.parse(new TextDecoder().decode(init.body as Bytes)));
      return new Response(null, { status: 204 });
    }
    return problem(404, "not_found", "There is nothing here.");
  }

  private enrol(init: RequestInit): Response {
    const token = this.scene.line.split(":").at(-3);
    if (new Headers(init.headers).get("Authorization") !== `Bearer ${token}`) {
      return problem(401, "token_unknown", "This enrolment token is not known.");
    }
    this.enrolments += 1;
    const answer = { device_id: "device-1", token: "st_dev_0123456789abcdef", model: "pumps", channel: "stable" };
    return Response.json(answer, { status: 201 });
  }

  private results(init: RequestInit): Response {
    const batch = JSON.parse(gunzipSync(init.body as Bytes).toString()) as (typeof this.batches)[number];
    this.batches.push(batch);
    const tables = Object.values(batch).filter((table): table is { sequence: number[] } => typeof table === "object");
    const sequences = tables.flatMap((table) => table.sequence);
    const held = sequences.map((number) => [number, number]);
    return Response.json(this.answer(sequences) ?? { stored: sequences.length, held, refused: [] });
  }
}

/** Return a problem+json answer. */
export function problem(status: number, code: string, detail: string, headers: Record<string, string> = {}): Response {
  const body = JSON.stringify({ status, code, title: code, detail, advice: "Do this." });
  return new Response(body, { status, headers: { "Content-Type": "application/problem+json", ...headers } });
}

/** Return an answer that never ends. */
export function endless(): Response {
  const pull = (controller: ReadableStreamDefaultController): void => controller.enqueue(new Uint8Array(65_536));
  return new Response(new ReadableStream({ pull }));
}

function file(content: string | undefined): Response {
  return content === undefined
    ? problem(404, "not_found", "There is no such file.")
    : new Response(fromBase64(content));
}
