import { createContext, Script } from "node:vm";
import { setTimedMatch } from "../pattern.js";

/** A realm of its own, in which nothing but an expression and a text are visible. Made at the first expression that needs it. */
let realm: Record<string, string> | null = null;
let script: Script | null = null;

/** Lets expressions that may backtrack for ever run under V8's time limit. */
export function setNodeTimedMatch(): void {
  setTimedMatch((source, flags, text, limitMs) => {
    realm ??= createContext(Object.assign(Object.create(null) as Record<string, string>, { source: "", flags: "", text: "" })) as Record<
      string,
      string
    >;
    script ??= new Script("new RegExp(source, flags).exec(text)");
    Object.assign(realm, { source, flags, text });
    try {
      const found = script.runInContext(realm, { timeout: limitMs }) as readonly (string | undefined)[] | null;
      return found && [...found];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return "late";
      throw error;
    }
  });
}
