import { setFlagsFromString } from "node:v8";
import { createContext, runInNewContext, Script } from "node:vm";

/** Collects garbage at once; null where the runtime does not let anybody ask for it. */
export function nodeCollector(): (() => void) | null {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("globalThis.gc");
  setFlagsFromString("--no-expose-gc");
  if (typeof collect !== "function") return null;
  // What a WeakRef was made for or asked about stays until the job that did so ends. The end of a context's own microtasks ends it too.
  const job = new Script("undefined");
  const context = createContext({}, { microtaskMode: "afterEvaluate" });
  return () => {
    job.runInContext(context);
    collect();
  };
}
