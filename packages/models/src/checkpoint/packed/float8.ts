import { type BlockScales, CheckpointError, combinedDigest, type DType, type Storage, scaledDType } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, field, isCount } from "../../schema.js";
import { DenseWeight, float8Problem, scaleSuffix } from "../stored/dense-weight.js";
import { entryOf, type Place } from "../stored/stored.js";
import type { DefineMethod } from "./method.js";

/** Scales of a weight's input, which one that is widened does not need. */
const inputScale = /(^|[._])(activation|input)_scale$/;

/** Rows and columns of a block. */
type Block = readonly [rows: number, columns: number];

const fields = z.object({
  weight_block_size: field<Block | null>(
    "two positive integers or null",
    (value) => value === null || (Array.isArray(value) && value.length === 2 && value.every(isCount)),
    null,
  ),
});

/** Floats of 8 bits with scales, one or one a block, as transformers' FineGrainedFP8 stores them: widened to bf16. */
export const float8: DefineMethod = (config, path) => {
  const { weight_block_size: block } = checked(fields, config, path, "quantization_config");
  return {
    split: (name) => (name.endsWith(scaleSuffix) ? { weight: name.slice(0, -scaleSuffix.length), part: scaleSuffix } : null),
    pack: async (parts) => {
      const [place, scales] = [parts.get(""), parts.get(scaleSuffix)];
      return place && scales && entryOf(place).dtype.startsWith("F8_") ? new ScaledWeight(place, scales, block) : null;
    },
    isSpare: async ({ name }) => inputScale.test(name),
  };
};

/** The digest of a weight and its scales, by theirs. */
const withScales = (weight: string, scales: string): string =>
  combinedDigest(
    new Map([
      ["", weight],
      [scaleSuffix, scales],
    ]),
  );

/** A weight in 8 bits whose scales stand in a tensor beside it. */
class ScaledWeight extends DenseWeight {
  constructor(
    place: Place,
    private readonly scalesPlace: Place,
    private readonly block: Block | null,
  ) {
    super(place);
  }

  override get dtype(): DType {
    return "bf16";
  }

  override get problem(): string | null {
    const { dtype } = entryOf(this.place);
    return dtype === scaledDType ? null : float8Problem(this.name, dtype);
  }

  protected override async readInto(storage: Storage, at: number): Promise<string> {
    const { scales, digest } = await this.#scales();
    return withScales(await this.place.file.weightInto(this.name, storage, at, scales), digest);
  }

  override async numbers(take: (values: Float32Array) => void): Promise<string> {
    const { scales, digest } = await this.#scales();
    return withScales(await this.place.file.weightNumbers(this.name, take, scales), digest);
  }

  override async digest(): Promise<string> {
    return withScales(await this.place.file.stream(this.name, () => undefined), (await this.#scales()).digest);
  }

  async #scales(): Promise<{ readonly scales: BlockScales; readonly digest: string }> {
    const { file, name } = this.scalesPlace;
    const { dtype, shape } = entryOf(this.scalesPlace);
    if (!/^B?F(16|32)$/.test(dtype))
      throw new CheckpointError(
        `${file.name}: the scales "${name}" are ${dtype}, and F32, BF16 and F16 are read. Convert the checkpoint to bf16.`,
        file.name,
      );
    const digest = await file.digest(name);
    return { scales: { values: await file.values(name), shape, block: this.block }, digest };
  }
}
