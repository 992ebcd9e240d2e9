/** The controls of the readings: which source, how fast, pause, and the fault. */
import type { Manifest } from "../device/contract/manifest.ts";
import { StellaError } from "../device/errors.ts";
import { byId, element, setText } from "./dom.ts";
import type { Feed } from "./feed.ts";
import { forget, tell } from "./messages.ts";
import { fetchRecording } from "./recordings.ts";
import { BROWSER_SIGNALS, BrowserSource } from "./sources/browser.ts";
import { parseRecording, RecordingSource } from "./sources/recording.ts";
import type { Source } from "./sources/source.ts";

type Choice = "browser" | "recording";

/** Offers the sources that fit the model. */
export class Sources {
  private readonly feed: Feed;
  private readonly onChange: () => void;
  private source: Source | null = null;
  private offered: Manifest | null = null;
  private used: Manifest | null = null;
  private running = true;

  /** @param onChange - Called when another source begins. */
  constructor(feed: Feed, onChange: () => void) {
    this.feed = feed;
    this.onChange = onChange;
    byId("source").addEventListener("change", () => void this.choose());
    byId("speed").addEventListener("change", () => this.setSpeed());
    byId("run").addEventListener("click", () => this.toggle());
    byId("fault").addEventListener("click", () => {
      this.source?.breakDown();
      this.describe();
    });
  }

  /** Offer what a model can judge, and begin with the first. */
  async offer(manifest: Manifest): Promise<void> {
    this.offered = manifest;
    if (this.used !== null && namesOf(this.used).join() === namesOf(manifest).join()) return;
    const known = new Set<string>(BROWSER_SIGNALS);
    const own = manifest.signals.every(({ name }) => known.has(name));
    const choices: readonly (readonly [Choice, string])[] = own
      ? [["browser", "this browser"]]
      : [["recording", `a recording of ${manifest.model}`]];
    const options = choices.map(([value, text]) => {
      const option = element("option", "", text);
      option.setAttribute("value", value);
      return option;
    });
    byId("source").replaceChildren(...options);
    await this.choose();
  }

  /** Say where the source stands. */
  describe(): void {
    if (this.source !== null)
      setText("source-words", this.running ? this.source.describe() : "Paused: nothing is measured.");
  }

  private async choose(): Promise<void> {
    const choice = byId<HTMLSelectElement>("source").value as Choice;
    const manifest = this.offered!;
    try {
      const source = choice === "browser" ? new BrowserSource() : await recorded(manifest);
      // Another model may have come while its recording was on the way.
      if (manifest !== this.offered) return source.close();
      this.use(source);
      this.used = manifest;
      forget("source");
    } catch (error) {
      if (!(error instanceof StellaError)) throw error;
      tell("source", "warn", error.toString(), { name: "Try again", run: () => void this.choose() });
    }
  }

  private use(source: Source): void {
    this.source = source;
    this.feed.use(source);
    byId<HTMLSelectElement>("speed").disabled = !source.hasPace;
    this.setSpeed();
    this.onChange();
    this.describe();
  }

  private setSpeed(): void {
    this.feed.setSpeed(Number(byId<HTMLSelectElement>("speed").value));
  }

  private toggle(): void {
    this.running = !this.running;
    this.feed.setRunning(this.running);
    const button = byId("run");
    button.textContent = this.running ? "Pause" : "Go on";
    this.describe();
  }
}

function namesOf({ signals }: Manifest): readonly string[] {
  return signals.map(({ name }) => name);
}

async function recorded(manifest: Manifest): Promise<Source> {
  const recording = parseRecording(await fetchRecording(manifest.model), namesOf(manifest));
  return new RecordingSource(manifest.model, recording, Date.now());
}
