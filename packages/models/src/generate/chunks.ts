/** Tokens that a pass over a prompt takes, largest first: so few that a plan for each is kept. */
const sizes = { large: 256, medium: 64, small: 16, tiny: 4 } as const;
/** Tokens that take about as long as what a pass costs besides its tokens: the weights are read once more. */
const passCost = 12;

/** Prompts are read in multiples of so many tokens, but for a few tokens alone: a product of as few rows is a third of the work of one of these. */
export const chunkStep: number = sizes.small;

/**
 * The sizes of the passes that read `length` tokens: together at least so many, and at most `room`, a multiple of `chunkStep`. Sizes are
 * the same few for all lengths.
 */
export function chunksFor(length: number, room: number): number[] {
  const whole = new Array<number>(Math.floor(length / sizes.large)).fill(sizes.large);
  const before = whole.length * sizes.large;
  const steps = Math.ceil((length - before) / sizes.small);
  const perMedium = sizes.medium / sizes.small;
  const ways: number[][] = [
    chunks(0, steps),
    chunks(Math.floor(steps / perMedium), steps % perMedium),
    chunks(Math.ceil(steps / perMedium), 0),
    steps > 0 ? [sizes.large] : [],
    ...(length > 0 && length <= sizes.tiny ? [[sizes.tiny]] : []),
  ];
  const costOf = (way: readonly number[]): number => way.reduce((sum, size) => sum + size + passCost, 0);
  const isInside = (way: readonly number[]): boolean => before + way.reduce((sum, size) => sum + size, 0) <= room;
  const [first = [], ...others] = ways;
  return [...whole, ...others.filter(isInside).reduce((best, way) => (costOf(way) < costOf(best) ? way : best), first)];
}

function chunks(medium: number, small: number): number[] {
  return [...new Array<number>(medium).fill(sizes.medium), ...new Array<number>(small).fill(sizes.small)];
}
