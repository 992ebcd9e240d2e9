/** The server's recordings: telemetry of a device that is there to be replayed. */
import { InputError } from "../device/errors.ts";
import { MAX_RECORDING_BYTES } from "./sources/recording.ts";

/**
 * Fetch the recording of a model; without a network the service worker has the copy of the last time.
 *
 * @throws InputError - There is none, it cannot be reached, or it is too large.
 */
export async function fetchRecording(model: string): Promise<string> {
  const address = `/device/recordings/${encodeURIComponent(model)}.csv`;
  let answer: Response;
  try {
    answer = await fetch(address, { credentials: "omit" });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new InputError(
      "The recording could not be fetched: the server is not there.",
      "It is kept for next time once it came.",
    );
  }
  if (!answer.ok) {
    throw new InputError(
      `The server has no recording of ${model} to replay.`,
      `An operator can put one into its data folder as recordings/${model}.csv.`,
    );
  }
  const content = await answer.blob();
  if (content.size > MAX_RECORDING_BYTES)
    throw new InputError("The recording is too large for a page.", "Use a shorter one.");
  return content.text();
}
