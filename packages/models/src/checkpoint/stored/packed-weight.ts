import {
  combinedDigest,
  type Device,
  type DType,
  digestOf,
  dtypeBytes,
  fromStorage,
  packedTensor,
  type Shape,
  Storage,
  sizeOf,
  type Tensor,
  tensorDType,
} from "@lowrank/tensor";
import { type BlockLayout, entryOf, type LoadedPieces, type Place, type StoredWeight } from "./stored.js";

/** One of the tensors that a packed weight is made of on a device. */
export interface PackedPart {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Fills part of a storage, from element `at` on, and gives the digest of what it was read from. */
  readonly fill: (storage: Storage, at: number) => Promise<string>;
  /** The digest alone. */
  readonly digest: () => Promise<string>;
}

/** A tensor as a file has it; numbers that are not finite are refused. */
export function plainPart(place: Place, shape: Shape = entryOf(place).shape): PackedPart {
  const { file, name } = place;
  return {
    dtype: tensorDType(entryOf(place), file.name),
    shape,
    fill: (storage, at) => file.weightInto(name, storage, at),
    digest: () => file.digest(name),
  };
}

/** The bytes of a tensor, each changed by `change` into an element of `dtype`, whose bits it gives; as they are where it is absent. */
export function bytesPart(place: Place, shape: Shape = entryOf(place).shape, change?: { dtype: "bf16"; bits: Uint16Array }): PackedPart {
  const { file, name } = place;
  return {
    dtype: change?.dtype ?? "u8",
    shape,
    fill: (storage, from) =>
      file.stream(name, (bytes, at) => {
        const stored = change ? bytesOf(Uint16Array.from(bytes, (byte) => change.bits[byte] ?? 0)) : bytes;
        storage.device.backend.write(storage.buffer, stored, (from + at) * dtypeBytes[storage.dtype]);
      }),
    digest: () => file.stream(name, () => undefined),
  };
}

/** Numbers that stand in no tensor of their own. */
export function numbersPart(values: readonly number[]): PackedPart {
  const bytes = bytesOf(Float32Array.from(values));
  const digest = async (): Promise<string> => digestOf(bytes);
  return {
    dtype: "f32",
    shape: [values.length],
    fill: (storage, at) => {
      storage.device.backend.write(storage.buffer, bytes, at * 4);
      return digest();
    },
    digest,
  };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Uint16Array | Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** A weight in blocks as a checkpoint holds it. */
export interface PackedDescription<Part extends string = string> {
  /** The tensor that stands for it in errors. */
  readonly place: Place;
  readonly shape: Shape;
  /** The type of its blocks, for people. */
  readonly type: string;
  /** What its equation depends on beside the parts. */
  readonly options: Readonly<Record<string, number | string | boolean>>;
  readonly parts: Readonly<Record<Part, PackedPart>>;
  /** The numbers of so many weights of this shape, f32 [count, ...shape]; each part has an axis of `count` in front. */
  values(parts: Readonly<Record<Part, Tensor>>, count: number): Tensor;
}

/** A weight that stays in its blocks. Several that are alike lie in one set of tensors, one behind the other. */
export function packedWeight<Part extends string>(description: PackedDescription<Part>): StoredWeight {
  return new PackedWeight(description);
}

class PackedWeight implements StoredWeight {
  readonly dtype: DType = "bf16";
  readonly problem = null;
  readonly layout: BlockLayout;
  readonly #description: PackedDescription;

  constructor(description: PackedDescription) {
    this.#description = description;
    const { type, options, parts, shape } = description;
    const key = JSON.stringify([type, options, shape, Object.entries(parts).map(([name, part]) => [name, part.dtype, part.shape])]);
    this.layout = { type, key };
  }

  get file(): string {
    return this.#description.place.file.name;
  }

  get name(): string {
    return this.#description.place.name;
  }

  get shape(): Shape {
    return this.#description.shape;
  }

  async load(pieces: readonly PackedWeight[], shape: Shape, { device }: { readonly device: Device }): Promise<LoadedPieces> {
    const description = this.#description;
    const { type, parts } = description;
    const count = pieces.length;
    const storages = new Map(
      Object.entries(parts).map(([name, part]) => [name, new Storage(device, part.dtype, count * sizeOf(part.shape))]),
    );
    const digests: string[] = [];
    try {
      for (const [i, piece] of pieces.entries())
        digests.push(await piece.#digestOf((part, name) => part.fill(storages.get(name) as Storage, i * sizeOf(part.shape)))); // alike: the same parts
    } catch (error) {
      for (const storage of storages.values()) storage.dispose();
      throw error;
    }
    const held = Object.fromEntries(
      [...storages].map(([name, storage]) => [name, fromStorage(storage, [count, ...(parts[name]?.shape ?? [])])]),
    );
    return { tensor: packedTensor(type, held, (given) => description.values(given, count).reshape(shape)), digests };
  }

  digest(): Promise<string> {
    return this.#digestOf((part) => part.digest());
  }

  async #digestOf(ofPart: (part: PackedPart, name: string) => Promise<string>): Promise<string> {
    const { type, options, parts } = this.#description;
    const digests = new Map([["", digestOf(JSON.stringify([type, options]))]]);
    for (const [name, part] of Object.entries(parts)) digests.set(name, await ofPart(part, name));
    return combinedDigest(digests);
  }
}
