import { productSvd, svd, svdOfEnergy } from "./svd.js";

/** What is long enough to be worth a thread of its own: functions of plain data, so that arguments and results can be sent. */
export interface Operations {
  readonly svd: typeof svd;
  readonly productSvd: typeof productSvd;
  readonly svdOfEnergy: typeof svdOfEnergy;
}

export type OperationName = keyof Operations;

const operations: Operations = { svd, productSvd, svdOfEnergy };

/** Runs the operation of a name. Throws as that does. */
export function operate<Name extends OperationName>(name: Name, args: Parameters<Operations[Name]>): ReturnType<Operations[Name]> {
  // TypeScript does not see that arguments and operation are of the same name.
  const operation = operations[name] as (...given: readonly unknown[]) => unknown;
  return operation(...args) as ReturnType<Operations[Name]>;
}
