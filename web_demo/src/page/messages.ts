/** Sentences for the person in front of the page: one a subject, until it is dismissed or no longer true. */
import { byId, element } from "./dom.ts";

/** How much a message matters. */
export type Weight = "good" | "warn" | "bad";

/** What a person can do about it. */
export interface Action {
  readonly name: string;
  readonly run: () => void;
}

/**
 * Show a message; a later one about the same subject takes its place.
 *
 * @param subject - What it is about, such as `update`.
 */
export function tell(subject: string, weight: Weight, text: string, action: Action | null = null): void {
  const known = find(subject);
  if (known?.firstChild?.textContent === text) return;
  const dismiss = { name: "Dismiss", run: () => forget(subject) };
  const buttons = (action === null ? [dismiss] : [action, dismiss]).map(({ name, run }) => {
    const button = element("button", "", name);
    button.addEventListener("click", run);
    return button;
  });
  const made = element("p", `message ${weight}`, element("span", "", text), ...buttons);
  made.dataset["subject"] = subject;
  if (known === null) byId("messages").append(made);
  else known.replaceWith(made);
}

/** Take a subject's message away. */
export function forget(subject: string): void {
  find(subject)?.remove();
}

function find(subject: string): HTMLElement | null {
  return byId("messages").querySelector<HTMLElement>(`[data-subject="${CSS.escape(subject)}"]`);
}
