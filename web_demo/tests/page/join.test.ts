import { expect, test } from "vitest";
import { lineOf } from "../../src/page/join.ts";

const LINE = `stella-enroll:1:https://fleet.example:8443:st_enr_${"a".repeat(43)}:${"0".repeat(64)}:7`;

test("a link gives the line in its fragment, whatever was encoded on the way", () => {
  expect(lineOf(`https://fleet.example:8443/device/#enrol=${LINE}`)).toBe(LINE);
  expect(lineOf(` https://fleet.example/device/#enrol=${encodeURIComponent(LINE)}\n`)).toBe(LINE);
});

test("a line is its own", () => {
  expect(lineOf(`  ${LINE}\n`)).toBe(LINE);
});

test("text that is no link stays what it is, for the reader of lines to refuse", () => {
  expect(lineOf("hello")).toBe("hello");
  expect(lineOf("https://x/#enrol=%E0%A4%A")).toBe("%E0%A4%A");
});
