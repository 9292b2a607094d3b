import { ShapeError } from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { evenlySpread } from "../data/data-set.js";
import { type Example, ignoredLabel } from "../data/example.js";
import type { Examples } from "../data/examples.js";
import { TextGenerator } from "../generate/generate.js";
import { HeldOutLossError, TrainingError } from "../train/error.js";
import { compareLogits, logSumExp } from "./distributions.js";
import { probed } from "./logits.js";

/** Positions whose logits are compared, at most, and the bytes that they may take. */
const mostPositions = 256;
const mostBytes = 2 ** 27;
/** Tokens that the first model writes, and texts that share them at most. */
const [writtenTokens, mostTexts] = [256, 16];
/** Tokens of a row that has no prompt, from which the model goes on writing. */
const openingTokens = 8;

/** What a model says of some rows, for `compareOutputs`: it is read once, and may go before the other is loaded. */
export interface RecordedOutputs {
  readonly rows: readonly Example[];
  readonly vocabSize: number;
  /** Mean loss over the rows' loss tokens. */
  readonly loss: number;
  readonly tokenCount: number;
  /** f32 [vocab] in front of some of the loss tokens, by their number among all. */
  readonly logits: ReadonlyMap<number, Float32Array>;
  /** What it wrote greedily behind the beginnings of rows; the loss tokens are its own. */
  readonly written: readonly Example[];
}

/** How the outputs of two models that should be the same function agree. */
export interface Agreement {
  /** Mean loss over the rows' loss tokens, of the recorded model and of the other. */
  readonly lossBefore: number;
  readonly lossAfter: number;
  readonly tokenCount: number;
  /** Mean of KL(recorded ‖ other) over positions of the rows, in nats. */
  readonly meanKl: number;
  /** The largest difference of a logit at these positions. */
  readonly largestLogitDifference: number;
  readonly positionCount: number;
  /** Of the tokens that the recorded model wrote greedily: how many the other chooses too, behind the same text. */
  readonly equalTokens: number;
  readonly greedyTokens: number;
}

/**
 * Records what a model says of some rows: their mean loss, its logits in front of up to 256 of their loss tokens (128 MiB of them at most), evenly
 * spread, and 256 tokens that it writes greedily behind the prompts of up to 16 rows (or several places of rows without one, where these are few), end tokens or not. All loss
 * tokens' logits are read, so a few hundred tokens of rows are meant. Rejects with TrainingError where no row has loss tokens or the loss is not finite, and with the signal's reason.
 */
