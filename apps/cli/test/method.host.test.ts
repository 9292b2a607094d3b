import { type AdaptableModel, methods } from "@lowrank/lora";
import { initModel } from "@lowrank/models";
import { device } from "@lowrank/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { parseFlags } from "../src/flags.js";
import { methodFlags, methodNames, methodOptions, optionSettings, refuseMethodFlags } from "../src/method.js";

const dev = await device("cpu", { threads: 1 });
afterAll(() => dev.dispose());
const model: AdaptableModel = await initModel(
  { model_type: "llama", vocab_size: 16, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2 },
  { device: dev, seed: 1 },
);

const optionsOf = (method: string, ...args: string[]): Readonly<Record<string, unknown>> => {
  const { values, given } = parseFlags(methodFlags, args, "train");
  return methodOptions(method, model, values, given);
};

describe("methodOptions", () => {
  it("names every method of the library and full fine-tuning", () => {
    for (const name of [...Object.keys(methods), "full"]) expect(methodNames).toContain(name);
  });
  it.each([
    ["nothing given: alpha 16 and all dense layers, all else the method's own", [], { alpha: 16, targets: "all-linear" }],
    [
      "general flags",
      ["--rank", "4", "--dropout", "0.1", "--rslora"],
      { alpha: 16, targets: "all-linear", rank: 4, dropout: 0.1, rslora: true },
    ],
    ["targets as a list", ["--targets", "q_proj,v_proj"], { alpha: 16, targets: ["q_proj", "v_proj"] }],
    ["all-linear as the library's word", ["--targets", "all-linear"], { alpha: 16, targets: "all-linear" }],
    [
      "--set with JSON, a word, twice",
      ["--set", 'rankPattern={"q_proj":2}', "--set=layers=[0]"],
      { alpha: 16, targets: "all-linear", rankPattern: { q_proj: 2 }, layers: [0] },
    ],
    ["--set with a plain word", ["--set", "init=gaussian"], { alpha: 16, targets: "all-linear", init: "gaussian" }],
  ])("%s", (_, args, wanted) => {
    expect(optionsOf("lora", ...args)).toEqual(wanted);
  });
  it("refuses a flag that means nothing to the method, by name", () => {
    expect(() => optionsOf("lora", "--virtual-tokens", "8")).toThrow(/--virtual-tokens means nothing to the method lora.*rank/s);
    expect(() => refuseMethodFlags(new Set(["rank", "alpha"]))).toThrow(/--rank, --alpha set an adapter up/);
    expect(() => parseFlags(methodFlags, ["--set", "rank"], "train")).toThrow(/--set is "rank"/);
  });
  it("turns options into settings that can be compared", () => {
    expect(optionSettings({ rank: 4, targets: ["q", "v"], rankPattern: { q: 2 } })).toEqual({
      rank: 4,
      targets: "q,v",
      rankPattern: '{"q":2}',
    });
  });
});
