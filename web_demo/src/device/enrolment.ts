/**
 * First trust: from one line that a person carried here to a device that knows its server, its root and its channel.
 */
import type { EnrolmentLine } from "./contract/enrolment.ts";
import { utf8, type Bytes } from "./contract/bytes.ts";
import { isShort } from "./contract/checks.ts";
import * as checks from "./contract/checks.ts";
import type { JsonObject } from "./contract/json.ts";
import { checkName, MAX_COHORT_CHARACTERS } from "./contract/names.ts";
import { DEVICES, rootByDigest } from "./contract/routes.ts";
import { ContractError, InputError, TransportError, TrustError } from "./errors.ts";
import { installationId, loadIdentity, type Identity } from "./identity.ts";
import type { Database } from "./store/database.ts";
import { ONLY } from "./store/schema.ts";
import { bearer, MAX_JSON_BYTES, type Transport } from "./transport.ts";
import { checkRoot, MAX_ROOT_BYTES } from "./trust/client.ts";

const MAX_NAME_CHARACTERS = 120;
const TOKEN = /^[\x21-\x7e]{16,256}$/;

/** What the person who enrols decides. */
export interface Wishes {
  /** A name for people, or null. */
  readonly name: string | null;
  /** Devices that share a model, or null for the default bundle. */
  readonly cohort: string | null;
}

/**
 * Enrol this installation, or enrol it again with a new token.
 *
 * 1. The database belongs to no other server. 2. The root that the line names is fetched and checked. 3. The server
 * gives a device id and token for this installation's id, the same device when it is asked again. 4. Root, token and
 * identity are stored in one transaction.
 *
 * @param runtime - What the device reports of the programs it runs.
 * @throws InputError - A name or cohort that is empty, too long, or holds control characters.
 * @throws TrustError - Another root than the line names (reason `wrong_root`), a root that is none
 *   (`metadata_invalid`), or a database of another server (`already_enrolled`).
 * @throws TransportError - The server could not be reached, or refused the token.
 * @throws StorageError - Storage full or denied.
 */
export async function enrol(
  database: Database,
  transport: Transport,
  line: EnrolmentLine,
  wishes: Wishes,
  runtime: Readonly<Record<string, string>>,
): Promise<Identity> {
  checkWishes(wishes);
  const known = await loadIdentity(database);
  if (known !== null && known.serverUrl !== line.url) throw alreadyEnrolled(known, line); // 1
  const installation = await installationId(database);
  const root = await fetchRoot(transport, line);
  await checkRoot(root, line.rootDigest); // 2
  const asked = { installation_id: installation, ...wishes, kind: "demo", runtime };
  const answer = await register(transport, line, asked); // 3
  const identity = identityOf(answer, line, installation, wishes);
  await store(database, identity, root); // 4
  return identity;
}

async function store(database: Database, identity: Identity, root: Bytes): Promise<void> {
  await database.write(["identity", "trust", "expiry"], async (tx) => {
    const trust = await tx.get("trust", ONLY);
    // The same root keeps what was verified under it: a device must not forget the versions it has seen.
    if (trust === null || trust.rootDigest !== identity.rootDigest) {
      await tx.put("trust", { rootDigest: identity.rootDigest, roots: [root], known: null }, ONLY);
      await tx.delete("expiry", ONLY);
    }
    await tx.put("identity", identity, ONLY);
  });
}

async function fetchRoot(transport: Transport, line: EnrolmentLine): Promise<Bytes> {
  try {
    return await transport.call({ method: "GET", path: rootByDigest(line.rootDigest), limit: MAX_ROOT_BYTES });
  } catch (error) {
    if (!(error instanceof TransportError) || error.status !== 404) throw error;
    throw new TrustError(
      `${line.url} does not have the root of trust that the enrolment line names.`,
      "wrong_root",
      "Get a new line from the operator of this very server.",
    );
  }
}

async function register(transport: Transport, line: EnrolmentLine, body: object): Promise<JsonObject> {
  const headers = { ...bearer(line.token), "Content-Type": "application/json" };
  const data = utf8(JSON.stringify(body));
  const expected = [200, 201];
  try {
    return await transport.callJson({
      method: "POST",
      path: DEVICES,
      headers,
      body: data,
      limit: MAX_JSON_BYTES,
      expected,
    });
  } catch (error) {
    if (!(error instanceof TransportError) || error.status !== 401) throw error;
    throw new TransportError(
      error.message,
      "The enrolment token was used up, has expired or was revoked: get a new line from the operator.",
      error,
    );
  }
}

function identityOf(answer: JsonObject, line: EnrolmentLine, installation: string, wishes: Wishes): Identity {
  try {
    const token = checks.text(checks.get(answer, "token"), "token");
    if (!TOKEN.test(token)) throw new ContractError("Field 'token' is none.");
    return {
      deviceId: checks.text(checks.get(answer, "device_id"), "device_id", 64),
      installationId: installation,
      serverUrl: line.url,
      model: checkName("model", checks.get(answer, "model")),
      channel: checkName("channel", checks.get(answer, "channel")),
      cohort: wishes.cohort,
      name: wishes.name,
      rootDigest: line.rootDigest,
      targetsVersion: line.targetsVersion,
      token,
    };
  } catch (error) {
    if (!(error instanceof ContractError)) throw error;
    throw new TransportError(
      `${line.url} answered the enrolment with something this device does not understand.`,
      "Check the server's address and that server and page are of the same version.",
    );
  }
}

function alreadyEnrolled(known: Identity, line: EnrolmentLine): TrustError {
  return new TrustError(
    `This browser is enrolled with ${known.serverUrl}; the line is for ${line.url}.`,
    "already_enrolled",
    "Remove this device from the browser when its results have been uploaded, then enrol it again.",
  );
}

function checkWishes(wishes: Wishes): void {
  const limits = [
    ["name", MAX_NAME_CHARACTERS],
    ["cohort", MAX_COHORT_CHARACTERS],
  ] as const;
  for (const [what, most] of limits) {
    const text = wishes[what];
    if (text === null || (text !== "" && isShort(text, most) && !/[\p{C}\p{Zl}\p{Zp}]/u.test(text))) continue;
    throw new InputError(
      `The ${what} '${text.slice(0, 40)}' cannot be used.`,
      `Give 1 to ${most} printable characters, or leave it out.`,
    );
  }
}
