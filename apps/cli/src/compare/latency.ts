import { type CausalLM, TextGenerator } from "@lowrank/models";
import { median } from "./training.js";

/** A state of a model that is timed: `enter` puts the model into it, any number of times. */
export interface DecodingState {
  readonly model: CausalLM;
  enter(): void;
}

/** Greedy decoding, timed. The first state is what the others are compared with. */
export interface Latency {
  /** Median milliseconds a token, by state. */
  readonly tokenMs: readonly number[];
  /** Median over the rounds of a state's time to the first state's in the same round; 1 for the first. */
  readonly ratios: readonly number[];
  readonly rounds: number;
}

/** The first tokens of each stretch are not counted: caches are cold after the weights were written. */
const warmUpTokens = 3;
/** Rounds before the ratios are trusted to hold still, and those that are made whatever the time. */
const roundsAtLeast = 12;
const roundsInAnyCase = 3;
const roundsAtMost = 400;
/** Rounds go on until the ratios' standard errors are below this, or the time is up. */
const wantedError = 0.004;

/**
 * Times greedy decoding of `tokenCount` tokens after a prompt in each state by turns, forwards and backwards, until the ratios hold still or
 * `seconds` are over. By turns, because other programs and the machine's temperature change what a token takes.
 */
export async function decodingLatency(
  states: readonly DecodingState[],
  prompt: readonly number[],
  tokenCount: number,
  options: { readonly seconds: number; readonly signal: AbortSignal },
): Promise<Latency> {
  const generators = new Map(states.map(({ model }) => [model, new TextGenerator(model)] as const));
  const stretch = async ({ model, enter }: DecodingState): Promise<number[]> => {
    enter();
    const times: number[] = [];
    const generator = generators.get(model) as TextGenerator; // made for each state's model above
    await generator.generate([prompt], {
      maxNewTokens: tokenCount,
      temperature: 0,
      stopTokens: [],
      onToken: () => times.push(performance.now()),
    });
    return times.slice(1 + warmUpTokens).map((at, i) => at - (times[i + warmUpTokens] ?? at));
  };
  const all = states.map((): number[] => []);
  const ratios = states.map((): number[] => []);
  try {
    for (const state of states) await stretch(state); // records the plans
    const end = performance.now() + options.seconds * 1000;
    for (let round = 0; round < roundsAtMost && !options.signal.aborted; round++) {
      if (round >= roundsInAnyCase && performance.now() > end) break;
      if (round >= roundsAtLeast && ratios.every((values) => medianError(values) < wantedError)) break;
      const order = states.map((_, i) => (round % 2 === 0 ? i : states.length - 1 - i));
      const medians = states.map(() => Number.NaN);
      for (const i of order) {
        const times = await stretch(states[i] as DecodingState); // i < states.length
        for (const ms of times) all[i]?.push(ms);
        medians[i] = median(times);
      }
      for (const [i, value] of medians.entries()) ratios[i]?.push(value / (medians[0] ?? Number.NaN));
    }
  } finally {
    for (const generator of generators.values()) generator.dispose();
  }
  return { tokenMs: all.map(median), ratios: ratios.map(median), rounds: ratios[0]?.length ?? 0 };
}

/** The standard error of a median, from the median absolute deviation (1.4826 of which is a normal distribution's deviation). */
export function medianError(values: readonly number[]): number {
  const middle = median(values);
  const deviation = 1.4826 * median(values.map((value) => Math.abs(value - middle)));
  return (1.2533 * deviation) / Math.sqrt(values.length);
}
