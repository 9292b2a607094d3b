// What the tests of virtual tokens share.
import { type memoryFiles, readText, type Tensor } from "@lowrank/tensor";
import { expect } from "vitest";
import type { Model } from "../golden.js";

/** Logits of the text's positions, which are the last ones. */
export function ofText(model: Model, ids: Tensor): Tensor {
  const logits = model.forward(ids);
  const length = ids.sizeAt(1);
  return logits.narrow(1, logits.sizeAt(1) - length, length);
}

export async function textOf(files: ReturnType<typeof memoryFiles>, path: string): Promise<string> {
  const source = await files.open(path);
  return source ? readText(source) : expect.fail(`${path} is missing`);
}
