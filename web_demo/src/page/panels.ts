/** What the page shows of a device: the verdict, its signals, its anomalies, its bundle, its outbox, who it is. */
import { fileOf, SIGNATURE_NAME } from "../device/contract/bundle.ts";
import { JsonFloat, parseObject, type Json, type JsonObject } from "../device/contract/json.ts";
import type { Contribution } from "../device/contract/result.ts";
import type { Reading } from "../device/readings.ts";
import type { DeviceStatus } from "../device/status.ts";
import type { ActiveBundle } from "../device/store/bundles.ts";
import type { Verdict } from "../device/verdict.ts";
import { byId, element, setText, showFacts, type Fact } from "./dom.ts";
import { count, duration, measured, moment, score, share } from "./formats.ts";

const LISTED_ANOMALIES = 50;
// Of the largest contribution.
const SMALLEST_CAUSE = 0.02;

/** Show the verdict on the latest reading. */
export function showVerdict(verdict: Verdict, minimumReadings: number): void {
  const found = verdict.score;
  const state = found === null ? "none" : found.isAnomaly ? "anomaly" : "healthy";
  byId("verdict").dataset["state"] = state;
  setText("verdict-score", found === null ? "–" : score(found.anomalyScore));
  setText(
    "verdict-words",
    found === null
      ? outcomeWords(verdict, minimumReadings)
      : scoreWords(found.isAnomaly, found.incidentStartedAtMs, verdict.timestampMs),
  );
}

function scoreWords(isAnomaly: boolean, since: number | null, now: number): string {
  if (!isAnomaly) return "Healthy: the score is below the threshold.";
  return since === null || since === now
    ? "Anomaly: an incident begins."
    : `Anomaly: the incident began ${duration(now - since)} before.`;
}

function outcomeWords(verdict: Verdict, minimumReadings: number): string {
  switch (verdict.outcome) {
    case "warming_up":
      return `Warming up: a verdict needs ${minimumReadings} readings.`;
    case "future":
      return "This reading is more than a day ahead of the clock and was refused.";
    case "late":
    case "duplicate":
      return "This reading is not newer than what was scored before, so it was counted and not scored.";
    case "scored":
      return "";
  }
}

/** Show the values of a reading, and what each signal added to the latest anomaly. */
export function showSignals(bundle: ActiveBundle, reading: Reading, contributions: readonly Contribution[]): void {
  const causes = new Map(causesAmong(contributions));
  const largest = Math.max(...causes.values());
  const rows = bundle.manifest.signals.map(({ name, unit }) => {
    const value = Number(reading[name] ?? NaN);
    const cause = causes.get(name);
    const label = element("th", "", name.replaceAll("_", " "));
    label.setAttribute("scope", "row");
    const shown = Number.isNaN(value) ? element("span", "missing", "missing") : `${measured(value)} ${unit}`.trim();
    const added = element("td", cause === largest ? "num top-cause" : "num", cause === undefined ? "" : share(cause));
    return element("tr", "", label, element("td", "num", shown), added);
  });
  byId("signals").replaceChildren(...rows);
}

/** Return the contributions that a person should read: those that add to the score, and not next to nothing. */
function causesAmong(contributions: readonly Contribution[]): readonly Contribution[] {
  const largest = Math.max(...contributions.map(([, value]) => value), 0);
  return contributions.filter(([, value]) => value > 0 && value >= largest * SMALLEST_CAUSE);
}

/** Put an anomaly that became a record on top of the list. */
export function addAnomaly(verdict: Verdict): void {
  if (verdict.score === null) return;
  const causes = causesAmong(verdict.score.contributions)
    .slice(0, 3)
    .map(([name, value]) => `${name.replaceAll("_", " ")} (${share(value)})`);
  const list = byId("anomalies");
  const why = causes.length === 0 ? "Contributions are not known." : `Because of ${causes.join(", ")}.`;
  const item = element(
    "li",
    "",
    `${moment(verdict.timestampMs)}: scored ${score(verdict.score.anomalyScore)}`,
    element("span", "hint", why),
  );
  list.prepend(item);
  while (list.children.length > LISTED_ANOMALIES) list.lastElementChild?.remove();
  setText("anomalies-words", "The first window of each incident, and each new maximum.");
}

