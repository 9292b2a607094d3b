import { AdapterError, applyAdapter, loadAdapter, saveAdapter } from "@lowrank/lora";
import { device, memoryFiles, mostSteps } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { Pattern, setTimedMatch } from "../src/targeting/pattern.js";
import { TinyModel } from "./tiny.js";

const dev = await device("cpu", { threads: 1 });
const quiet = { onWarning: () => {} };

/** Files of a saved LoRA, with some fields of its configuration changed. */
async function changed(fields: Readonly<Record<string, unknown>>, method: "lora" | "vera" | "adalora" | "ia3" | "oft" = "lora") {
  const files = memoryFiles();
  const targets = ["q_proj"];
  const given = {
    lora: { method: "lora", targets },
    vera: { method: "vera", targets },
    adalora: { method: "adalora", targets, totalSteps: 10 },
    ia3: { method: "ia3", targets, feedforward: [] },
    oft: { method: "oft", targets, blockSize: 4 },
  } as const;
  await saveAdapter(applyAdapter(new TinyModel(dev), given[method]), "a", { files });
  const config = JSON.parse(new TextDecoder().decode(files.files.get("a/adapter_config.json")));
  await files.write("a/adapter_config.json", new TextEncoder().encode(JSON.stringify({ ...config, ...fields })));
  return files;
}

/** Seven ways to cut each place of a name: 7^14 steps for the shortest. */
const endless = `${"(".repeat(6)}[a-z_.0-9]+${")+".repeat(6)}!`;

/** A list in a list, and so on. */
const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);

// The time limit itself, without waiting for it whole.
const timed = setTimedMatch(null);
setTimedMatch(timed && ((source, flags, text, limitMs) => timed(source, flags, text, Math.min(limitMs, 200))));

