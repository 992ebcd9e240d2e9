/** The few things that the page does with its document. Text is only ever set as text. */

/**
 * Return an element of the page.
 *
 * @throws Error - The page has no such element: a bug.
 */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no element ${id}.`);
  return found as T;
}

/** Return a new element with a class (or none) and content. */
export function element(tag: string, className: string, ...content: readonly (Node | string)[]): HTMLElement {
  const made = document.createElement(tag);
  if (className !== "") made.className = className;
  made.append(...content);
  return made;
}

/** Set an element's text, unless it is there already: screen readers speak up on every change. */
export function setText(id: string, text: string): void {
  const target = byId(id);
  if (target.textContent !== text) target.textContent = text;
}

/** One line of a list of facts. */
export interface Fact {
  readonly name: string;
  readonly value: string;
  /** `code` for digests and ids, `bad` for what a person should look at. */
  readonly kind?: "code" | "bad";
}

/** Show facts as the pairs of a `dl`. */
export function showFacts(id: string, facts: readonly Fact[]): void {
  const rows = facts.flatMap(({ name, value, kind }) => [
    element("dt", "", name),
    element("dd", kind === "bad" ? "bad" : "", kind === "code" ? element("code", "", value) : value),
  ]);
  byId(id).replaceChildren(...rows);
}
