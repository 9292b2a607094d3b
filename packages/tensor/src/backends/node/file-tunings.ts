import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { writeFileAtomic } from "../../io/node.js";
import { DeviceError } from "../../tensor/errors.js";
import type { TuningStore } from "../webgpu/tuning.js";

/** Remembers tunings in files, one an adapter, in the user's cache: $XDG_CACHE_HOME or ~/.cache. */
export function fileTunings(): TuningStore {
  const folder = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "lowrank", "tunings");
  const pathOf = (adapter: string): string => {
    const readable = adapter.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 60);
    return join(folder, `${readable}-${createHash("sha256").update(adapter).digest("hex").slice(0, 8)}.json`);
  };
  return {
    async load(adapter) {
      const source = pathOf(adapter);
      const text = await readFile(source, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return null;
        throw new DeviceError(`${source}: remembered kernel variants cannot be read (${error.code}). Delete it and tune again.`, "webgpu");
      });
      if (text === null) return null;
      try {
        return { value: JSON.parse(text) as unknown, source };
      } catch {
        throw new DeviceError(`${source}: remembered kernel variants are no JSON. Delete it and tune again.`, "webgpu");
      }
    },
    async save(tuning) {
      await writeFileAtomic(pathOf(tuning.adapter), `${JSON.stringify(tuning, null, 2)}\n`);
    },
  };
}
