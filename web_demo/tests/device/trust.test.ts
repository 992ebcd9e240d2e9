import { generateKeyPairSync, sign, type KeyObject } from "node:crypto";
import { describe, expect, test } from "vitest";
import { parseEnrolmentLine } from "../../src/device/contract/enrolment.ts";
import { fromBase64, utf8 } from "../../src/device/contract/bytes.ts";
import { parse } from "../../src/device/contract/json.ts";
import { Transport } from "../../src/device/transport.ts";
import { canonicalBytes } from "../../src/device/trust/canonical.ts";
import { checkRoot, refresh, sameState, type Refreshed, type TrustState } from "../../src/device/trust/client.ts";
import { checkSigned, readMetadata } from "../../src/device/trust/metadata.ts";
import { scene } from "./support/fixtures.ts";
import { endless, FakeServer } from "./support/server.ts";

const DAY_MS = 86_400_000;

/** A client that keeps what it verified, as the database does. */
class Client {
  readonly server: FakeServer;
  state: TrustState;
  clockMs = Date.now();
  private readonly oldest: number;

  constructor(name: string) {
    const found = scene(name);
    const line = parseEnrolmentLine(found.line);
    this.server = new FakeServer(found);
    this.oldest = line.targetsVersion;
    const root = fromBase64(found.moments["first"]!.metadata["1.root.json"]!);
    this.state = { rootDigest: line.rootDigest, roots: [root], known: null };
  }

  async refresh(): Promise<Refreshed> {
    const transport = new Transport(this.server.url, this.server.fetch, () => this.clockMs);
    const refreshed = await refresh(this.state, transport, this.clockMs, this.oldest, async (state) => {
      this.state = state;
    });
    this.state = refreshed.state;
    return refreshed;
  }

  /** Refresh, expect a refusal, and that nothing was kept but roots. */
  async refused(reason: string, sentence: string | RegExp = ""): Promise<void> {
    const before = this.state;
    await expect(this.refresh()).rejects.toMatchObject({ reason, message: expect.stringMatching(sentence) as unknown });
    expect(this.state.known).toBe(before.known);
    expect(this.state.roots.slice(0, before.roots.length)).toEqual(before.roots);
  }
}

async function begun(name: string): Promise<Client> {
  const client = new Client(name);
  await client.refresh();
  return client;
}

describe("a repository that is well", () => {
  test("is read: targets, rollouts, the floor", async () => {
    const client = await begun("updates");
    client.server.show("second");
    const { view } = await client.refresh();
    expect([...view.targets.keys()].sort()).toEqual(["pumps/1.0.0/default.bundle", "pumps/2.0.0/default.bundle"]);
    expect(view.rollouts.get("stable")).toMatchObject({ release: 2, previous: 1, state: "running" });
    expect(view.floor("pumps")).toBe(0);
    client.server.show("below the floor");
    expect((await client.refresh()).view.floor("pumps")).toBe(2);
  });

  test("costs two requests when there is no news, and the state is the same", async () => {
    const client = await begun("updates");
    const before = client.state;
    client.server.seen.length = 0;
    await client.refresh();
    expect(client.server.seen.map(({ path }) => path.split("/").at(-1))).toEqual(["2.root.json", "timestamp.json"]);
    expect(sameState(before, client.state)).toBe(true);
  });

  test("may change every key, and what was verified under the old ones no longer counts", async () => {
    const client = await begun("rotations");
    for (const moment of ["online", "targets", "root"]) {
      client.server.show(moment);
      await client.refresh();
    }
    expect(client.state.roots).toHaveLength(4);
    await client.refresh();
    const late = new Client("rotations");
    late.server.show("root");
    await late.refresh();
    expect(late.state.roots).toHaveLength(4);
  });

  test("with digests and lengths in its snapshot", async () => {
    const client = await begun("hashes");
    client.server.show("right");
    await client.refresh();
  });
});

