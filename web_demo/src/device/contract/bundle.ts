/** A bundle as a whole: its archive, its manifest, and that both speak of the same files. */
import { ContractError, TrustError } from "../errors.ts";
import { DEFAULT_LIMITS, unpack, type Limits } from "./archive.ts";
import { sha256Hex, type Bytes } from "./bytes.ts";
import { goldenSize, readGoldenSpec, type GoldenSpec } from "./golden.ts";
import { readManifest, type Manifest } from "./manifest.ts";
import type { TargetCustom } from "./release.ts";
import { checkSignature } from "./signature.ts";

export const MANIFEST_NAME = "manifest.json";
export const MODEL_NAME = "model.onnx";
const GOLDEN_SPEC_NAME = "golden.json";
export const GOLDEN_NAME = "golden.f32";
export const REFERENCES_NAME = "references.f32";
export const SIGNATURE_NAME = "model.sig";
const REQUIRED = [
  MANIFEST_NAME,
  MODEL_NAME,
  GOLDEN_SPEC_NAME,
  GOLDEN_NAME,
  "parity.json",
  "MODEL_CARD.md",
  "provenance.json",
  REFERENCES_NAME,
  SIGNATURE_NAME,
];

/** A bundle whose parts agree with each other. */
export interface Bundle {
  /** SHA-256 of the archive, hex: the name that results carry. */
  readonly digest: string;
  readonly manifest: Manifest;
  readonly golden: GoldenSpec;
  readonly files: ReadonlyMap<string, Bytes>;
}

/**
 * Return a file that a bundle must hold.
 *
 * @throws ContractError - It does not.
 */
export function fileOf(files: ReadonlyMap<string, Bytes>, name: string): Bytes {
  const content = files.get(name);
  if (content === undefined) throw new ContractError(`The bundle lacks ${name}.`);
  return content;
}

/**
 * Read a bundle and check that its parts agree.
 *
 * 1. The archive is within limits. 2. Every required file is there. 3. The manifest lists exactly the other files, with
 * their true size and digest. 4. Golden windows and references have the sizes that the manifest implies.
 *
 * @throws ContractError - One of these is not so.
 */
export async function openBundle(data: Bytes, limits: Limits = DEFAULT_LIMITS): Promise<Bundle> {
  const files = await unpack(data, limits); // 1
  const missing = REQUIRED.filter((name) => !files.has(name)).sort();
  if (missing.length > 0) throw new ContractError(`The bundle lacks ${missing.join(", ")}.`); // 2
  const manifest = readManifest(fileOf(files, MANIFEST_NAME));
  await checkFiles(manifest, files); // 3
  const golden = readGoldenSpec(fileOf(files, GOLDEN_SPEC_NAME));
  const slots = manifest.window.slots;
  const signals = manifest.signals.length;
  const fits = golden.slots === slots && golden.signals === signals;
  if (!fits || goldenSize(golden) !== fileOf(files, GOLDEN_NAME).length) {
    throw new ContractError("The golden windows do not have the shape that the manifest gives."); // 4
  }
  if (fileOf(files, REFERENCES_NAME).length !== 4 * manifest.references * slots * signals) {
    throw new ContractError("The reference windows do not have the shape that the manifest gives.");
  }
  return { digest: await sha256Hex(data), manifest, golden, files };
}

/**
 * Check `model.sig` under a key that the caller trusts.
 *
 * @param signer - Base64 of a DER public key, as `custom.signer` has it.
 * @throws TrustError - With reason `bad_signature` or `bad_key`.
 */
export async function checkSigner(bundle: Bundle, signer: string): Promise<void> {
  const signed = new Map([...bundle.files].filter(([name]) => name !== SIGNATURE_NAME));
  await checkSignature(fileOf(bundle.files, SIGNATURE_NAME), signed, signer);
}

/**
 * Check that a bundle is what targets.json says it is.
 *
 * @throws TrustError - With reason `bad_bundle`.
 */
export function checkCustom(bundle: Bundle, custom: TargetCustom): void {
  const { manifest, files } = bundle;
  const size = [...files.values()].reduce((sum, content) => sum + content.length, 0);
  const found = [manifest.model, manifest.version, manifest.cohort, manifest.releaseNumber, size];
  const said = [custom.model, custom.version, custom.cohort, custom.releaseNumber, custom.sizeUnpacked];
  if (JSON.stringify(found) !== JSON.stringify(said)) {
    throw new TrustError(
      `The bundle says it is ${JSON.stringify(found)}, the signed metadata says ${JSON.stringify(said)}.`,
      "bad_bundle",
      "Pack and publish the release again.",
    );
  }
}

async function checkFiles(manifest: Manifest, files: ReadonlyMap<string, Bytes>): Promise<void> {
  const present = [...files.keys()].filter((name) => name !== MANIFEST_NAME && name !== SIGNATURE_NAME);
  const different = [...present, ...manifest.files.keys()].filter(
    (name) => !manifest.files.has(name) || !present.includes(name),
  );
  if (different.length > 0) {
    throw new ContractError(`The manifest and the bundle disagree on: ${different.sort().slice(0, 5).join(", ")}.`);
  }
  for (const [name, entry] of manifest.files) {
    const content = fileOf(files, name);
    if (content.length !== entry.size || (await sha256Hex(content)) !== entry.sha256) {
      throw new ContractError(`${name} is not the file that the manifest lists.`);
    }
  }
}
