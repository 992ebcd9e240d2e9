/** When to try again: full jitter under a growing cap, never before the server's Retry-After. Pure functions. */

const BASE_SECONDS = 2;
const CAP_SECONDS = 900;
// A server may ask for more patience than our cap, but not for silence: a wrong Retry-After must not park a fleet.
const MAX_RETRY_AFTER_SECONDS = 6 * 3600;

/**
 * Return how long to wait after a failed attempt.
 *
 * Without Retry-After: a draw from 0 to min(cap, base * 2^(attempt-1)), "full jitter". With it: at least what the
 * server asked for, and up to a tenth more, so that devices that were turned away together do not return together.
 *
 * Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 *
 * @param attempt - 1 after the first failure.
 * @param retryAfterSeconds - What the server asked for, or null.
 * @param draw - A number in [0, 1), uniform.
 * @returns Seconds.
 */
export function retryDelay(attempt: number, retryAfterSeconds: number | null, draw: number): number {
  const cap = Math.min(CAP_SECONDS, BASE_SECONDS * 2 ** Math.min(Math.max(attempt, 1) - 1, 64));
  if (retryAfterSeconds === null) return draw * cap;
  const asked = Math.min(Math.max(retryAfterSeconds, 0), MAX_RETRY_AFTER_SECONDS);
  return asked + draw * Math.max(asked === 0 ? cap : 0, asked / 10);
}

/** Return a regular interval, 10 % shorter or longer, so that a fleet started together spreads out. */
export function jittered(intervalSeconds: number, draw: number): number {
  return intervalSeconds * (0.9 + 0.2 * draw);
}

/**
 * Read a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).
 *
 * @param text - The header's value.
 * @param nowMs - The device's clock.
 * @returns Seconds from now, at least 0; null when the header says neither.
 */
export function parseRetryAfter(text: string, nowMs: number): number | null {
  const trimmed = text.trim();
  if (/^[0-9]{1,11}$/.test(trimmed)) return Number(trimmed);
  const at = /[A-Za-z]/.test(trimmed) ? Date.parse(trimmed) : NaN;
  return Number.isFinite(at) ? Math.max(0, (at - nowMs) / 1000) : null;
}
