import { isEqual } from "./compare.js";
import { Callable, type Charge, type Given, orElse, TemplateError, Tuple, Undefined, type Value } from "./values.js";

/** The variable `loop` in one round. `again` renders the loop's body for other elements where the loop is recursive. */
export function loopVariable(
  items: readonly Value[],
  index: number,
  depth: number,
  memory: { changed: Value | undefined },
  again: ((items: Value) => Value) | null,
  charge: Charge,
): Callable {
  const { length } = items;
  const attributes = (name: string): Value | undefined => {
    switch (name) {
      case "index":
        return index + 1;
      case "index0":
        return index;
      case "revindex":
        return length - index;
      case "revindex0":
        return length - index - 1;
      case "first":
        return index === 0;
      case "last":
        return index === length - 1;
      case "length":
        return length;
      case "depth":
        return depth;
      case "depth0":
        return depth - 1;
      case "previtem":
        return orElse(items[index - 1], () => new Undefined("there is no previous item"));
      case "nextitem":
        return orElse(items[index + 1], () => new Undefined("there is no next item"));
      case "cycle":
        return new Callable("<bound method LoopContext.cycle>", ({ positional }: Given) => {
          if (positional.length === 0) throw new TemplateError("no items for cycling given");
          return positional[index % positional.length] as Value;
        });
      case "changed":
        return new Callable("<bound method LoopContext.changed>", ({ positional }: Given) => {
          const value = new Tuple(positional);
          const isSame = memory.changed !== undefined && isEqual(memory.changed, value, charge);
          memory.changed = value;
          return !isSame;
        });
      default:
        return undefined;
    }
  };
  const call = ({ positional: [inner] }: Given): Value => {
    if (!again) throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.");
    if (inner === undefined) throw new TemplateError("loop() takes one argument");
    return again(inner);
  };
  return new Callable(`<LoopContext ${index + 1}/${length}>`, call, attributes);
}
