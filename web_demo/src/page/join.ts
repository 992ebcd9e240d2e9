/** Joining: the link that an operator made, from the address or pasted. */

/**
 * Return the enrolment line that a link carries, or the text itself when it is no link.
 *
 * @param text - `https://.../device/#enrol=stella-enroll:1:...`, or the line.
 */
export function lineOf(text: string): string {
  const trimmed = text.trim();
  const at = trimmed.indexOf("#enrol=");
  return at < 0 ? trimmed : decoded(trimmed.slice(at + "#enrol=".length));
}

/** Return the line in this page's address, and take it out of address and history; null when there is none. */
export function takeLineFromAddress(): string | null {
  if (!location.hash.startsWith("#enrol=")) return null;
  const line = lineOf(location.hash);
  history.replaceState(null, "", location.pathname);
  return line;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    return text;
  }
}
