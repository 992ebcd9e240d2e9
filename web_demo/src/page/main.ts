/** The page: opens the device of this browser, joins when a link says so, and shows what happens. */
import { Device } from "../device/device.ts";
import { StellaError } from "../device/errors.ts";
import { browserPlatform } from "../device/platform.ts";
import { startScoringWorker } from "../device/scoring/worker_client.ts";
import { DeviceView } from "./device_view.ts";
import { showSign } from "./connection.ts";
import { byId } from "./dom.ts";
import { keepPage, offerInstalling } from "./installation.ts";
import { lineOf, takeLineFromAddress } from "./join.ts";
import { forget, tell } from "./messages.ts";

/** Join with a line; a refusal is told, and who was a device stays one. */
async function join(device: Device, view: DeviceView, line: string): Promise<void> {
  const button = byId("join-form").querySelector("button")!;
  button.disabled = true;
  try {
    await device.enrol(line, { name: nameOfBrowser() });
    forget("join");
    await view.begin();
  } catch (error) {
    if (!(error instanceof StellaError)) throw error;
    tell("join", "bad", `This browser could not join. ${error.toString()}`);
    await begin(device, view);
  } finally {
    button.disabled = false;
  }
}

/** Go on as what this browser is: a device, or none yet. */
async function begin(device: Device, view: DeviceView): Promise<void> {
  const { identity } = await device.status();
  if (identity === null) askToJoin();
  else await view.begin();
}

/** Follow a link; a browser that is a device already asks first, since a link may give it another model and channel. */
async function follow(device: Device, view: DeviceView, line: string): Promise<void> {
  const { identity } = await device.status();
  if (identity === null) return join(device, view, line);
  const known = `${identity.model} on the channel ${identity.channel} of ${identity.serverUrl}`;
  tell("join", "warn", `This browser is a device already: ${known}. The link may give it another model or channel.`, {
    name: "Join again",
    run: () => void join(device, view, line),
  });
  return view.begin();
}

function askToJoin(): void {
  byId("join").hidden = false;
  showSign("starting", "Not a device yet", "Join with a link from an operator, and this browser becomes one.");
}

function nameOfBrowser(): string {
  const known = ["Edg", "OPR", "Firefox", "Chrome", "Safari"].find((name) => navigator.userAgent.includes(`${name}/`));
  const names: Readonly<Record<string, string>> = { Edg: "Edge", OPR: "Opera" };
  const browser = known === undefined ? "browser" : (names[known] ?? known);
  return /Mobi/.test(navigator.userAgent) ? `${browser} on a phone` : browser;
}

async function start(): Promise<void> {
  const line = takeLineFromAddress();
  offerInstalling();
  void keepPage();
  const device = await Device.open(browserPlatform(startScoringWorker()));
  const view = new DeviceView(device);
  byId("join-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void follow(device, view, lineOf(byId<HTMLInputElement>("join-link").value));
  });
  // A link that is opened where the page is open already changes the address alone.
  addEventListener("hashchange", () => {
    const later = takeLineFromAddress();
    if (later !== null) void follow(device, view, later);
  });
  if (line === null) await begin(device, view);
  else await follow(device, view, line);
}

start().catch((error: unknown) => {
  showSign(
    "refused",
    "Cannot run here",
    error instanceof StellaError ? error.toString() : `The page met a fault of its own: ${String(error)}`,
  );
  if (!(error instanceof StellaError)) throw error;
});
