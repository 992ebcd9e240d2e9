import { crc32, deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { unpack, type Limits } from "../../src/device/contract/archive.ts";
import { concat, utf8, type Bytes } from "../../src/device/contract/bytes.ts";
import { rawSignature } from "../../src/device/contract/ecdsa.ts";
import { golden } from "./support/fixtures.ts";

interface Entry {
  readonly name: string;
  readonly content: Bytes;
  readonly method?: number;
  readonly flags?: number;
  readonly size?: number;
  readonly crc?: number;
  readonly localName?: string;
  readonly packed?: Bytes;
}

/** A zip of some entries; what is given beside name and content is a lie. */
function zip(entries: readonly Entry[], { comment = "", before = "" } = {}): Bytes {
  const parts: Bytes[] = [utf8(before)];
  const central: Bytes[] = [];
  let offset = before.length;
  for (const entry of entries) {
    const method = entry.method ?? 8;
    const packed = entry.packed ?? (method === 8 ? new Uint8Array(deflateRawSync(entry.content)) : entry.content);
    const facts = [entry.crc ?? crc32(entry.content), packed.length, entry.size ?? entry.content.length];
    const localName = utf8(entry.localName ?? entry.name);
    const name = utf8(entry.name);
    parts.push(
      shorts(0x4b50, 0x0403, 20, entry.flags ?? 0, method, 0, 33),
      longs(...facts),
      shorts(localName.length, 0),
      localName,
      packed,
    );
    central.push(
      shorts(0x4b50, 0x0201, 20, 20, entry.flags ?? 0, method, 0, 33),
      longs(...facts),
      shorts(name.length, 0, 0, 0, 0),
      longs(0, offset),
      name,
    );
    offset += 30 + localName.length + packed.length;
  }
  const size = central.reduce((sum, part) => sum + part.length, 0);
  const end = concat([
    shorts(0x4b50, 0x0605, 0, 0, entries.length, entries.length),
    longs(size, offset),
    shorts(comment.length),
    utf8(comment),
  ]);
  return concat([...parts, ...central, end]);
}

const shorts = (...values: number[]): Bytes => new Uint8Array(Uint16Array.from(values).buffer);
const longs = (...values: number[]): Bytes => new Uint8Array(Uint32Array.from(values).buffer);

const text = utf8("some text ".repeat(100));
const limits = (changes: Partial<Limits>): Limits => ({ bundleBytes: 1e6, unpackedBytes: 1e6, files: 8, ...changes });

describe("archives", () => {
  test("stored and deflated entries come out as they went in", async () => {
    const files = await unpack(
      zip([
        { name: "a.txt", content: text },
        { name: "b", content: text, method: 0 },
        { name: "c", content: utf8("") },
      ]),
    );
    expect([...files]).toEqual([
      ["a.txt", text],
      ["b", text],
      ["c", utf8("")],
    ]);
    expect(await unpack(zip([]).slice(0)).catch((error: unknown) => String(error))).toMatch("not a whole zip");
  });

  const entry = { name: "a", content: text };
  const lies: readonly (readonly [string, Bytes])[] = [
    ["nothing", utf8("")],
    ["no zip", utf8("x".repeat(100))],
    ["bytes before", zip([entry], { before: "#!/bin/sh\n" })],
    ["a comment", zip([entry], { comment: "hello" })],
    ["a cut end", zip([entry]).slice(0, -1)],
    ["a byte behind", concat([zip([entry]), utf8("\0")])],
    ["another archive behind", concat([zip([entry]), zip([{ name: "b", content: text }])])],
    ["a name twice", zip([entry, entry])],
    ["a path", zip([{ ...entry, name: "../a" }])],
    ["a hidden name", zip([{ ...entry, name: ".a" }])],
    ["an empty name", zip([{ ...entry, name: "" }])],
    ["a name with NUL", zip([{ ...entry, name: "a\0b" }])],
    ["another name inside", zip([{ ...entry, localName: "b" }])],
    ["encryption", zip([{ ...entry, flags: 1 }])],
    ["another compression", zip([{ ...entry, method: 12 }])],
    ["a size that is too small", zip([{ ...entry, size: 10 }])],
    ["a size that is too large", zip([{ ...entry, size: 2000 }])],
    ["a wrong checksum", zip([{ ...entry, crc: 1 }])],
    ["a broken stream", zip([{ ...entry, packed: utf8("\x07broken") }])],
    ["a stream that is cut", zip([{ ...entry, packed: new Uint8Array(deflateRawSync(text)).slice(0, -3) }])],
  ];
  test.each(lies)("refused: %s", async (_, data) => {
    await expect(unpack(data, limits({}))).rejects.toMatchObject({ code: "contract" });
  });

  test("refused: entries that share bytes", async () => {
    const data = zip([
      { name: "a", content: text, method: 0 },
      { name: "b", content: text, method: 0 },
    ]);
    const view = new DataView(data.buffer);
    const second = data.length - 22 - 47;
    view.setUint32(second + 42, 0, true);
    await expect(unpack(data)).rejects.toMatchObject({ code: "contract" });
  });

  test("refused: more than the limits allow, before anything is inflated", async () => {
    const bomb = zip([{ name: "a", content: new Uint8Array(1e6) }]);
    await expect(unpack(bomb, limits({ unpackedBytes: 999_999 }))).rejects.toThrow("claims more than");
    await expect(unpack(bomb, limits({ bundleBytes: 100 }))).rejects.toThrow("at most 100 are read");
    await expect(unpack(zip([entry, { ...entry, name: "b" }]), limits({ files: 1 }))).rejects.toThrow(
      "at most 1 are read",
    );
  });

  test("refused: any one byte of the golden bundle's directory or data changed", async () => {
    const whole = golden("fridge.bundle");
    const files = await unpack(whole);
    for (let at = 0; at < whole.length; at += 7) {
      const changed = whole.slice();
      changed[at]! ^= 0x41;
      const found = await unpack(changed).catch(() => null);
      // Times, versions and attributes say nothing of the content; everything else must be noticed.
      if (found !== null) expect([...found]).toEqual([...files]);
    }
  });
});

describe("signatures in DER", () => {
  const number = (...bytes: number[]): number[] => [2, bytes.length, ...bytes];
  const der = (...parts: number[][]): Bytes => Uint8Array.from([0x30, parts.flat().length, ...parts.flat()]);
  const long = Array.from({ length: 32 }, () => 0x7f);

  test("become r and s of 32 bytes each", () => {
    const raw = rawSignature(der(number(1), number(0, 0x80)))!;
    expect([raw.length, raw[31], raw[63]]).toEqual([64, 1, 0x80]);
    expect(rawSignature(der(number(...long), number(0, 0xff, ...long.slice(1))))).toHaveLength(64);
  });

  test.each([
    ["nothing", Uint8Array.of()],
    ["a cut end", der(number(1), number(1)).slice(0, -1)],
    ["bytes behind", Uint8Array.from([...der(number(1), number(1)), 0])],
    ["a negative number", der(number(0x80), number(1))],
    ["a zero too many", der(number(0, 1), number(1))],
    ["a number too long", der(number(1, ...long), number(1))],
    ["an empty number", der([2, 0], number(1))],
    ["one number", der(number(1))],
    ["three numbers", der(number(1), number(1), number(1))],
    ["another tag", der([3, 1, 1], number(1))],
    ["a long form of the length", Uint8Array.from([0x30, 0x81, 6, ...number(1), ...number(1)])],
  ])("refused: %s", (_, data) => {
    expect(rawSignature(data)).toBeNull();
  });
});