/** Show what waits and what became of the rest. */
export function showOutbox(status: DeviceStatus): void {
  const lost = status.counters.get("records_dropped") ?? 0;
  const boxes: readonly (readonly [string, number, boolean])[] = [
    ["waiting", status.outbox.records, false],
    ["held by the server", status.counters.get("records_acknowledged") ?? 0, false],
    ["dead letters", status.outbox.deadLetters, status.outbox.deadLetters > 0],
    ["lost in gaps", lost, lost > 0],
  ];
  const shown = boxes.map(([name, value, attention]) =>
    element("div", attention ? "attention" : "", element("dt", "", name), element("dd", "", count(value))),
  );
  byId("outbox").replaceChildren(...shown);
}

/** Show which bundle is active, and how it was proven. */
export function showBundle(bundle: ActiveBundle): void {
  const { manifest, digest } = bundle;
  setText("bundle-words", `Release ${manifest.releaseNumber} of ${manifest.model}`);
  showFacts("bundle", [
    { name: "Version", value: `${manifest.version}, release ${manifest.releaseNumber}` },
    { name: "For", value: manifest.cohort ?? "all cohorts" },
    { name: "Threshold", value: score(manifest.threshold.anomalyScore) },
    { name: "Window", value: `${manifest.window.slots} readings, ${duration(manifest.window.intervalMs)} apart` },
    { name: "Self-test", value: "All golden windows scored as on the trained model, here, before it was activated." },
    { name: "Digest", value: digest, kind: "code" },
    { name: "Signed by", value: signerOf(bundle), kind: "code" },
  ]);
  showFacts("parity", parityFacts(parseObject(fileOf(bundle.files, "parity.json"), "parity.json")));
}

/** Show which device this is. */
export function showIdentity(status: DeviceStatus, kept: boolean): void {
  const { identity } = status;
  if (identity === null) return;
  setText("who", `${identity.name ?? identity.deviceId.slice(0, 8)} on ${identity.channel}`);
  showFacts("identity", [
    { name: "Device", value: identity.deviceId, kind: "code" },
    { name: "Server", value: identity.serverUrl },
    { name: "Channel", value: `${identity.channel}, model ${identity.model}` },
    kept
      ? { name: "Storage", value: "kept until you clear it" }
      : { name: "Storage", value: "this browser may clear it when space is short" },
  ]);
}

/** Return the digest of the public key that the signature names; which key it had to be, signed metadata said. */
function signerOf(bundle: ActiveBundle): string {
  const signature = parseObject(fileOf(bundle.files, SIGNATURE_NAME), SIGNATURE_NAME);
  const material = signature["verificationMaterial"] as JsonObject;
  return String((material["publicKey"] as JsonObject)["hint"]);
}

/** Return the figures of the form that ships, on the largest set that they were measured on. */
function parityFacts(parity: JsonObject): readonly Fact[] {
  const chosen = String(parity["chosen"] ?? "");
  const candidates = (parity["candidates"] ?? {}) as JsonObject;
  const sets = ((candidates[chosen] as JsonObject | undefined)?.["sets"] ?? {}) as JsonObject;
  const facts: Fact[] = [{ name: "Form", value: `${chosen}. ${String(parity["reason"] ?? "")}` }];
  for (const [set, measuredOn] of Object.entries(sets)) {
    const figures = measuredOn as JsonObject;
    const value = [
      `${count(numberOf(figures["windows"]))} windows`,
      `largest difference ${measured(numberOf(figures["max_raw_difference"]))}`,
      `${count(numberOf(figures["label_flips"]))} other verdicts`,
      `rank correlation ${measured(numberOf(figures["spearman"]))}`,
    ].join(", ");
    facts.push({ name: set, value });
  }
  return facts;
}

function numberOf(value: Json | undefined): number {
  return value instanceof JsonFloat ? value.value : Number(value ?? NaN);
}
