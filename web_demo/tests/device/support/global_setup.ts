/** Lets the project's Python write what the tests read, once a run, into a folder that goes afterwards. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));

export default function setup(project: TestProject): () => void {
  const folder = mkdtempSync(join(tmpdir(), "stella-web-"));
  const python = process.env["STELLA_PYTHON"] ?? join(ROOT, ".venv", "bin", "python");
  const env = { ...process.env, PYTHONPATH: [ROOT, join(ROOT, "tests")].join(":") };
  execFileSync(python, ["-m", "simulators.web_fixtures", folder], {
    cwd: ROOT,
    env,
    stdio: ["ignore", "inherit", "inherit"],
  });
  project.provide("fixtures", folder);
  return () => rmSync(folder, { recursive: true });
}
