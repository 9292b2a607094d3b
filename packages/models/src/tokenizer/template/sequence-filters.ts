import { binary } from "./arithmetic.js";
import { item } from "./attributes.js";
import { elementsOf, isEqual, isTrue, sorted } from "./compare.js";
import { atPath, type Context, type Filter, filter } from "./filter.js";
import { printed } from "./print.js";
import { intOf } from "./text-methods.js";
import {
  Dict,
  type Given,
  isText,
  Markup,
  orElse,
  Stream,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** Texts are compared without their case unless that is asked for. */
function folded(value: Value, isCaseSensitive: Value): Value {
  return isText(value) && !isTrue(isCaseSensitive) ? textOf(value).toLowerCase() : value;
}

function smallest(value: Value, isCaseSensitive: Value, path: Value, isMost: boolean, { charge }: Context): Value {
  const keyOf = (element: Value): Value => folded(path === null ? element : atPath(element, path, charge), isCaseSensitive);
  const items = elementsOf(value, charge);
  // Of equal ones the first is taken.
  return orElse(sorted(items, keyOf, isMost, charge)[0], () => new Undefined("No aggregated item, sequence was empty."));
}

/** `select`, `reject`, and both by an attribute. */
function chosen(byAttribute: boolean, keeps: boolean): Filter {
  return filter("*", (value, _, context, { positional }) => {
    const rest = byAttribute ? positional.slice(1) : positional;
    const [name, ...args] = rest;
    const path = positional[0];
    if (byAttribute && path === undefined) throw new TemplateError("Missing parameter for attribute name");
    const holds = (element: Value): boolean => {
      const tested = byAttribute ? atPath(element, path as Value, context.charge) : element;
      return name === undefined ? isTrue(tested) : context.test(printed(name, context.charge), tested, args);
    };
    return new Stream(() => itemsOf(value, context).filter((element) => holds(element) === keeps));
  });
}

/** What these filters go through: nothing of what counts as false, None for one. */
function itemsOf(value: Value, { charge }: Context): readonly Value[] {
  return isTrue(value) ? elementsOf(value, charge) : [];
}

function mapped(value: Value, context: Context, { positional, named }: Given): Value {
  const path = named.get("attribute");
  if (positional.length === 0 && path !== undefined) {
    const otherwise = named.get("default");
    return new Stream(() =>
      itemsOf(value, context).map((element) => {
        const found = atPath(element, path, context.charge);
        return found instanceof Undefined && otherwise !== undefined && otherwise !== null ? otherwise : found;
      }),
    );
  }
  const [name, ...args] = positional;
  if (name === undefined) throw new TemplateError("map requires a filter argument");
  return new Stream(() =>
    itemsOf(value, context).map((element) => context.filter(printed(name, context.charge), element, { positional: args, named })),
  );
}

function grouped(value: Value, path: Value, otherwise: Value | undefined, isCaseSensitive: Value, { charge }: Context): Value {
  const keyOf = (element: Value): Value => {
    const found = atPath(element, path, charge);
    return folded(found instanceof Undefined && otherwise !== undefined && otherwise !== null ? otherwise : found, isCaseSensitive);
  };
  const groups: { readonly key: Value; readonly items: Value[] }[] = [];
  for (const element of sorted(elementsOf(value, charge), keyOf, false, charge)) {
    const key = keyOf(element);
    const last = groups.at(-1);
    if (last && isEqual(last.key, key, charge)) last.items.push(element);
    else groups.push({ key, items: [element] });
  }
  return groups.map(({ key, items }) => new Tuple([isTrue(isCaseSensitive) ? key : atPath(items[0] as Value, path, charge), items]));
}

function batches(items: readonly Value[], size: number, fill: Value): Value[] {
  // As Python's loop, of which a row of no items is the first and one of fewer than none is never whole.
  const rows: Value[][] = items.length > 0 ? [[]] : [];
  for (const element of items) {
    if (rows.at(-1)?.length === size) rows.push([]);
    rows.at(-1)?.push(element);
  }
  const last = rows.at(-1);
  if (last && fill !== null) while (last.length < size) last.push(fill);
  return rows;
}

export const sequenceFilters: Readonly<Record<string, Filter>> = {
  batch: filter("linecount fill_with", (value, [count = 1, fill = null], { charge }) => {
    charge(intOf(count));
    return new Stream(() => batches(elementsOf(value, charge), intOf(count), fill));
  }),
  dictsort: filter("case_sensitive by reverse", (value, [isCaseSensitive = false, by = "key", isReversed = false], { charge }) => {
    if (value instanceof Undefined) value.fail();
    if (!(value instanceof Dict)) throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
    if (by !== "key" && by !== "value") throw new TemplateError('You can only sort by either "key" or "value"');
    const place = by === "key" ? 0 : 1;
    return sorted(value.entries(), (entry) => folded(entry[place], isCaseSensitive), isTrue(isReversed), charge).map(
      (entry) => new Tuple(entry),
    );
  }),
  first: filter("", (value, _, { charge }) => {
    if (isText(value))
      return item(value, 0, charge) instanceof Undefined ? new Undefined("No first item, sequence was empty.") : item(value, 0, charge);
    return orElse(elementsOf(value, charge)[0], () => new Undefined("No first item, sequence was empty."));
  }),
  groupby: filter("attribute default case_sensitive", (value, [path = "", otherwise, isCaseSensitive = false], context) =>
    grouped(value, path, otherwise, isCaseSensitive, context),
  ),
  items: filter("", (value, _, { charge }) => {
    return new Stream(() => {
      if (value instanceof Undefined) return [];
      if (!(value instanceof Dict)) throw new TemplateError("Can only get item pairs from a mapping.");
      charge(value.size);
      return value.entries().map((entry) => new Tuple(entry));
    });
  }),
  join: filter("d attribute", (value, [by = "", path = null], { charge }) => {
    const items = elementsOf(value, charge);
    const texts = items.map((element) => printed(path === null ? element : atPath(element, path, charge), charge));
    const separator = printed(by, charge);
    charge(texts.reduce((sum, text) => sum + text.length + separator.length, 0) / 8);
    return texts.join(separator);
  }),
  last: filter("", (value, _, { charge }) => {
    if (value instanceof Stream) throw new TemplateError("'generator' object is not reversible");
    return orElse(elementsOf(value, charge).at(-1), () => new Undefined("No last item, sequence was empty."));
  }),
  list: filter("", (value, _, { charge }) => [...elementsOf(value, charge)]),
  map: filter("*", (value, _, context, given) => mapped(value, context, given)),
  max: filter("case_sensitive attribute", (value, [isCaseSensitive = false, path = null], context) =>
    smallest(value, isCaseSensitive, path, true, context),
  ),
  min: filter("case_sensitive attribute", (value, [isCaseSensitive = false, path = null], context) =>
    smallest(value, isCaseSensitive, path, false, context),
  ),
  reject: chosen(false, false),
  rejectattr: chosen(true, false),
  reverse: filter("", (value, _, { charge }) => {
    const items = [...elementsOf(value, charge)].reverse();
    // Python reverses what it can go through twice when it is gone through, and makes a list of what it cannot.
    if (value instanceof Stream) return items;
    if (!isText(value)) return new Stream(() => items);
    return value instanceof Markup ? new Markup(items.join("")) : items.join("");
  }),
  select: chosen(false, true),
  selectattr: chosen(true, true),
  slice: filter("slices fill_with", (value, [count = 1, fill = null], { charge }) => {
    const slices = intOf(count);
    charge(Math.max(0, slices));
    return new Stream(() => {
      const items = elementsOf(value, charge);
      if (slices === 0) throw new TemplateError("integer division or modulo by zero");
      const [each, extra] = [Math.floor(items.length / slices), items.length % slices];
      return Array.from({ length: Math.max(0, slices) }, (_slice, i) => {
        const part = items.slice(i * each + Math.min(i, extra), (i + 1) * each + Math.min(i + 1, extra));
        return fill !== null && i >= extra ? [...part, fill] : part;
      });
    });
  }),
  sort: filter("reverse case_sensitive attribute", (value, [isReversed = false, isCaseSensitive = false, path = null], { charge }) => {
    const paths: readonly Value[] = isText(path) ? textOf(path).split(",") : [path];
    const keyOf = (element: Value): Value =>
      paths.map((part) => folded(part === null ? element : atPath(element, part, charge), isCaseSensitive));
    return sorted(elementsOf(value, charge), keyOf, isTrue(isReversed), charge);
  }),
  sum: filter("attribute start", (value, [path = null, start = 0], { charge }) =>
    elementsOf(value, charge).reduce(
      (total, element) => binary("+", total, path === null ? element : atPath(element, path, charge), charge),
      start,
    ),
  ),
  unique: filter("case_sensitive attribute", (value, [isCaseSensitive = false, path = null], { charge }) => {
    const seen = new Dict();
    return new Stream(() =>
      elementsOf(value, charge).filter((element) => {
        const key = folded(path === null ? element : atPath(element, path, charge), isCaseSensitive);
        if (seen.get(key) !== undefined) return false;
        seen.set(key, true);
        return true;
      }),
    );
  }),
};
