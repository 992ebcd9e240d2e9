/** manifest.json: what a bundle is, and all that a device needs to run it. Unknown fields are kept. */
import { ContractError } from "../errors.ts";
import * as checks from "./checks.ts";
import { BINS } from "./histogram.ts";
import { parseObject, type Json, type JsonObject } from "./json.ts";
import { checkName, MAX_COHORT_CHARACTERS } from "./names.ts";
import { readWindowRule, type WindowRule } from "./window.ts";

const FORMAT = 1;
const MAX_SIGNALS = 1024;
const MAX_FEATURES = 16_384;
const MAX_REGIMES = 16;
const MAX_REFERENCES = 64;
const MAX_FILES = 1024;

/** One column of a window. */
export interface Signal {
  /** As the readings name it. */
  readonly name: string;
  /** For people; may be empty. */
  readonly unit: string;
  /** `context` when it says what the device is doing. */
  readonly role: "signal" | "context";
}

/** From which score on a window is an anomaly. */
export interface Threshold {
  readonly anomalyScore: number;
  readonly rawScore: number;
  /** Incidents of healthy devices it was chosen for, or null when given directly. */
  readonly alarmsPerDeviceDay: number | null;
}

/** Typical contexts (K of them, over C context signals) and what is normal in each for the S' other signals. */
export interface Regimes {
  /** [K][C], in training spreads. */
  readonly centroids: readonly (readonly number[])[];
  /** [C], in the signal's unit. */
  readonly contextMeans: readonly number[];
  /** [C], in the signal's unit; a spread of zero counts as 1. */
  readonly contextSpreads: readonly number[];
  /** [K][S'] healthy means, in the signal's unit. */
  readonly means: readonly (readonly number[])[];
  /** [K][S'] healthy spreads, in the signal's unit. */
  readonly spreads: readonly (readonly number[])[];
}

/** One file of the bundle. */
export interface FileEntry {
  readonly sha256: string;
  readonly size: number;
}

/** The manifest of a bundle. */
export interface Manifest {
  readonly model: string;
  /** A label. */
  readonly version: string;
  /** What orders releases. */
  readonly releaseNumber: number;
  /** The cohort it was trained for, or null for the default bundle. */
  readonly cohort: string | null;
  readonly precision: "fp32" | "codebook8" | "int8";
  /** The columns of a window, in order. */
  readonly signals: readonly Signal[];
  readonly window: WindowRule;
  /** Names of the graph's features, in order. */
  readonly features: readonly string[];
  readonly threshold: Threshold;
  /** Healthy windows that end an incident. */
  readonly incidentGap: number;
  /** 15 counts of the out-of-fold anomaly scores of healthy training windows. */
  readonly histogram: readonly number[];
  readonly regimes: Regimes | null;
  /** R, the number of healthy windows in `references.f32`. */
  readonly references: number;
  readonly files: ReadonlyMap<string, FileEntry>;
  /** What it needs: `onnxruntime` (a version bound) and opset numbers by domain. */
  readonly runtime: ReadonlyMap<string, string | number>;
  /** Goals of the exporter that it misses, as sentences. */
  readonly belowGoals: readonly string[];
  /** Fields of a later minor format, kept as they are. */
  readonly unrecognized: JsonObject;
}

const KNOWN = new Set([
  "format",
  "model",
  "version",
  "release_number",
  "cohort",
  "precision",
  "signals",
  "window",
  "features",
  "threshold",
  "incident_gap",
  "histogram",
  "regimes",
  "references",
  "files",
  "runtime",
  "below_goals",
]);

/**
 * Read manifest.json.
 *
 * @throws ContractError - Not JSON, a newer format, or a field that is missing or out of bounds.
 */
export function readManifest(data: Uint8Array): Manifest {
  const value = parseObject(data, "manifest.json");
  checkFormat(value);
  const get = (field: string): Json => checks.get(value, field);
  const cohort = get("cohort");
  const regimes = get("regimes");
  const signals = checks.array(get("signals"), "signals", MAX_SIGNALS).map(readSignal);
  const manifest: Manifest = {
    model: checkName("model", get("model")),
    version: checkName("version", get("version")),
    releaseNumber: checks.integer(get("release_number"), "release_number", { least: 1 }),
    cohort: cohort === null ? null : checks.text(cohort, "cohort", MAX_COHORT_CHARACTERS),
    precision: readPrecision(get("precision")),
    signals,
    window: readWindowRule(checks.table(get("window"), "window")),
    features: texts(get("features"), "features", MAX_FEATURES, 256),
    threshold: readThreshold(checks.table(get("threshold"), "threshold")),
    incidentGap: checks.integer(get("incident_gap"), "incident_gap", { least: 1, most: 10_000 }),
    histogram: checks.array(get("histogram"), "histogram", BINS).map((count) => checks.integer(count, "histogram")),
    regimes: regimes === null ? null : readRegimes(checks.table(regimes, "regimes"), signals),
    references: checks.integer(get("references"), "references", { least: 1, most: MAX_REFERENCES }),
    files: readFiles(checks.table(get("files"), "files")),
    runtime: readRuntime(checks.table(get("runtime"), "runtime")),
    belowGoals: Object.hasOwn(value, "below_goals") ? texts(get("below_goals"), "below_goals", 32, 512) : [],
    unrecognized: unknownFields(value),
  };
  checkWhole(manifest);
  return manifest;
}

