/**
 * The archive of a bundle: a plain zip with flat names, read within limits.
 *
 * Reading is for hostile input: names are checked against one pattern, sizes are bounded before and while anything is
 * inflated, and every entry has the length and checksum that the archive says.
 *
 * Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).
 */
import { ContractError } from "../errors.ts";
import type { Bytes } from "./bytes.ts";

/** What a reader is ready to hold. */
export interface Limits {
  /** Size of the archive. */
  readonly bundleBytes: number;
  /** Size of all files together. */
  readonly unpackedBytes: number;
  /** Number of files. */
  readonly files: number;
}

/** The contract's limits. */
export const DEFAULT_LIMITS: Limits = { bundleBytes: 64 * 2 ** 20, unpackedBytes: 256 * 2 ** 20, files: 64 };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LOCAL = { signature: 0x04034b50, bytes: 30 };
const CENTRAL = { signature: 0x02014b50, bytes: 46 };
const END = { signature: 0x06054b50, bytes: 22 };
const ENCRYPTED = 0x1;
const STORED = 0;
const DEFLATED = 8;
// Reversed polynomial of CRC-32 (ISO 3309), as zip uses it.
const CRC_POLYNOMIAL = 0xedb88320;

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  readonly offset: number;
}

/**
 * Read an archive within limits.
 *
 * @param data - The bytes of the zip.
 * @param limits - What the reader is ready to hold.
 * @returns Content by name.
 * @throws ContractError - Not a zip, too large, too many files, a name that breaks the rule or stands twice,
 *   encryption, another compression, a declared size that is not true, a damaged entry, or bytes around the archive.
 */
export async function unpack(data: Bytes, limits: Limits = DEFAULT_LIMITS): Promise<ReadonlyMap<string, Bytes>> {
  if (data.length > limits.bundleBytes) {
    throw new ContractError(`The bundle has ${data.length} bytes; at most ${limits.bundleBytes} are read.`);
  }
  const entries = readDirectory(data, limits);
  const files = new Map<string, Bytes>();
  for (const entry of entries) files.set(entry.name, await content(data, entry));
  return files;
}

function readDirectory(data: Bytes, limits: Limits): readonly Entry[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = data.length - END.bytes;
  // A reader that seeks its own way could see another archive in bytes before, behind or in a comment.
  if (end < 0 || view.getUint32(0, true) !== LOCAL.signature || view.getUint32(end, true) !== END.signature)
    throw broken();
  const count = view.getUint16(end + 10, true);
  const size = view.getUint32(end + 12, true);
  const start = view.getUint32(end + 16, true);
  // One disk, no comment, and the directory ends where its end record begins. Zip64 has 0xffff here and is refused.
  const plain =
    view.getUint32(end + 4, true) === 0 &&
    view.getUint16(end + 8, true) === count &&
    view.getUint16(end + 20, true) === 0;
  if (!plain || start + size !== end) throw broken();
  if (count > limits.files) {
    throw new ContractError(`The bundle holds ${count} files; at most ${limits.files} are read.`);
  }
  const entries: Entry[] = [];
  let at = start;
  for (let number = 0; number < count; number += 1) {
    const [entry, next] = readEntry(data, view, at, end);
    entries.push(entry);
    at = next;
  }
  if (at !== end) throw broken();
  checkEntries(entries, start, limits);
  return entries;
}

function readEntry(data: Bytes, view: DataView, at: number, end: number): readonly [Entry, number] {
  if (at + CENTRAL.bytes > end || view.getUint32(at, true) !== CENTRAL.signature) throw broken();
  const nameBytes = view.getUint16(at + 28, true);
  const next = at + CENTRAL.bytes + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  if (next > end) throw broken();
  const name = latin1(data.subarray(at + CENTRAL.bytes, at + CENTRAL.bytes + nameBytes));
  if (!NAME.test(name)) throw new ContractError(`'${name.slice(0, 80)}' is no name for a file in a bundle.`);
  const method = view.getUint16(at + 10, true);
  if ((method !== STORED && method !== DEFLATED) || (view.getUint16(at + 8, true) & ENCRYPTED) !== 0) {
    throw new ContractError(`'${name}' in the bundle is encrypted or compressed in an unknown way.`);
  }
  const entry = {
    name,
    method,
    crc: view.getUint32(at + 16, true),
    packed: view.getUint32(at + 20, true),
    size: view.getUint32(at + 24, true),
    offset: view.getUint32(at + 42, true),
  };
  return [entry, next];
}

function checkEntries(entries: readonly Entry[], end: number, limits: Limits): void {
  if (entries.reduce((sum, entry) => sum + entry.size, 0) > limits.unpackedBytes) {
    throw new ContractError(`The bundle claims more than ${limits.unpackedBytes} bytes unpacked.`);
  }
  const seen = new Set<string>();
  for (const { name } of entries) {
    if (seen.has(name)) throw new ContractError(`The bundle holds '${name}' twice.`);
    seen.add(name);
  }
  // Entries that share bytes are how a small archive becomes a large one.
  const offsets = [...entries.map((entry) => entry.offset).sort((a, b) => a - b), end];
  for (const entry of entries) {
    const next = offsets.find((offset) => offset > entry.offset) ?? end;
    if (entry.offset + LOCAL.bytes + entry.packed > next) throw broken();
  }
  if (entries.length > 0 && offsets[0] !== 0) throw broken();
}

async function content(data: Bytes, entry: Entry): Promise<Bytes> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (view.getUint32(entry.offset, true) !== LOCAL.signature) throw broken();
  const nameBytes = view.getUint16(entry.offset + 26, true);
  const nameAt = entry.offset + LOCAL.bytes;
  const start = nameAt + nameBytes + view.getUint16(entry.offset + 28, true);
  if (start + entry.packed > data.length || latin1(data.subarray(nameAt, nameAt + nameBytes)) !== entry.name) {
    throw broken();
  }
  const packed = data.subarray(start, start + entry.packed);
  const result = entry.method === STORED ? packed.slice() : await inflate(packed, entry);
  if (result.length !== entry.size) {
    throw new ContractError(`'${entry.name}' in the bundle is not as long as the archive says.`);
  }
  if (crc32(result) !== entry.crc) throw broken();
  return result;
}

async function inflate(packed: Bytes, entry: Entry): Promise<Bytes> {
  const result = new Uint8Array(entry.size);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const reader = stream.getReader();
  let at = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return result.subarray(0, at);
      if (at + value.length > result.length) {
        await reader.cancel();
        throw new ContractError(`'${entry.name}' in the bundle is not as long as the archive says.`);
      }
      result.set(value, at);
      at += value.length;
    }
  } catch (error) {
    if (error instanceof ContractError) throw error;
    // The platform says TypeError in browsers, and an error of zlib's own under Node.
    throw broken();
  }
}

function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ CRC_POLYNOMIAL : crc >>> 1;
  return crc >>> 0;
});

function latin1(data: Uint8Array): string {
  return Array.from(data, (byte) => String.fromCharCode(byte)).join("");
}

function broken(): ContractError {
  return new ContractError("The bundle is not a whole zip archive.", "Download it again.");
}
