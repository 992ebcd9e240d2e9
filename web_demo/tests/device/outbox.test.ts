import { IDBFactory } from "fake-indexeddb";
import { describe, expect, test } from "vitest";
import type { AnyRecord, Gap, Summary } from "../../src/device/contract/result.ts";
import { Outbox, type Lease } from "../../src/device/outbox/outbox.ts";
import { renumbered } from "../../src/device/outbox/renumber.ts";
import { joined, planRoom } from "../../src/device/outbox/room.ts";
import { stored, type OutboxLimits } from "../../src/device/outbox/writing.ts";
import { Database } from "../../src/device/store/database.ts";

const HOUR_MS = 3_600_000;
const LIMITS: OutboxLimits = { maxRecords: 40, maxBytes: 1e6, maxDeadLetters: 3 };

function event(name: string): AnyRecord {
  return { table: "events", record: { sequence: 0, bundle: null, observed_at_ms: 1000, name, detail: {} } };
}

function summary(hour: number, bundle = "a".repeat(64)): AnyRecord {
  const start = 1_700_006_400_000 + hour * HOUR_MS;
  const histogram = Array.from({ length: 15 }, (_, bin) => (bin === 2 ? 3 : 0));
  const record: Summary = {
    sequence: 0,
    bundle,
    period_start_ms: start,
    period: "hour",
    newest_reading_ms: start + 5,
    windows: 3,
    anomalous: 1,
    warming_up: 2,
    late: 0,
    values: 9,
    missing: 1,
    histogram,
    latency_count: 3,
    latency_sum_us: 30,
    latency_max_us: 10 + hour,
  };
  return { table: "summaries", record };
}

async function outbox(limits = LIMITS): Promise<Outbox> {
  return new Outbox(await Database.open("outbox", new IDBFactory()), limits);
}

function numbers(lease: Lease): number[] {
  return lease.records.map(({ record }) => record.sequence);
}

const holds = (...held: [number, number][]): { stored: number; held: [number, number][]; refused: [] } => ({
  stored: 0,
  held,
  refused: [],
});

describe("the outbox", () => {
  test("numbers without holes, and deletes exactly what is held", async () => {
    const box = await outbox();
    await box.append([event("a"), event("b"), event("c")]);
    await box.append([event("d")]);
    const lease = await box.lease();
    expect(numbers(lease)).toEqual([1, 2, 3, 4]);
    expect(await box.settle(lease, holds([1, 1], [3, 99]), 0)).toEqual({ acknowledged: 3, refused: 0, forkedTo: null });
    const left = await box.lease();
    expect([numbers(left), left.stream]).toEqual([[2], lease.stream]);
    expect((await box.state()).nextSequence).toBe(5);
  });

  test("keeps its figures true", async () => {
    const box = await outbox();
    await box.append([event("a"), summary(0)]);
    const { records, bytes, oldestMs } = await box.state();
    const lease = await box.lease();
    const sizes = lease.records.map((item) => JSON.stringify(item.record).length);
    expect([records, bytes, oldestMs]).toEqual([2, sizes[0]! + sizes[1]!, 1000]);
    await box.settle(lease, holds([1, 2]), 0);
    expect(await box.state()).toMatchObject({ records: 0, bytes: 0, oldestMs: null, deadLetters: 0 });
  });

  test("an answer that names numbers we never sent deletes nothing", async () => {
    const box = await outbox();
    await box.append([event("a"), event("b")]);
    const lease = await box.lease(1);
    await box.settle(lease, holds([1, 1000]), 0);
    expect(numbers(await box.lease())).toEqual([2]);
  });

  test("refused records become dead letters, the newest of which are kept", async () => {
    const box = await outbox();
    await box.append(["a", "b", "c", "d", "e"].map(event));
    const lease = await box.lease();
    const refused = numbers(lease).map((sequence) => ({ sequence, reason: "bad_record", detail: "Bad." }));
    expect(await box.settle(lease, { stored: 0, held: [], refused }, 77)).toMatchObject({ refused: 5 });
    const letters = await box.deadLetters();
    expect(letters.map(({ sequence }) => sequence)).toEqual([3, 4, 5]);
    expect(letters[0]).toMatchObject({ stream: lease.stream, reason: "bad_record", refusedAtMs: 77, table: "events" });
    expect(await box.state()).toMatchObject({ records: 0, deadLetters: 3 });
  });

  test("a reused number opens a new stream, and nothing is lost", async () => {
    const box = await outbox();
    await box.append(["a", "b", "c"].map(event));
    const lease = await box.lease();
    const refused = [{ sequence: 2, reason: "sequence_reused", detail: "Another." }];
    const settled = await box.settle(lease, { stored: 0, held: [[1, 1]], refused }, 88);
    expect(settled).toMatchObject({
      acknowledged: 1,
      refused: 0,
      forkedTo: expect.stringMatching(/^[0-9a-f]{32}$/) as unknown,
    });
    const next = await box.lease();
    expect(next.stream).toBe(settled.forkedTo);
    expect(next.records.map(({ record }) => [record.sequence, "name" in record ? record.name : ""])).toEqual([
      [1, "b"],
      [2, "c"],
      [3, "stream_forked"],
    ]);
    expect(await box.settle(lease, holds([1, 3]), 0)).toEqual({ acknowledged: 0, refused: 0, forkedTo: null });
    expect((await box.state()).records).toBe(3);
  });

  test("a lease is bounded in bytes, but has one record always", async () => {
    const box = await outbox({ ...LIMITS, maxBytes: 1e8 });
    const large = (name: string): AnyRecord => {
      const { record } = event(name) as Extract<AnyRecord, { table: "events" }>;
      return { table: "events", record: { ...record, detail: { text: "x".repeat(1_500_000) } } };
    };
    await box.append([large("a"), large("b"), event("c")]);
    expect(numbers(await box.lease())).toEqual([1]);
  });
});

