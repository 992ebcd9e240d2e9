/** The page as an app of its own: its service worker, the offer to install it, and the move to a newer page. */
import { byId } from "./dom.ts";
import { tell } from "./messages.ts";

// Browsers look when a page is opened; a device's page stays open for days.
const LOOK_MS = 3_600_000;

// Chromium's; other browsers install from their menu.
interface InstallPrompt extends Event {
  prompt(): Promise<unknown>;
}

/** Register the service worker, and say when a newer page is ready. */
export async function keepPage(): Promise<void> {
  const { serviceWorker } = navigator as { readonly serviceWorker?: ServiceWorkerContainer };
  if (serviceWorker === undefined) return;
  let controlled = serviceWorker.controller !== null;
  serviceWorker.addEventListener("controllerchange", () => {
    // The first worker changes nothing for a page that came from the server just now.
    if (controlled) location.reload();
    controlled = true;
  });
  try {
    const registration = await serviceWorker.register("/device/service-worker.js", {
      scope: "/device/",
      updateViaCache: "none",
    });
    if (registration.waiting !== null && controlled) offer(registration.waiting);
    registration.addEventListener("updatefound", () => watch(registration.installing));
    setInterval(() => void lookForNewer(registration), LOOK_MS);
  } catch (error) {
    // Blocked storage refuses service workers as well; the page works without.
    if (!(error instanceof Error)) throw error;
    tell("page", "warn", `This page cannot be kept for times without a network: ${error.message}`);
  }
}

/** Show the install button when the browser would install. */
export function offerInstalling(): void {
  const button = byId<HTMLButtonElement>("install");
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    button.hidden = false;
    button.onclick = () => {
      button.hidden = true;
      void (event as InstallPrompt).prompt();
    };
  });
}

/** Ask the browser not to clear the device's storage by itself, and say whether it will not. */
export async function askToKeepStorage(): Promise<boolean> {
  const storage = navigator.storage as StorageManager | undefined;
  try {
    return (await storage?.persist()) ?? false;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return false;
  }
}

async function lookForNewer(registration: ServiceWorkerRegistration): Promise<void> {
  try {
    await registration.update();
  } catch (error) {
    // Without the server, or with a worker that is not whole, the page that is here stays.
    if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
  }
}

function watch(worker: ServiceWorker | null): void {
  worker?.addEventListener("statechange", () => {
    if (worker.state === "installed" && navigator.serviceWorker.controller !== null) offer(worker);
  });
}

function offer(worker: ServiceWorker): void {
  tell("page", "warn", "A newer version of this page is ready.", {
    name: "Load it",
    run: () => worker.postMessage("activate"),
  });
}
