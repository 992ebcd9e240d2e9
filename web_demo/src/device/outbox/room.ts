/**
 * How a full outbox gives way: which records go, and which runs of numbers the gap records name. Pure.
 *
 * Hourly summaries merge into daily ones, then the oldest summaries go, then the oldest anomalies and events. What the
 * server may hold already (`sent`) is never merged, because the server adds summaries and would count it twice, and it
 * is dropped only when nothing else is left. Gap records that were not sent are rewritten with each plan, so that
 * neighbouring runs become one and the gaps themselves stay few.
 */
import type { Gap, Summary } from "../contract/result.ts";
import type { StoredRecord } from "../store/schema.ts";
import { DAY_MS } from "../summaries.ts";

const FULL = "outbox_full";
const MERGED = "summaries_merged";
const JOINED = "gaps_joined";
// A joined run is named after the worst that happened in it.
const WORST_FIRST: readonly string[] = [FULL, MERGED, JOINED];
// Where clearing stops, as a share of the limits: room for a day's records before the next plan.
const TARGET_SHARE = 0.9;
// What a gap and a daily summary take, in bytes.
const GAP_BYTES = 90;
const SUMMARY_BYTES = 330;
// A plan is costed after every so many steps: each costing sorts what is lost so far.
const COSTINGS = 64;

/** A contiguous run of lost numbers, and why. */
export type Run = readonly [first: number, last: number, reason: string];

/** What to do to the outbox. */
export interface RoomPlan {
  /** Numbers of the records to delete, those that are merged or rewritten included. */
  readonly removed: ReadonlySet<number>;
  /** Groups of summaries, each to be added up into one daily summary. */
  readonly merges: readonly (readonly Summary[])[];
  /** The gap records to write. */
  readonly runs: readonly Run[];
  /** How many records are given up for good. */
  readonly dropped: number;
}

/** Bounds of the outbox. */
export interface Room {
  readonly maxRecords: number;
  readonly maxBytes: number;
}

interface Step {
  readonly records: readonly StoredRecord[];
  readonly merge: boolean;
}

/**
 * Choose what goes until the outbox is at nine tenths of its limits.
 *
 * @param records - Everything in the outbox, by sequence.
 * @returns The plan; when nothing can go, one that removes nothing.
 */
export function planRoom(records: readonly StoredRecord[], room: Room): RoomPlan {
  const steps = stepsOf(records);
  const every = Math.max(1, Math.floor(steps.length / COSTINGS));
  for (let end = every; end < steps.length; end += every) {
    const plan = apply(records, steps.slice(0, end));
    if (isEnough(records, plan, room)) return plan;
  }
  return apply(records, steps);
}

/** Return every step in the order of the contract: later ones undo the merge of what they drop. */
function stepsOf(records: readonly StoredRecord[]): readonly Step[] {
  const days = new Map<string, StoredRecord[]>();
  for (const item of records) {
    if (item.table !== "summaries" || item.sent) continue;
    const { bundle, period_start_ms: start } = item.record as Summary;
    const key = `${String(Math.floor(start / DAY_MS)).padStart(9, "0")} ${bundle}`;
    days.set(key, [...(days.get(key) ?? []), item]);
  }
  const byAge = [...days].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, group]) => group);
  const merges = byAge.filter((group) => group.length > 1).map((group) => ({ records: group, merge: true }));
  const single = (item: StoredRecord): Step => ({ records: [item], merge: false });
  const others = records.filter((item) => item.table !== "summaries" && item.table !== "gaps" && !item.sent);
  const sent = records.filter((item) => item.table !== "gaps" && item.sent);
  const summaries = byAge.map((group) => ({ records: group, merge: false }));
  return [...merges, ...summaries, ...others.map(single), ...sent.map(single)];
}

function apply(records: readonly StoredRecord[], steps: readonly Step[]): RoomPlan {
  const removed = new Set<number>();
  const merged = new Map<number, readonly StoredRecord[]>();
  const lost: Run[] = [];
  let dropped = 0;
  for (const step of steps) {
    const first = step.records[0]!.sequence;
    for (const { sequence } of step.records) removed.add(sequence);
    if (step.merge) {
      merged.set(first, step.records);
      continue;
    }
    merged.delete(first);
    dropped += step.records.length;
    lost.push(...step.records.map(({ sequence }): Run => [sequence, sequence, FULL]));
  }
  const merges = [...merged.values()];
  lost.push(...merges.flat().map(({ sequence }): Run => [sequence, sequence, MERGED]));
  if (removed.size > 0) lost.push(...rewritten(records, removed));
  const summaries = merges.map((group) => group.map((item) => item.record as Summary));
  return { removed, merges: summaries, runs: joined(lost), dropped };
}

/** Take the gap records that were not sent into the plan: their runs and their own numbers are lost numbers too. */
function rewritten(records: readonly StoredRecord[], removed: Set<number>): readonly Run[] {
  return records.flatMap((item): readonly Run[] => {
    if (item.table !== "gaps" || item.sent) return [];
    removed.add(item.sequence);
    const gap = item.record as Gap;
    return [
      [gap.first_sequence, gap.last_sequence, gap.reason],
      [item.sequence, item.sequence, JOINED],
    ];
  });
}

/**
 * Join runs that touch; the joined run takes the worst reason of its parts.
 *
 * @param runs - Disjoint, in any order.
 * @returns The fewest runs that cover the same numbers, ascending.
 */
export function joined(runs: readonly Run[]): readonly Run[] {
  const result: Run[] = [];
  for (const run of [...runs].sort(([one], [other]) => one - other)) {
    const before = result.at(-1);
    if (before === undefined || run[0] !== before[1] + 1) result.push(run);
    else result[result.length - 1] = [before[0], run[1], worst(before[2], run[2])];
  }
  return result;
}

function worst(one: string, other: string): string {
  return WORST_FIRST.indexOf(one) <= WORST_FIRST.indexOf(other) ? one : other;
}

function isEnough(records: readonly StoredRecord[], plan: RoomPlan, room: Room): boolean {
  const kept = records.filter((item) => !plan.removed.has(item.sequence));
  const count = kept.length + plan.merges.length + plan.runs.length;
  const bytes = kept.reduce((sum, item) => sum + item.size, 0);
  const made = plan.merges.length * SUMMARY_BYTES + plan.runs.length * GAP_BYTES;
  return count <= room.maxRecords * TARGET_SHARE && bytes + made <= room.maxBytes * TARGET_SHARE;
}
