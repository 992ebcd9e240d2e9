import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import type { Plugin } from "vite";

const CACHE = "../build/compressed";
const WORTH = /\.(css|html|js|json|svg|wasm|webmanifest)$/;

const ENCODINGS = {
  br: (content: Buffer) =>
    promisify(brotliCompress)(content, {
      params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: content.length },
    }),
  gz: (content: Buffer) => promisify(gzip)(content, { level: constants.Z_BEST_COMPRESSION }),
};

/** Reads a compressed copy from the cache, or makes it: brotli takes half a minute for the wasm, which hardly changes. */
async function compress(content: Buffer, encoding: keyof typeof ENCODINGS): Promise<Buffer> {
  const kept = join(CACHE, `${createHash("sha256").update(content).digest("hex")}.${encoding}`);
  try {
    return await readFile(kept);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const made = await ENCODINGS[encoding](content);
  await writeFile(kept, made);
  return made;
}

/** Puts `.br` and `.gz` beside every built file that they make smaller, so that the server only picks one. */
export function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    enforce: "post",
    async writeBundle({ dir }) {
      if (dir === undefined) throw new Error("The build has no output folder to compress.");
      await mkdir(CACHE, { recursive: true });
      const files = await readdir(dir, { recursive: true });
      for (const file of files.filter((name) => WORTH.test(name))) {
        const content = await readFile(join(dir, file));
        for (const encoding of ["br", "gz"] as const) {
          const made = await compress(content, encoding);
          if (made.length < content.length) await writeFile(join(dir, `${file}.${encoding}`), made);
        }
      }
    },
  };
}
