import { expect, test } from "vitest";
import { utf8 } from "../../src/device/contract/bytes.ts";
import * as checks from "../../src/device/contract/checks.ts";
import { JsonFloat, parse, parseObject } from "../../src/device/contract/json.ts";

const read = (text: string): unknown => parse(utf8(text), "The test");

test.each(["null", "true", "0", "-7", '"a\\u00e9\\n"', "[]", '{"a":[1,{"b":null}]}', "9007199254740991"])(
  "%s",
  (text) => {
    expect(read(` ${text}\n`)).toEqual(JSON.parse(text));
  },
);

test("whole numbers are told from others", () => {
  expect(read("[1, 1.0, 1e2, 0.5, 9007199254740993]")).toEqual([
    1,
    new JsonFloat(1),
    new JsonFloat(100),
    new JsonFloat(0.5),
    new JsonFloat(9007199254740992),
  ]);
  expect(Object.is(read("-0"), 0)).toBe(true);
});

test.each([
  ["a key twice", '{"a":1,"a":2}'],
  ["a key twice, spelt otherwise", '{"a":1,"\\u0061":2}'],
  ["NaN", "NaN"],
  ["Infinity", "[Infinity]"],
  ["a comma too many", "[1,]"],
  ["a comma in an object", '{"a":1,}'],
  ["no colon", '{"a" 1}'],
  ["two values", "1 2"],
  ["nothing", ""],
  ["an open text", '"a'],
  ["a tab in a text", '"\t"'],
  ["a bad escape", '"\\x"'],
  ["01", "01"],
  [".5", ".5"],
  ["1.", "1."],
  ["+1", "+1"],
  ["single quotes", "{'a':1}"],
  ["tru", "tru"],
  ["too deep", "[".repeat(1000) + "]".repeat(1000)],
  ["a byte order mark", "\ufeff1"],
])("refused: %s", (_, text) => {
  expect(() => read(text)).toThrow("The test is not valid JSON");
});

test("refused: bytes that are no UTF-8, and what is no object", () => {
  expect(() => parse(Uint8Array.of(0x22, 0xff, 0x22), "The test")).toThrow("not UTF-8");
  expect(() => parseObject(utf8("[]"), "The test")).toThrow("not a JSON object");
  expect(() => parseObject(utf8("1.5"), "The test")).toThrow("not a JSON object");
});

test("__proto__ is a key like others", () => {
  const value = parseObject(utf8('{"__proto__": {"polluted": 1}, "constructor": 2}'), "The test");
  expect(checks.integer(checks.get(value, "constructor"), "constructor")).toBe(2);
  expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
  expect(({} as { polluted?: number }).polluted).toBeUndefined();
  expect(() => checks.get(parseObject(utf8("{}"), "x"), "toString")).toThrow("missing");
});

test("characters are counted as Python counts them", () => {
  const emoji = "\u{1f600}".repeat(4);
  expect(checks.text(emoji, "name", 4)).toBe(emoji);
  expect(() => checks.text(emoji, "name", 3)).toThrow("at most 3");
});
