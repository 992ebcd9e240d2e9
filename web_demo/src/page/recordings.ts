/** The server's recordings: telemetry of a device that is there to be replayed. */
import { concat, type Bytes } from "../device/contract/bytes.ts";
import { InputError } from "../device/errors.ts";
import { MAX_RECORDING_BYTES } from "./sources/recording.ts";

const DEADLINE_MS = 60_000;

/**
 * Fetch the recording of a model; without a network the service worker has the copy of the last time.
 *
 * @param deadlineMs - Longest time until the last byte, in milliseconds.
 * @throws InputError - There is none, it cannot be reached, it does not come in time, or it is too large.
 */
export async function fetchRecording(model: string, deadlineMs = DEADLINE_MS): Promise<string> {
  const address = `/device/recordings/${encodeURIComponent(model)}.csv`;
  try {
    const answer = await fetch(address, { credentials: "omit", signal: AbortSignal.timeout(deadlineMs) });
    if (!answer.ok) throw noRecording(model);
    return new TextDecoder().decode(await read(answer));
  } catch (error) {
    if (error instanceof InputError) throw error;
    // The network's failures are TypeErrors; those of a deadline are DOMExceptions.
    if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
    throw new InputError(
      "The recording could not be fetched: the server is not there, or too slow.",
      "It is kept for next time once it came.",
    );
  }
}

/** Read a body piece by piece, so that one without end is given up at the limit. */
async function read(answer: Response): Promise<Bytes> {
  const pieces: Bytes[] = [];
  const reader = answer.body?.getReader();
  let size = 0;
  for (;;) {
    const piece = await reader?.read();
    if (piece === undefined || piece.done) return concat(pieces);
    size += piece.value.length;
    if (size > MAX_RECORDING_BYTES) {
      await reader?.cancel();
      throw new InputError("The recording is too large for a page.", "Use a shorter one.");
    }
    pieces.push(piece.value);
  }
}

function noRecording(model: string): InputError {
  return new InputError(
    `The server has no recording of ${model} to replay.`,
    `An operator can put one into its data folder as recordings/${model}.csv.`,
  );
}
