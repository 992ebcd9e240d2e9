/**
 * Loads the page's program, and says so when that fails: behind a proxy, a server that is being replaced may send the
 * page of one version and no longer have its files.
 *
 * It imports nothing else, so that whatever can fail fails where it is told.
 */

/** Put what happened where the sign stands. */
function show(error: unknown): void {
  const words: Readonly<Record<string, string>> = {
    "sign-word": "Cannot start",
    "sign-why": `The page did not load whole. Load it again in a minute. (${String(error)})`,
  };
  document.getElementById("sign")?.setAttribute("data-state", "refused");
  for (const [id, text] of Object.entries(words)) document.getElementById(id)?.replaceChildren(text);
}

import("./main.ts").catch(show);
export {};
