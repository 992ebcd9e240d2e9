/**
 * A device that another program drives: one command a line on standard input, one JSON answer a line on standard
 * output.
 *
 * Run by tests in Python against a real server: `node driven.ts`. `reopen` closes the device and opens it again with
 * the same database, as a page that is loaded again.
 */
import "fake-indexeddb/auto";
import { createInterface } from "node:readline";
import { Device } from "../../../src/device/device.ts";
import { StellaError } from "../../../src/device/errors.ts";
import type { Reading } from "../../../src/device/readings.ts";
import { testPlatform } from "./platform.ts";

interface Command {
  readonly do: "enrol" | "sync" | "score" | "upload" | "status" | "reopen" | "clock";
  readonly line?: string;
  readonly name?: string;
  readonly cohort?: string;
  readonly readings?: readonly Reading[];
  readonly offsetMs?: number;
}

let offsetMs = 0;
const platform = testPlatform({ clock: () => Date.now() + offsetMs });
let device = await Device.open(platform);

async function obey(command: Command): Promise<unknown> {
  switch (command.do) {
    case "enrol":
      return device.enrol(command.line ?? "", { name: command.name ?? null, cohort: command.cohort ?? null });
    case "sync": {
      const report = await device.sync();
      return { ...report, error: report.error?.toString() ?? null };
    }
    case "score":
      return device.score(command.readings ?? []);
    case "upload":
      return device.upload();
    case "status":
      return device.status();
    case "reopen":
      await device.close();
      device = await Device.open(platform);
      return null;
    case "clock":
      offsetMs = command.offsetMs ?? 0;
      return null;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer: unknown;
  try {
    answer = { result: (await obey(JSON.parse(line) as Command)) ?? null };
  } catch (error) {
    if (!(error instanceof StellaError)) throw error;
    answer = { error: { code: error.code, message: error.message, advice: error.advice, ...error.fields } };
  }
  process.stdout.write(
    `${JSON.stringify(answer, (_, value: unknown) => (value instanceof Map ? Object.fromEntries(value) : value))}\n`,
  );
}
await device.close();
