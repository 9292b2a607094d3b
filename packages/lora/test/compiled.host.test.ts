import { compile, device, type Tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { applyAdapter, merge, unmerge } from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

test("a compiled forward follows the adapter: applied, merged, unmerged, disabled; and finds its recordings again", async () => {
  const dev = await device("reference");
  const model = new TinyModel(dev);
  const x = await rows(dev, 3, 8, 2).realize();
  const recorded: string[] = [];
  let stage = "plain";
  const forward = compile((input: Tensor) => {
    recorded.push(stage);
    return model.forward(input);
  });
  const same = async (name: string): Promise<void> => {
    stage = name;
    expect(Array.from(await forward(x).data())).toEqual(Array.from(await model.forward(x).data()));
  };
  await same("plain");
  const adapter = applyAdapter(model, { method: "lora", rank: 2, dropout: 0.5, targets: ["q_proj"] });
  for (const [name, parameter] of adapter.namedParameters()) if (name.includes("lora_B")) parameter.assign(rows(dev, 8, 2, 5));
  await same("applied");
  merge(adapter);
  await same("merged");
  unmerge(adapter);
  await same("unmerged");
  adapter.disable();
  await same("disabled");
  adapter.enable();
  model.train();
  stage = "training";
  expect(Array.from(await forward(x).data())).not.toEqual(Array.from(await forward(x).data()));
  model.train(false);
  await same("evaluating");
  expect(recorded).toEqual(["plain", "applied", "training"]);
});
