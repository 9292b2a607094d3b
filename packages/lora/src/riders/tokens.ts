import { type Tensor, tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { type Attachment, copyOf } from "../methods/method.js";
import type { Passenger, RiderContext, RiderOptions } from "../methods/rider.js";
import {
  type AdaptableModel,
  type AdaptableModule,
  type EmbeddingLayer,
  isDense,
  isEmbedding,
  tokenEmbedding,
} from "../targeting/model.js";

/** A table of tokens: an embedding, or an output layer that has a row for each. */
interface Table {
  readonly place: string;
  readonly module: AdaptableModule & { readonly weight: Tensor };
}

function tableOf(model: AdaptableModel, name: string): Table {
  for (const [place, module] of model.namedModules()) {
    if ((place === name || place.endsWith(`.${name}`)) && (isEmbedding(module) || isDense(module))) return { place, module };
  }
  throw new AdapterError(`trainableTokens: the model has no embedding or dense layer called "${name}". Check the name.`, [name]);
}

/**
 * Trains the embeddings of some tokens: W with the rows `indices` replaced by trained ones, at first copies of them. A list goes to the token
 * embedding, and to an output layer that shares its weight; a record names modules, and the same list on both sides of a shared weight is one
 * set of rows. Throws AdapterError for token numbers outside the table. peft.tuners.trainable_tokens.
 */
export function trainTokens({ trainableTokens: given }: RiderOptions, { model }: RiderContext): Passenger[] {
  if (given === undefined || (Array.isArray(given) && given.length === 0)) return [];
  const lists: readonly (readonly [string, readonly number[]])[] = Array.isArray(given)
    ? [[tokenEmbedding(model)[0], given as readonly number[]]]
    : Object.entries(given as Readonly<Record<string, readonly number[]>>);
  const passengers: Passenger[] = [];
  const rowsOf = new Map<string, Tensor>();
  const taken = new Set<AdaptableModule>();
  const put = ({ place, module }: Table, indices: readonly number[], isTied: boolean): void => {
    check(place, module.weight, indices);
    const key = `${idOf(module.weight)} ${indices.join()}`;
    const known = rowsOf.get(key);
    const rows = known ?? copyOf(module.weight.gather(tensor([...indices], { dtype: "i32", device: module.weight.device })));
    rowsOf.set(key, rows);
    taken.add(module);
    passengers.push({ place, attachment: attachment(module, indices, rows, known !== undefined, isTied) });
  };
  for (const [name, indices] of lists) {
    const table = tableOf(model, name);
    if (taken.has(table.module)) continue;
    const sharing = [...model.namedModules()]
      .filter(([, module]) => module !== table.module && (module as Partial<EmbeddingLayer>).weight === table.module.weight)
      .map(([place, module]) => ({ place, module: module as Table["module"] }));
    const listed = lists.map(([other, list]) => [tableOf(model, other).module, list] as const);
    // A list covers whoever shares the weight; in a record, whoever has the same list.
    const partners = sharing.filter(({ module }) => {
      const own = listed.find(([other]) => other === module);
      return own ? own[1].join() === indices.join() : Array.isArray(given);
    });
    put(table, indices, partners.length === sharing.length);
    for (const partner of partners) put(partner, indices, true);
  }
  return passengers;
}

const ids = new WeakMap<Tensor, number>();
let nextId = 1;
function idOf(weight: Tensor): number {
  const id = ids.get(weight) ?? nextId++;
  ids.set(weight, id);
  return id;
}

function check(place: string, weight: Tensor, indices: readonly number[]): void {
  const count = weight.shape[0] ?? 0;
  const wrong = indices.filter((index) => !Number.isInteger(index) || index < 0 || index >= count);
  if (wrong.length > 0 || new Set(indices).size !== indices.length) {
    throw new AdapterError(
      `trainableTokens of ${place}: ${wrong.length > 0 ? `${wrong.join(", ")} are outside the ${count} tokens` : "a token is named twice"}. Give token numbers from 0 to ${count - 1}, each once.`,
      [place],
    );
  }
}

function attachment(module: Table["module"], indices: readonly number[], rows: Tensor, isShared: boolean, isWhole: boolean): Attachment {
  const { device, shape } = module.weight;
  const list = tensor([...indices], { dtype: "i32", device });
  const [count = 0] = shape;
  /** 1 where position and listed token meet: [..., n]. */
  const meets = (positions: Tensor): Tensor => positions.unsqueeze(-1).equal(list).cast("f32");
  const isTable = isEmbedding(module);
  const vocabulary = tensor(
    Int32Array.from({ length: count }, (_, i) => i),
    { dtype: "i32", device },
  );
  return {
    parameters: isShared ? {} : { "token_adapter.trainable_tokens_delta": rows },
    others: () => [list, vocabulary],
    enable: () =>
      module.use((x, next) => {
        const out = next(x);
        if (isTable) {
          const chosen = meets(x);
          return chosen.sum(-1, { keepDims: true }).equal(0).where(out, chosen.matmul(rows));
        }
        const chosen = meets(vocabulary); // [vocab, n]
        return chosen.sum(-1).equal(0).where(out, x.matmul(rows.t()).matmul(chosen.t()));
      }),
    merge: () => {
      if (isShared) return [];
      const chosen = meets(vocabulary);
      const { weight } = module;
      return [{ weight, value: chosen.sum(-1, { keepDims: true }).equal(0).where(weight.cast("f32"), chosen.matmul(rows)), isWhole }];
    },
  };
}