describe("an attack changes nothing", () => {
  test("another root than the line names", async () => {
    const { rootDigest, roots } = new Client("updates").state;
    await checkRoot(roots[0]!, rootDigest);
    await expect(checkRoot(new Client("rotations").state.roots[0]!, rootDigest)).rejects.toMatchObject({
      reason: "wrong_root",
    });
  });

  test("a stored root that was changed", async () => {
    const client = new Client("updates");
    client.state = { ...client.state, roots: new Client("rotations").state.roots };
    await client.refused("trust_damaged");
  });

  test("an expired timestamp", async () => {
    const client = new Client("updates");
    client.clockMs += 8 * DAY_MS;
    await client.refused("metadata_expired", /timestamp expired on .*this device's clock says/);
  });

  test("the same timestamp, replayed after it expired", async () => {
    const client = await begun("updates");
    client.clockMs += 8 * DAY_MS;
    await client.refused("metadata_expired");
    client.clockMs -= 8 * DAY_MS;
    await client.refresh();
  });

  test("a clock a year off, and it says which way", async () => {
    const client = await begun("updates");
    client.server.dateMs = Date.now();
    client.clockMs += 365 * DAY_MS;
    const error = await client.refresh().catch((reason: unknown) => reason);
    expect(String(error)).toMatch(/this device's clock is 365 days ahead of the server's: set it right/);
  });

  test("an older timestamp", async () => {
    const client = await begun("updates");
    client.server.show("second");
    await client.refresh();
    client.server.show("first");
    await client.refused("metadata_rollback", /timestamp/);
  });

  test("older files behind a newer timestamp", async () => {
    const client = await begun("rollbacks");
    client.server.show("second");
    await client.refresh();
    client.server.show("snapshot of an older number");
    await client.refused("metadata_rollback", /snapshot/);
    client.server.show("targets of an older number");
    await client.refused("metadata_rollback", /targets/);
    client.server.show("mix and match");
    await client.refused("metadata_rollback", /snapshot .* instead of/);
  });

  test("targets older than the enrolment line allows", async () => {
    const client = new Client("updates");
    const transport = new Transport(client.server.url, client.server.fetch, () => client.clockMs);
    const keep = async (): Promise<void> => undefined;
    await expect(refresh(client.state, transport, client.clockMs, 99, keep)).rejects.toMatchObject({
      reason: "metadata_rollback",
    });
  });

  test.each(["timestamp", "targets", "root"])("%s by a stranger", async (role) => {
    const client = await begun("foreign_keys");
    client.server.show(`${role} by a stranger`);
    await client.refused("metadata_unsigned", new RegExp(role));
  });

  test("fewer signatures than the threshold, and one key under two ids", async () => {
    const client = await begun("threshold");
    client.server.show("one signature");
    await client.refused("metadata_unsigned", /1 of 2/);
    client.server.show("two signatures");
    await client.refresh();
    client.server.show("one key under two ids");
    await client.refused("metadata_unsigned", /1 of 2/);
  });

  test("another digest or length than the snapshot says", async () => {
    const client = await begun("hashes");
    client.server.show("wrong hash");
    await client.refused("metadata_mismatch", /targets/);
    client.server.show("wrong length");
    await client.refused("metadata_too_large");
  });

  test.each(["root.json", "timestamp.json", "snapshot.json", "targets.json"])("an endless %s", async (name) => {
    const client = new Client("updates");
    client.server.fault = (path) => (path.endsWith(name) ? endless() : null);
    await client.refused("metadata_too_large", new RegExp(name));
  });

  test.each(["{}", "[]", "", "{", '{"signed": {"_type": "timestamp"}, "signatures": []}'])(
    "%s as a timestamp",
    async (text) => {
      const client = await begun("updates");
      client.server.fault = (path) => (path.endsWith("timestamp.json") ? new Response(text) : null);
      await client.refused("metadata_invalid", /timestamp/);
    },
  );

  test("one bit of anything signed", async () => {
    const client = await begun("updates");
    const timestamp = new TextDecoder().decode(client.state.known!.timestamp).replace('"share":10000', '"share":10');
    client.server.fault = (path) => (path.endsWith("timestamp.json") ? new Response(timestamp) : null);
    await client.refused("metadata_unsigned");
  });
});

test("a targets download that fails once does not leave the client on the old one", async () => {
  const client = await begun("updates");
  client.server.show("second");
  let failures = 1;
  client.server.fault = (path) =>
    path.endsWith("targets.json") && failures-- > 0 ? new Response(null, { status: 503 }) : null;
  const before = client.state;
  await expect(client.refresh()).rejects.toMatchObject({ status: 503 });
  expect(client.state).toBe(before);
  expect((await client.refresh()).view.targets.size).toBe(2);
});

test("an update that breaks off at any request leaves the state before, and the next one succeeds", async () => {
  for (let broken = 0; broken < 4; broken += 1) {
    const client = await begun("updates");
    client.server.show("second");
    client.server.seen.length = 0;
    client.server.fault = () => {
      if (client.server.seen.length === broken + 1) throw new TypeError("fetch failed");
      return null;
    };
    const before = client.state;
    await client.refresh().catch(() => undefined);
    if (client.state === before) await client.refresh();
    expect(client.state.known).not.toEqual(before.known);
  }
});

/** A server without news for a client's root, and with a timestamp of the key that newer roots have revoked. */
async function refusesRevokedKey(client: Client): Promise<void> {
  client.server.fault = () => null;
  client.server.show("first");
  await client.refused("metadata_unsigned", /timestamp/);
}

test.each([503, 404])("a root that was verified counts when the timestamp after it fails with %d", async (status) => {
  const client = await begun("rotations");
  client.server.show("online");
  client.server.fault = (path) => (path.endsWith("timestamp.json") ? new Response(null, { status }) : null);
  await expect(client.refresh()).rejects.toMatchObject({ status });
  expect(client.state.roots).toHaveLength(2);
  await refusesRevokedKey(client);
  client.server.show("online");
  await client.refresh();
});

test("a root that was verified counts when what follows is refused", async () => {
  const client = await begun("rotations");
  client.server.show("online");
  client.server.fault = (path) => (path.endsWith("timestamp.json") ? new Response("{}") : null);
  await client.refused("metadata_invalid");
  await refusesRevokedKey(client);
});

test("an update with new roots that breaks off at any request keeps the roots that it has verified", async () => {
  const rootsAfter = [1, 2, 3, 4, 4, 4, 4]; // three new roots, the question for one more, and three other roles
  for (const [broken, roots] of rootsAfter.entries()) {
    const client = await begun("rotations");
    const before = client.state;
    client.server.show("root");
    client.server.seen.length = 0;
    client.server.fault = () => {
      if (client.server.seen.length === broken + 1) throw new TypeError("fetch failed");
      return null;
    };
    await expect(client.refresh()).rejects.toMatchObject({ code: "transport" });
    expect(client.state.roots).toHaveLength(roots);
    expect(client.state.known).toBe(before.known);
    if (roots > 1) await refusesRevokedKey(client);
    client.server.fault = () => null;
    client.server.show("root");
    client.server.seen.length = 0;
    await client.refresh();
    expect(client.server.seen[0]?.path).toMatch(new RegExp(`/${roots + 1}\\.root\\.json$`));
    expect(client.state.roots).toHaveLength(4);
    expect(client.state.known).not.toEqual(before.known);
  }
});

test("one key counts once, however its text is spelt", async () => {
  const [one, other] = [0, 1].map(() => generateKeyPairSync("ec", { namedCurve: "P-256" }));
  const pem = one!.publicKey.export({ type: "spki", format: "pem" }) as string;
  const signed = { _type: "targets", spec_version: "1.0.31", version: 1, expires: "2030-01-01T00:00:00Z" };
  const message = canonicalBytes(parse(utf8(JSON.stringify(signed)), "x"));
  const signedBy = async (second: string, key: KeyObject): Promise<void> => {
    const signatures = [
      { keyid: "a", sig: sign("sha256", message, one!.privateKey).toString("hex") },
      { keyid: "b", sig: sign("sha256", message, key).toString("hex") },
    ];
    const metadata = readMetadata(utf8(JSON.stringify({ signed, signatures })), "targets");
    const keys = new Map([
      ["a", pem],
      ["b", second],
    ]);
    await checkSigned(metadata, { keys, threshold: 2 });
  };
  for (const twin of [pem, `${pem}\n`, pem.replaceAll("\n", "\r\n"), pem.replace("-----\n", "-----\n \n")]) {
    await expect(signedBy(twin, one!.privateKey)).rejects.toThrow("1 of 2");
  }
  await signedBy(other!.publicKey.export({ type: "spki", format: "pem" }) as string, other!.privateKey);
});

test("canonical JSON is what the signatures cover", () => {
  const value = parse(
    utf8('{"b": [1, true, null, "\\u00e9\\"\\\\\\n"], "a": {"\\ud83d\\ude00": 0, "\\uffee": -5}}'),
    "x",
  );
  expect(new TextDecoder().decode(canonicalBytes(value))).toBe(
    '{"a":{"\uffee":-5,"\u{1f600}":0},"b":[1,true,null,"é\\"\\\\\n"]}',
  );
  expect(() => canonicalBytes(parse(utf8("[1.5]"), "x"))).toThrow("not whole");
  expect(() => canonicalBytes(parse(utf8("[1.0]"), "x"))).toThrow("not whole");
});