describe("an adapter_config.json that asks for too much", () => {
  const cases: readonly (readonly [string, Parameters<typeof changed>, RegExp])[] = [
    ["target_modules without end", [{ target_modules: endless }], /not through with the model's names after 2 s/],
    ["exclude_modules without end", [{ exclude_modules: endless }], /exclude: .* not through/],
    [
      "layers_pattern without end",
      [{ target_modules: ["q_proj"], layers_to_transform: [0], layers_pattern: endless }],
      /layersPattern: .* not through/,
    ],
    ["rank_pattern without end", [{ rank_pattern: { [endless]: 4 } }], /pattern: .* not through/],
    ["feedforward_modules without end", [{ feedforward_modules: endless, target_modules: ".*" }, "ia3"], /feedforward: .* not through/],
    [
      "layers_pattern that is no expression",
      [{ target_modules: ["q_proj"], layers_to_transform: [0], layers_pattern: "((" }],
      /layersPattern: .*"\(\(" is not a valid/,
    ],
    ["target_modules that are no expression", [{ target_modules: "((" }], /targets: .*"\(\(" is not a valid/],
    ["brackets that close the frame's own", [{ target_modules: "a)(b" }], /"a\)\(b" is not a valid/],
    ["rank_pattern that is no expression", [{ rank_pattern: { "[": 4 } }], /pattern: .*"\[" is not a valid/],
    ["an expression of a megabyte", [{ target_modules: "a|".repeat(2 ** 19) }], /has 1048576 characters/],
    ["a rank that is an object", [{ r: { toString: 1 } }], /r is \{"toString":1\}, which is not a number/],
    ["a type that is an object", [{ peft_type: { toString: 1 } }], /adapters of type that is no text are not supported/],
    ["target_modules of numbers", [{ target_modules: [1] }], /target_modules is \[1\], which is not a string or a list of strings/],
    ["more levels than a file has", [{ r: nested(200) }], /adapter_config\.json: this is JSON of more than 100 levels/],
    ["half a layer", [{ target_modules: ["q_proj"], layers_to_transform: 0.5 }], /layers_to_transform is 0\.5, which is not a number/],
    [
      "passes over the weights without end",
      [{ init_lora_weights: "pissa_niter_1000000000" }],
      /init_lora_weights: "pissa_niter_1000000000"/,
    ],
    ["a rank beyond the tensors", [{ r: 3145728 }], /rank is 3145728 .* no axis of the tensors is longer than \d+/],
    ["VeRA's rank beyond the tensors", [{ r: 2 ** 31 }, "vera"], /rank is 2147483648/],
    ["AdaLoRA's rank beyond the tensors", [{ init_r: 2 ** 31 }, "adalora"], /initRank is 2147483648/],
    ["OFT's blocks beyond the tensors", [{ oft_block_size: 2 ** 20 }, "oft"], /blockSize is 1048576/],
    ["OFT's series without end", [{ num_cayley_neumann_terms: 5_000_000 }, "oft"], /neumannTerms is 5000000, more than 100/],
    ["VeRA's layers all trained whole", [{ target_modules: ["q_proj"], modules_to_save: ["q_proj"] }, "vera"], /no layer is left for VeRA/],
    ["a rank in rank_pattern beyond the tensors", [{ rank_pattern: { q_proj: 2 ** 27 } }], /tensors differ in shape/],
  ];
  test.each(cases)("%s is refused in a sentence, before anything of that size is made", async (_, given, says) => {
    const files = await changed(...given);
    const model = new TinyModel(dev);
    await Promise.all(model.parameters().map((parameter) => parameter.realize()));
    const before = dev.counters.peakBytes;
    const error: unknown = await loadAdapter(model, "a", { files, ...quiet }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AdapterError);
    expect(String(error)).toMatch(says);
    expect(dev.counters.peakBytes - before).toBeLessThan(2 ** 20);
  });
});

describe("expressions on names", () => {
  const name = "base_model.model.model.layers.31.self_attn.q_proj";
  test.each([
    ["q_proj", true],
    [String.raw`.*\.(q|v)_proj`, true],
    [String.raw`model\.layers\.\d+\.self_attn\.(q_proj|v_proj)`, true],
    [".*(self_attn|mlp).*(q_proj|k_proj)", true],
    ["(?:a{3}){2}", true],
    ["a?b?c?", true],
    [endless, false],
    ["(([a-z_.0-9])+)+!", false],
    ["(a|a)*b", false],
    ["(a*)*", false],
    ["(a?){40}b", false],
    [String.raw`(a+)\1`, false],
    ["a?".repeat(40), false],
    ["(a|a)".repeat(40), false],
    [".*".repeat(6), false],
    ["(?=(a+)+b).*", false],
  ])("%s is told by its form: harmless %s", (source, isHarmless) => {
    expect(mostSteps(source, name.length) <= 1e8).toBe(isHarmless);
  });

  test.each([
    ["a lookahead", "^(?!.*visual).*(?:q_proj|k_proj).*$", true],
    ["a repeated group in a repeated group", String.raw`(?:(?:\w+)\.)*q_proj`, true],
    ["a reference", String.raw`(l)ayers.*|.*(layer)s.*\1?.*`, true],
    ["Python's named group", String.raw`.*layers\.(?P<layer>\d+)\..*`, true],
    ["one that does not fit", String.raw`(?:(?:\w+)\.)*v_proj`, false],
  ])("%s means what it means to JavaScript, under the time limit too", (_, source, isFitting) => {
    expect(new Pattern(source, "targets").test(name)).toBe(isFitting);
  });

  test("where nothing can stop an expression, one that might not end is refused and the others run", () => {
    const before = setTimedMatch(null);
    try {
      expect(new Pattern("^(?!.*visual).*(?:q_proj|k_proj).*$", "targets").test(name)).toBe(true);
      expect(() => new Pattern(endless, "targets").test(name)).toThrow(/may take time without end .* Pass a list of names/);
    } finally {
      setTimedMatch(before);
    }
  });
});