describe("a full outbox", () => {
  test("merges hours into days first, and every number that went has a gap record", async () => {
    const box = await outbox();
    const hours = Array.from({ length: 41 }, (_, hour) => summary(hour));
    await box.append(hours);
    const { records } = await box.lease();
    const days = records.filter((item) => item.table === "summaries").map(({ record }) => record as Summary);
    expect(days.some(({ period }) => period === "day")).toBe(true);
    expect(days.reduce((sum, day) => sum + day.windows, 0)).toBe(3 * 41);
    accountedFor(records, (await box.state()).nextSequence);
  });

  test("drops the oldest summaries before any anomaly or event", async () => {
    const box = await outbox();
    await box.append([event("old"), ...Array.from({ length: 39 }, (_, number) => summary(24 * number))]);
    await box.append(["x", "y", "z"].map(event));
    const { records } = await box.lease();
    expect(records.filter(({ table }) => table === "events")).toHaveLength(4);
    const dropped = records.flatMap((item) => (item.table === "gaps" ? [item.record.reason] : []));
    expect(dropped).toContain("outbox_full");
    accountedFor(records, (await box.state()).nextSequence);
  });

  test("stays within its bounds for as long as it goes on, and its gaps stay few", async () => {
    const box = await outbox();
    for (let round = 0; round < 30; round += 1) {
      await box.append([event(`e${round}`), ...Array.from({ length: 9 }, (_, hour) => summary(24 * round + hour))]);
      if (round % 7 === 3) await box.lease(2);
    }
    const { records } = await box.lease();
    const state = await box.state();
    expect(records.length).toBe(state.records);
    expect(state.records).toBeLessThanOrEqual(LIMITS.maxRecords);
    expect(state.bytes).toBe(records.reduce((sum, item) => sum + stored(item, item.record.sequence).size, 0));
    expect(records.filter(({ table }) => table === "gaps").length).toBeLessThan(20);
    accountedFor(records, state.nextSequence);
  });

  test("never merges what the server may hold", () => {
    const rows = Array.from({ length: 40 }, (_, hour) => ({ ...stored(summary(hour), hour + 1), sent: hour < 20 }));
    const plan = planRoom(rows, { maxRecords: 30, maxBytes: 1e6 });
    expect(plan.merges.flat().every(({ sequence }) => sequence > 20)).toBe(true);
    expect([...plan.removed].every((sequence) => sequence > 20)).toBe(true);
  });

  test("joins runs that touch under the worst reason", () => {
    expect(
      joined([
        [5, 6, "gaps_joined"],
        [1, 2, "summaries_merged"],
        [3, 3, "outbox_full"],
        [8, 9, "gaps_joined"],
      ]),
    ).toEqual([
      [1, 3, "outbox_full"],
      [5, 6, "gaps_joined"],
      [8, 9, "gaps_joined"],
    ]);
  });
});

test("a new stream takes lost runs along", () => {
  const { records, runs, following } = renumbered([9, 4, 12], [[5, 7]]);
  expect([...records].sort(([one], [other]) => one - other)).toEqual([
    [4, 1],
    [9, 5],
    [12, 6],
  ]);
  expect([[...runs], following]).toEqual([[[5, 2]], 7]);
});

/** Every number from 1 on is a record that is there or lies in exactly one gap. */
function accountedFor(records: readonly AnyRecord[], nextSequence: number): void {
  const known = records.map(({ record }) => record.sequence);
  for (const item of records) {
    if (item.table !== "gaps") continue;
    const gap: Gap = item.record;
    for (let number = gap.first_sequence; number <= gap.last_sequence; number += 1) known.push(number);
    expect(gap.last_sequence).toBeLessThan(gap.sequence);
  }
  expect(known.sort((one, other) => one - other)).toEqual(
    Array.from({ length: nextSequence - 1 }, (_, index) => index + 1),
  );
}
