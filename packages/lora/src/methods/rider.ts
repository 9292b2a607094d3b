import type { AttachContext, Attachment } from "./method.js";

/** What may be trained beside a method's own tensors, whichever the method. Names in parentheses are PEFT's. */
export interface RiderOptions {
  /** Biases that are trained as well (`bias`): all of the model's, or those of the method's own layers ("lora_only"). Default "none". */
  readonly bias?: "none" | "all" | "targeted";
  /** Modules of which a whole copy is trained, by the ends of their names (`modules_to_save`). The method itself leaves them alone. */
  readonly modulesToSave?: readonly string[];
  /** Tokens whose embeddings are trained: of the model's token embedding, or by module (`trainable_token_indices`). */
  readonly trainableTokens?: readonly number[] | Readonly<Record<string, readonly number[]>>;
  /** With a whole embedding in `modulesToSave`: an output layer that shares its weight goes with it (`ensure_weight_tying`). Default false. */
  readonly ensureWeightTying?: boolean;
}

export type RiderName = keyof RiderOptions;

/** Something that is trained beside the method's own, and where. A place may carry several. */
export interface Passenger {
  readonly place: string;
  readonly attachment: Attachment;
}

/** What a rider is told besides its options. */
export interface RiderContext extends AttachContext {
  /** Names of the modules that the method is on. */
  readonly targeted: ReadonlySet<string>;
}