/** Return the columns of the window that play a role, in order. */
export function columnsOf(manifest: Manifest, role: Signal["role"]): readonly number[] {
  return manifest.signals.flatMap((signal, column) => (signal.role === role ? [column] : []));
}

function checkFormat(value: JsonObject): void {
  const format = checks.integer(checks.get(value, "format"), "format", { least: 1 });
  if (format !== FORMAT) {
    throw new ContractError(
      `manifest.json has format ${format}; this program reads format ${FORMAT}.`,
      "Update Stella Edge here, or publish a bundle of the older format.",
      { newer_format: true },
    );
  }
}

function unknownFields(value: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(value).filter(([name]) => !KNOWN.has(name)));
}

function readSignal(value: Json): Signal {
  const item = checks.table(value, "signals");
  const role = checks.get(item, "role");
  if (role !== "signal" && role !== "context") {
    throw new ContractError("Field 'role' of a signal must be 'signal' or 'context'.");
  }
  const unit = Object.hasOwn(item, "unit") ? checks.text(checks.get(item, "unit"), "unit", 64) : "";
  return { name: checks.text(checks.get(item, "name"), "name", 128), unit, role };
}

function readPrecision(value: Json): Manifest["precision"] {
  if (value !== "fp32" && value !== "codebook8" && value !== "int8") {
    throw new ContractError("Field 'precision' must be 'fp32', 'codebook8' or 'int8'.");
  }
  return value;
}

function readThreshold(value: JsonObject): Threshold {
  const alarms = checks.optional(value, "alarms_per_device_day");
  return {
    anomalyScore: checks.number(checks.get(value, "anomaly_score"), "anomaly_score", { least: 0, most: 1 }),
    rawScore: checks.number(checks.get(value, "raw_score"), "raw_score"),
    alarmsPerDeviceDay: alarms === null ? null : checks.number(alarms, "alarms_per_device_day", { least: 0 }),
  };
}

function texts(value: Json, field: string, most: number, characters: number): readonly string[] {
  return checks.array(value, field, most).map((item) => checks.text(item, field, characters));
}

function numbers(value: Json, field: string, length: number): readonly number[] {
  const result = checks.array(value, field, MAX_SIGNALS).map((item) => checks.number(item, field));
  if (result.length !== length) {
    throw new ContractError(`Field '${field}' must hold ${length} numbers, not ${result.length}.`);
  }
  return result;
}

function readRegimes(value: JsonObject, signals: readonly Signal[]): Regimes {
  const context = signals.filter((signal) => signal.role === "context").length;
  const rows = (field: string, width: number): readonly (readonly number[])[] =>
    checks.array(checks.get(value, field), field, MAX_REGIMES).map((row) => numbers(row, field, width));
  const centroids = rows("centroids", context);
  const means = rows("means", signals.length - context);
  const spreads = rows("spreads", signals.length - context);
  if (centroids.length === 0 || means.length !== centroids.length || spreads.length !== centroids.length) {
    throw new ContractError("Field 'regimes' must hold centroids, means and spreads for the same regimes.");
  }
  const contextMeans = numbers(checks.get(value, "context_means"), "context_means", context);
  const contextSpreads = numbers(checks.get(value, "context_spreads"), "context_spreads", context);
  return { centroids, contextMeans, contextSpreads, means, spreads };
}

function readFiles(value: JsonObject): ReadonlyMap<string, FileEntry> {
  const names = Object.keys(value);
  if (names.length > MAX_FILES) throw new ContractError("Field 'files' names too many files.");
  return new Map(
    names.map((name) => {
      const entry = checks.table(checks.get(value, name), "files");
      const sha256 = checks.hex64(checks.get(entry, "sha256"), "sha256");
      return [checks.text(name, "files", 64), { sha256, size: checks.integer(checks.get(entry, "size"), "size") }];
    }),
  );
}

function readRuntime(value: JsonObject): ReadonlyMap<string, string | number> {
  return new Map(
    Object.entries(value).map(([name, item]) => [
      checks.text(name, "runtime", 64),
      typeof item === "number" ? item : checks.text(item, "runtime", 64),
    ]),
  );
}

function checkWhole(manifest: Manifest): void {
  const names = new Set(manifest.signals.map((signal) => signal.name));
  if (columnsOf(manifest, "signal").length === 0 || names.size !== manifest.signals.length) {
    throw new ContractError("Field 'signals' must name at least one signal that is not context, and none twice.");
  }
  if (manifest.histogram.length !== BINS) throw new ContractError(`Field 'histogram' must hold ${BINS} counts.`);
  if (columnsOf(manifest, "context").length > 0 !== (manifest.regimes !== null)) {
    throw new ContractError("A manifest has regimes exactly when it has context signals.");
  }
}