export async function recordOutputs(
  model: CausalLM,
  rows: Examples,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<RecordedOutputs> {
  const all = [...rows];
  const tokenCount = all.reduce((sum, { labels }) => sum + labels.filter((label, i) => i > 0 && label !== ignoredLabel).length, 0);
  const isKept = evenlySpread(tokenCount, Math.min(mostPositions, Math.floor(mostBytes / (4 * model.vocabSize))));
  const logits = new Map<number, Float32Array>();
  const loss = await overLogits(model, all, signal, (own, token) => {
    if (isKept(token)) logits.set(token, Float32Array.from(own));
  });
  const written = await write(model, all, signal);
  return { rows: all, vocabSize: model.vocabSize, loss, tokenCount, logits, written };
}

/**
 * Compares another model with what was recorded: the merged model with the adapter beside its base, or a quantised one with what it was.
 * Throws ShapeError where the vocabularies differ in size, and rejects as `recordOutputs` does.
 */
export async function compareOutputs(
  recorded: RecordedOutputs,
  model: CausalLM,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<Agreement> {
  const { rows, vocabSize, logits, written } = recorded;
  if (model.vocabSize !== vocabSize)
    throw new ShapeError(
      `compareOutputs: the models have vocabularies of ${vocabSize} and ${model.vocabSize} tokens. Compare models of one tokenizer.`,
    );
  let [kl, largest] = [0, 0];
  const lossAfter = await overLogits(model, rows, signal, (own, token) => {
    const before = logits.get(token);
    if (!before) return;
    const difference = compareLogits(before, own);
    kl += difference.kl;
    largest = Math.max(largest, difference.largest);
  });
  let [equalTokens, greedyTokens] = [0, 0];
  for await (const { values, targets } of probed(model, written, (all) => all.argmax(-1))) {
    signal?.throwIfAborted();
    equalTokens += targets.filter((token, i) => token === values[i]).length;
    greedyTokens += targets.length;
  }
  return {
    lossBefore: recorded.loss,
    lossAfter,
    tokenCount: recorded.tokenCount,
    meanKl: kl / Math.max(1, logits.size),
    largestLogitDifference: largest,
    positionCount: logits.size,
    equalTokens,
    greedyTokens,
  };
}

/** The mean loss of rows, from the logits in front of each loss token, which `visit` sees with the token's number among all. */
async function overLogits(
  model: CausalLM,
  rows: readonly Example[],
  signal: AbortSignal | undefined,
  visit: (logits: Float32Array, token: number) => void,
): Promise<number> {
  let [sum, token] = [0, 0];
  for await (const { values, targets } of probed(model, rows, (logits) => logits)) {
    signal?.throwIfAborted();
    for (const [i, target] of targets.entries()) {
      const own = values.subarray(i * model.vocabSize, (i + 1) * model.vocabSize) as Float32Array; // logits as they are
      sum += logSumExp(own) - (own[target] ?? Number.NaN);
      visit(own, token++);
    }
  }
  if (token === 0) throw new TrainingError("None of the rows to compare models on has loss tokens. Give rows with completions.", 0);
  const loss = sum / token;
  if (Number.isFinite(loss)) return loss;
  throw new HeldOutLossError(
    `The loss of the rows is ${loss}: activations overflow, as weights of the model or the adapter are too large. Use an earlier checkpoint, or train again with a lower learning rate.`,
    loss,
  );
}

/** The 256 tokens that a model writes greedily behind the prompts of rows. An end token is a choice like others, and so is what comes after it. */
async function write(model: CausalLM, rows: readonly Example[], signal: AbortSignal | undefined): Promise<Example[]> {
  const isChosen = evenlySpread(rows.length, mostTexts);
  const some = rows.filter((_, row) => isChosen(row));
  const room = model.contextLength - model.virtualTokens.length;
  const most = Math.ceil(room / 2);
  // Few rows and a short context: several texts begin in one row.
  const beginnings = some.flatMap((row) => beginningsOf(row, Math.ceil(writtenTokens / (most * some.length))));
  const wanted = Math.min(Math.ceil(writtenTokens / beginnings.length), most);
  const prompts = beginnings.map(({ ids }) => ids.slice(0, room - wanted));
  const generator = new TextGenerator(model);
  try {
    const options = { maxNewTokens: wanted, temperature: 0, stopTokens: [], ...(signal && { signal }) };
    const written = await generator.generate(prompts, options);
    return prompts.map((prompt, i) => {
      const tokens = (written[i] ?? []).slice(0, Math.max(0, writtenTokens - i * wanted));
      return { line: beginnings[i]?.line ?? 0, ids: [...prompt, ...tokens], labels: [...prompt.map(() => ignoredLabel), ...tokens] };
    });
  } finally {
    generator.dispose();
  }
}

/** What stands in front of a row's first loss token; where all of it is in the loss, some of its tokens, from up to so many places on. */
function beginningsOf({ line, ids, labels }: Example, places: number): readonly Pick<Example, "line" | "ids">[] {
  const border = labels.findIndex((label) => label !== ignoredLabel);
  if (border > 0) return [{ line, ids: ids.slice(0, border) }];
  const length = Math.max(1, Math.min(openingTokens, ids.length - 1));
  const count = Math.max(1, Math.min(places, Math.floor(ids.length / length)));
  return Array.from({ length: count }, (_, i) => {
    const start = Math.floor((i * ids.length) / count);
    return { line, ids: ids.slice(start, start + length) };
  });
}
