/**
 * The enrolment line: the only thing that bootstraps a device's trust.
 *
 * `stella-enroll:1:<url>:<token>:<sha256 of root>:<targets version>`
 */
import { ContractError } from "../errors.ts";

const FORMAT = 1;
const LINE = /^stella-enroll:(\d+):(.+):([A-Za-z0-9_-]{16,128}):([0-9a-f]{64}):(\d{1,15})$/;

/** What an operator hands to a device. */
export interface EnrolmentLine {
  /** The server, `https://host[:port][/path]` without a trailing slash. */
  readonly url: string;
  /** Enrolment token, secret. */
  readonly token: string;
  /** SHA-256 of the root metadata to pin, hex. */
  readonly rootDigest: string;
  /** Targets older than this are refused. */
  readonly targetsVersion: number;
}

/**
 * Read a line; the URL may hold colons, the parts after it may not.
 *
 * @throws ContractError - Another form, another format number, or a URL without http(s) and host.
 */
export function parseEnrolmentLine(text: string): EnrolmentLine {
  const match = LINE.exec(text.trim());
  if (match === null) {
    throw new ContractError(
      "This is not an enrolment line.",
      "Paste the whole line that the operator gave you; it begins with stella-enroll.",
    );
  }
  const [, format, url, token, rootDigest, version] = match as unknown as readonly [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  if (Number(format) !== FORMAT) {
    throw new ContractError(
      `The enrolment line has format ${format}; this device reads format ${FORMAT}.`,
      "Load the newest version of this page.",
    );
  }
  checkUrl(url);
  return { url: url.replace(/\/+$/, ""), token, rootDigest, targetsVersion: Number(version) };
}

/**
 * Return a server URL that has http or https, a host, and neither user, query nor fragment.
 *
 * @throws ContractError - It has not.
 */
export function checkUrl(url: string): URL {
  const parsed = /\s/.test(url) ? null : URL.parse(url);
  const usable =
    parsed !== null &&
    (parsed.protocol === "http:" || parsed.protocol === "https:") &&
    parsed.username === "" &&
    parsed.password === "" &&
    !/[?#@]/.test(url);
  if (!usable) throw new ContractError(`'${url}' is not the address of a server.`, "Give it as https://host[:port].");
  return parsed;
}
