import type { Makes } from "./command.js";
import type { EndSignal } from "./interruption.js";
import type { Leftover } from "./leftovers.js";

/** What the main thread knows of where output goes. */
export interface Terminal {
  readonly isTTY: boolean;
  readonly columns: number | undefined;
}

export type OutputName = "stdout" | "stderr";

/** What the thread that runs the command is started with. */
export interface ThreadData {
  readonly args: readonly string[];
  /** The program's file as it was called. */
  readonly program: string;
  readonly terminals: Readonly<Record<OutputName, Terminal>>;
}

/** What the command's thread tells the main thread. */
export type FromThread =
  | { readonly kind: "write"; readonly to: OutputName; readonly data: string | Uint8Array }
  | { readonly kind: "started"; readonly makes: Makes }
  /** Whether code that is not JavaScript may be running, which cannot be stopped from outside. */
  | { readonly kind: "native"; readonly isNative: boolean }
  | { readonly kind: "leftover"; readonly leftover: Leftover | null };

/** What the main thread tells the command's thread. */
export type ToThread =
  | { readonly kind: "interrupt"; readonly by: EndSignal }
  /** Ends the thread as soon as it listens. */
  | { readonly kind: "end" }
  | { readonly kind: "resized"; readonly columns: number | undefined };
