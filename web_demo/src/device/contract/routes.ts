/** Where the doors of a server are. Paths are relative to the server's URL. */

export const METADATA = "/repository/metadata/";
export const TARGETS = "/repository/targets/";
export const DEVICES = "/api/devices";
export const RESULTS = "/api/results";
export const DEVICE_STATUS = "/api/device-status";

/** Return the path of the root metadata with a SHA-256 digest, which first trust begins with. */
export function rootByDigest(digest: string): string {
  return `${METADATA}root-${digest}.json`;
}
