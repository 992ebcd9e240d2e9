/** Bytes, digests and their spellings: what WebCrypto and the contract need in one place. */
import { ContractError } from "../errors.ts";

/** Bytes that own their memory, as WebCrypto and IndexedDB take them. */
export type Bytes = Uint8Array<ArrayBuffer>;

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const HEX = /^(?:[0-9a-fA-F]{2})*$/;

/** Return the UTF-8 of a text. */
export function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

/** Return the SHA-256 of bytes. */
export async function sha256(data: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** Return the SHA-256 of bytes in 64 lower-case hex digits. */
export async function sha256Hex(data: Bytes): Promise<string> {
  return hex(await sha256(data));
}

/** Return bytes as lower-case hex digits. */
export function hex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Return the bytes that hex digits spell.
 *
 * @throws ContractError - Other characters, or an odd number of digits.
 */
export function fromHex(text: string): Bytes {
  if (!HEX.test(text)) throw new ContractError("A signature or digest is not hex.");
  return Uint8Array.from({ length: text.length / 2 }, (_, index) => parseInt(text.slice(2 * index, 2 * index + 2), 16));
}

/**
 * Return the bytes that base64 spells, strictly: no spaces, whole padding.
 *
 * @throws ContractError - It is not base64.
 */
export function fromBase64(text: string): Bytes {
  if (!BASE64.test(text)) throw new ContractError("A text is not base64.");
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Return some bytes one after the other. */
export function concat(parts: readonly Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Say whether two byte strings are equal. */
export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/** Return as many random bytes as hex digits: ids of 128 bits have 32. */
export function randomHex(bytes: number): string {
  return hex(crypto.getRandomValues(new Uint8Array(bytes)));
}

/** Read float32 little-endian numbers. */
export function float32s(data: Bytes): Float32Array<ArrayBuffer> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Float32Array.from({ length: data.byteLength >> 2 }, (_, index) => view.getFloat32(4 * index, true));
}
