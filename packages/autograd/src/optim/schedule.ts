/** Learning rate at a step, counted from 0. */
export type Schedule = (step: number) => number;

/** The shape of a schedule. */
export interface ScheduleOptions {
  /** The highest learning rate, reached after warm-up. */
  readonly peak: number;
  /** Steps of linear rise from 0; 0 when absent. */
  readonly warmup?: number;
}

function warmedUp({ peak, warmup = 0 }: ScheduleOptions, after: (step: number, warmup: number) => number): Schedule {
  return (step) => peak * (step < warmup ? step / Math.max(1, warmup) : after(step, warmup));
}

/** Warm-up, then the peak for ever. transformers.get_constant_schedule_with_warmup. */
export function constant(options: ScheduleOptions): Schedule {
  return warmedUp(options, () => 1);
}

/** Warm-up, then a straight line down to 0 at `steps`. transformers.get_linear_schedule_with_warmup. */
export function linear(options: ScheduleOptions & { readonly steps: number }): Schedule {
  const { steps } = options;
  return warmedUp(options, (step, warmup) => Math.max(0, (steps - step) / Math.max(1, steps - warmup)));
}

/** Warm-up, then half a cosine down to 0 at `steps` (Loshchilov & Hutter 2017). transformers.get_cosine_schedule_with_warmup. */
export function cosine(options: ScheduleOptions & { readonly steps: number }): Schedule {
  const { steps } = options;
  return warmedUp(options, (step, warmup) => Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (step - warmup)) / Math.max(1, steps - warmup)))));
}
