/**
 * model.sig: a signature over every file of a bundle, in the OpenSSF Model Signing v1 format.
 *
 * A sigstore bundle v0.3 (JSON) holds a DSSE envelope around an in-toto statement that lists the SHA-256 of every file.
 *
 * Sources: OpenSSF Model Signing specification v1.0, https://github.com/ossf/model-signing-spec; DSSE v1 protocol,
 * https://github.com/secure-systems-lab/dsse (pre-authentication encoding); in-toto Statement v1.
 */
import { ContractError, TrustError } from "../errors.ts";
import { concat, fromBase64, fromHex, sha256Hex, utf8, type Bytes } from "./bytes.ts";
import * as checks from "./checks.ts";
import { importKey, verify } from "./ecdsa.ts";
import { parseObject, type Json, type JsonObject } from "./json.ts";

const BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE = "https://model_signing/signature/v1.0";
const MAX_SIGNATURE_BYTES = 2 ** 20;
const MAX_RESOURCES = 1024;

/**
 * Check that a key signed exactly these files.
 *
 * 1. The envelope is one this format knows. 2. Its signature is the key's. 3. The statement lists exactly the files at
 * hand. 4. Every digest is theirs.
 *
 * @param signature - The content of `model.sig`.
 * @param files - Content by name, without `model.sig`.
 * @param signer - Base64 of the key's DER SubjectPublicKeyInfo, as `custom.signer` has it.
 * @throws TrustError - With reason `bad_signature` or `bad_key`.
 */
export async function checkSignature(
  signature: Bytes,
  files: ReadonlyMap<string, Bytes>,
  signer: string,
): Promise<void> {
  const key = await loadSigner(signer);
  const listed = await verifiedList(signature, key); // 1, 2
  const different = [...listed.keys(), ...files.keys()].filter((name) => !listed.has(name) || !files.has(name));
  if (different.length > 0) {
    throw refused(`model.sig lists other files than the bundle holds: ${different.sort().slice(0, 5).join(", ")}`); // 3
  }
  for (const [name, content] of files) {
    if ((await sha256Hex(content)) !== listed.get(name)) throw refused(`${name} is not the file that was signed`); // 4
  }
}

async function loadSigner(text: string): Promise<CryptoKey> {
  try {
    return await importKey(fromBase64(text));
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new TrustError("The signer's public key is not an ECDSA P-256 key.", "bad_key");
  }
}

async function verifiedList(signature: Bytes, key: CryptoKey): Promise<ReadonlyMap<string, string>> {
  try {
    const [payload, raw] = openEnvelope(signature);
    if (!(await verify(key, raw, preAuthenticationEncoding(payload))))
      throw new ContractError("the key did not sign it");
    return await readList(payload);
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw refused(`model.sig does not verify: ${error.message.replace(/\.$/, "")}`);
  }
}

function openEnvelope(signature: Bytes): readonly [Bytes, Bytes] {
  if (signature.length > MAX_SIGNATURE_BYTES) throw new ContractError("it is too large");
  const bundle = parseObject(signature, "model.sig");
  const envelope = checks.table(checks.get(bundle, "dsseEnvelope"), "dsseEnvelope");
  const first = checks.array(checks.get(envelope, "signatures"), "signatures", 1)[0];
  const known =
    checks.optional(bundle, "mediaType") === BUNDLE_MEDIA_TYPE &&
    checks.optional(envelope, "payloadType") === PAYLOAD_TYPE;
  if (!known || first === undefined) throw new ContractError("it is of a kind that this program does not know");
  const encoded = checks.text(checks.get(checks.table(first, "signatures"), "sig"), "sig", 512);
  const payload = checks.text(checks.get(envelope, "payload"), "payload", MAX_SIGNATURE_BYTES);
  return [fromBase64(payload), fromBase64(encoded)];
}

async function readList(payload: Bytes): Promise<ReadonlyMap<string, string>> {
  const statement = parseObject(payload, "The statement in model.sig");
  const kind = [checks.optional(statement, "_type"), checks.optional(statement, "predicateType")];
  if (kind[0] !== STATEMENT_TYPE || kind[1] !== PREDICATE_TYPE) {
    throw new ContractError("its statement is of a kind that this program does not know");
  }
  const predicate = checks.table(checks.get(statement, "predicate"), "predicate");
  const listed = new Map<string, string>();
  for (const item of checks.array(checks.get(predicate, "resources"), "resources", MAX_RESOURCES)) {
    const [name, digest] = readResource(item);
    if (listed.has(name)) throw new ContractError(`it lists '${name}' twice`);
    listed.set(name, digest);
  }
  await checkSubject(statement, listed);
  return listed;
}

function readResource(item: Json): readonly [string, string] {
  const resource = checks.table(item, "resources");
  if (checks.optional(resource, "algorithm") !== "sha256") {
    throw new ContractError("it uses another digest than SHA-256");
  }
  return [checks.text(checks.get(resource, "name"), "name"), checks.hex64(checks.get(resource, "digest"), "digest")];
}

async function checkSubject(statement: JsonObject, listed: ReadonlyMap<string, string>): Promise<void> {
  const ordered = [...listed].sort(([one], [other]) => (one < other ? -1 : 1));
  const whole = await sha256Hex(concat(ordered.map(([, digest]) => fromHex(digest))));
  const subject = checks.array(checks.get(statement, "subject"), "subject", 1)[0];
  const digest =
    subject === undefined ? {} : checks.table(checks.get(checks.table(subject, "subject"), "digest"), "digest");
  if (JSON.stringify(digest) !== JSON.stringify({ sha256: whole })) {
    throw new ContractError("its subject is not the digest of the files it lists");
  }
}

function preAuthenticationEncoding(payload: Bytes): Bytes {
  // DSSE v1: "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body
  return concat([utf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

function refused(message: string): TrustError {
  return new TrustError(
    `${message}.`,
    "bad_signature",
    "Do not use this bundle; fetch it again, and ask the release engineers when it stays so.",
  );
}
