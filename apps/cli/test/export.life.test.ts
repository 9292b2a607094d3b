import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadAdapter } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { device, fileSource, readGguf, tensor } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cardText, peftUse } from "../src/export/card.js";
import { lowrankHere as lowrank, printed, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
const at = (...parts: readonly string[]): string => join(folder, ...parts);
const run = at("run");

beforeAll(async () => {
  const common = [
    "--model",
    model,
    "--data",
    train,
    "--eval-data",
    train,
    "--device",
    "cpu",
    "--steps",
    "4",
    "--batch-size",
    "4",
    "--lr",
    "5e-2",
  ];
  const { code, stderr } = await lowrank(["train", ...common, "--targets", "q_proj,v_proj", "--rank", "2", "--out", run]);
  expect(code, stderr).toBe(0);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const exported = async (...args: readonly string[]): Promise<Record<string, unknown>> => {
  const { code, stdout, stderr } = await lowrank(["export", ...args, "--json"]);
  expect(code, stderr).toBe(0);
  return printed(stdout);
};

/** Logits of the tiny model with an adapter of some folder, or of another model. */
async function logits(from: string, adapter: string | null): Promise<readonly number[]> {
  const dev = await device("cpu", { threads: 1 });
  const { model: loaded } = await loadModel(from, { device: dev, dtype: "f32" });
  if (adapter !== null) await loadAdapter(loaded, adapter, { onWarning: () => {} });
  const values = Array.from(await loaded.forward(tensor([[1, 2, 3, 4]], { dtype: "i32", device: dev })).data());
  dev.dispose();
  return values;
}

/** The bytes of a GGUF file's tensors by name. */
async function tensorsOf(path: string): Promise<Record<string, string>> {
  const file = await readGguf(await fileSource(path));
  const found: Record<string, string> = {};
  for (const name of file.entries.keys()) found[name] = Buffer.from(await file.bytes(name)).toString("hex");
  await file.close();
  return found;
}

function expectClose(found: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(found.length).toBe(expected.length);
  for (const [i, value] of found.entries()) expect(Math.abs(value - (expected[i] ?? 0))).toBeLessThan(tolerance);
}

describe("export", () => {
  test("peft: the adapter with a card of base, settings, losses and evaluation, and no path of this machine", async () => {
    const out = at("peft");
    expect(await exported(run, "--format", "peft", "--out", out)).toMatchObject({ format: "peft", kind: "adapter", base: model });
    expect(readdirSync(out).sort()).toEqual(["README.md", "adapter_config.json", "adapter_model.safetensors"]);
    expect(await logits(model, out)).toEqual(await logits(model, run));
    const card = readFileSync(join(out, "README.md"), "utf8");
    const [, yaml = ""] = /^---\n([\s\S]*?)\n---\n/.exec(card) ?? [];
    expect(yaml.split("\n")).toEqual(["library_name: peft", "pipeline_tag: text-generation", "tags:", "- lowrank", "- lora"]);
    expect(card).toMatch(/\| rank \| 2 \|[\s\S]*## Loss[\s\S]*\| 4 \| \d\.\d{4} \|[\s\S]*## Evaluation on held-out rows/);
    expect(card.split("## Training")[1]).not.toContain(folder);
  });

  test("mlx: what mlx-lm reads is the same adapter, and resizes and exports like any", async () => {
    const out = at("mlx");
    await exported(run, "--format", "mlx", "--out", out);
    expect(readdirSync(out).sort()).toEqual(["adapter_config.json", "adapters.safetensors"]);
    expectClose(await logits(model, out), await logits(model, run), 1e-5);
    const { code, stderr } = await lowrank(["resize", out, "--rank", "1", "--out", at("mlx-small")]);
    expect(code, stderr).toBe(0);
    await exported(out, "--format", "peft", "--out", at("mlx-peft"));
    expectClose(await logits(model, at("mlx-peft")), await logits(model, run), 1e-5);
  });

  test("safetensors: the model with the adapter merged", async () => {
    const out = at("whole");
    expect(await exported(run, "--format", "safetensors", "--out", out)).toMatchObject({ kind: "model" });
    expect(readFileSync(join(out, "README.md"), "utf8")).toContain("library_name: transformers");
    expectClose(await logits(out, null), await logits(model, run), 1e-4);
  });

  test("gguf: the adapter's file, in a folder or under a name; merged, the whole model in each kind", async () => {
    await exported(run, "--format", "gguf", "--out", at("gguf"));
    await exported(run, "--format", "gguf", "--out", at("named.gguf"));
    expect(readFileSync(at("gguf", "adapter.gguf")).length).toBe(readFileSync(at("named.gguf")).length);
    const file = await readGguf(await fileSource(at("named.gguf")));
    expect([file.metadata.get("general.type"), file.metadata.get("general.name"), file.entries.size > 0]).toEqual(["adapter", "run", true]);
    await file.close();
    for (const [type, number] of [
      ["f32", 0],
      ["bf16", 32],
      ["q8_0", 7],
      ["q4_0", 2],
      ["q4_k_m", 15],
    ] as const) {
      const out = at(`whole-${type}.gguf`);
      await exported(run, "--format", "gguf", "--merge", "--type", type, "--out", out);
      const whole = await readGguf(await fileSource(out));
      expect(whole.metadata.get("general.file_type")).toBe(number);
      expect((whole.metadata.get("tokenizer.ggml.tokens") as readonly string[]).length).toBe(
        whole.entries.get("token_embd.weight")?.shape[0],
      );
      await whole.close();
    }
  });

  test("ollama: base, adapter and Modelfile; merged, one model", async () => {
    await exported(run, "--format", "ollama", "--out", at("ollama"));
    expect(readdirSync(at("ollama")).sort()).toEqual(["Modelfile", "adapter.gguf", "model.gguf"]);
    expect(readFileSync(at("ollama", "Modelfile"), "utf8")).toMatch(
      /^FROM \.\/model\.gguf\nADAPTER \.\/adapter\.gguf\n(PARAMETER stop ".+"\n)*$/,
    );
    await exported(run, "--format", "ollama", "--merge", "--type", "q8_0", "--out", at("ollama-merged"));
    expect(readdirSync(at("ollama-merged")).sort()).toEqual(["Modelfile", "model.gguf"]);
  });

  test("ollama --template: a TEMPLATE where one is known or can be made, else a word", async () => {
    const chatty = at("chatty");
    cpSync(model, chatty, { recursive: true });
    const asked = async (template: string | null, out: string): Promise<{ readonly modelfile: string; readonly stderr: string }> => {
      if (template === null) rmSync(join(chatty, "chat_template.jinja"), { force: true });
      else writeFileSync(join(chatty, "chat_template.jinja"), template);
      const { code, stderr } = await lowrank(["export", chatty, "--format", "ollama", "--template", "--out", at(out), "--json"]);
      expect(code, stderr).toBe(0);
      return { modelfile: readFileSync(at(out, "Modelfile"), "utf8"), stderr };
    };
    const own = "{% for m in messages %}[{{ m.role }}] {{ m.content }} ;{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";
    const made = await asked(own, "template-own");
    expect(made.modelfile).toMatch(/TEMPLATE """.*\[user\] \{\{ \.Prompt \}\} ;.*\[assistant\] .*"""\n/s);
    expect(made.stderr).toMatch(/TEMPLATE is made from the model's own/);
    const known = await asked(
      "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}",
      "template-known",
    );
    expect(known.modelfile).toMatch(/TEMPLATE """.*<start_of_turn>.*"""\n(PARAMETER stop ".+"\n)*PARAMETER stop "<end_of_turn>"\n/s);
    for (const [template, out, says] of [
      [null, "template-none", /no TEMPLATE is written: the model has no chat template/],
      ["{{ raise_exception('no') }}", "template-strange", /no TEMPLATE is written: @huggingface\/ollama-utils knows none/],
    ] as const) {
      const { modelfile, stderr } = await asked(template, out);
      expect(stderr).toMatch(says);
      expect(modelfile).not.toContain("TEMPLATE");
    }
  });

  test("from a GGUF base: an adapter that was trained on the file goes every way out", async () => {
    const file = at("base.gguf");
    await exported(model, "--format", "gguf", "--type", "f32", "--out", file);
    const own = at("gguf-run");
    const steps = ["--steps", "2", "--lr", "5e-2", "--targets", "q_proj,k_proj", "--rank", "2", "--device", "cpu"];
    const trained = await lowrank(["train", "--model", file, "--data", train, ...steps, "--out", own]);
    expect(trained.code, trained.stderr).toBe(0);
    const expected = await logits(file, own);
    expect(await exported(own, "--format", "peft", "--out", at("gguf-peft"))).toMatchObject({ base: file });
    expect(await logits(file, at("gguf-peft"))).toEqual(expected);
    const mlx = await lowrank(["export", own, "--format", "mlx", "--out", at("gguf-mlx")]);
    expect(mlx.stdout).toMatch(/mlx_lm\.generate --model base --adapter-path .*\n.*lowrank.* export \S+ --format safetensors --out base\n/);
    expectClose(await logits(file, at("gguf-mlx")), expected, 1e-5);
    // llama.cpp's adapter has q and k in the order of its own base, as the file of the same adapter on the folder has them.
    await exported(own, "--format", "gguf", "--out", at("gguf-adapter.gguf"));
    await exported(own, "--model", model, "--format", "gguf", "--out", at("folder-adapter.gguf"));
    const [one, other] = [await tensorsOf(at("gguf-adapter.gguf")), await tensorsOf(at("folder-adapter.gguf"))];
    expect(one).toEqual(other);
    await exported(own, "--format", "gguf", "--merge", "--type", "f32", "--out", at("gguf-merged.gguf"));
    expectClose(await logits(at("gguf-merged.gguf"), null), expected, 1e-4);
    await exported(own, "--format", "safetensors", "--out", at("gguf-whole"));
    expectClose(await logits(at("gguf-whole"), null), expected, 1e-4);
  }, 120_000);

  test("a card names data sets of the hub, and no path of this machine, however many files were given", () => {
    const settings = { data: "hub:org/rows@main:2, /home/someone/own.jsonl, hub:other/rows" };
    const run = { settings, steps: 1, lines: [] };
    const text = cardText(
      { source: { base: "org/base", license: null, name: "n", path: "n", run }, method: "lora" },
      peftUse("org/base", "n"),
    );
    expect(text).toMatch(/datasets:\n- "?org\/rows"?\n- "?other\/rows"?\n/);
    expect(text).toContain("| data | hub:org/rows@main:2, own.jsonl, hub:other/rows |");
  });

  const cases: readonly (readonly [string, () => string[], RegExp])[] = [
    [
      "a format that is not written, with the way that works",
      () => [run, "--format", "onnx", "--out", at("x")],
      /--format is "onnx", which is not written\. Write --format safetensors and convert that with optimum/,
    ],
    ["an unknown format", () => [run, "--format", "tar", "--out", at("x")], /Choose peft, safetensors, gguf, ollama, mlx/],
    ["no path", () => ["--format", "peft", "--out", at("x")], /takes one run, adapter or model, and got 0/],
    [
      "a model where an adapter is wanted",
      () => [model, "--format", "mlx", "--out", at("x")],
      /is a model, and --format mlx is for adapters\. mlx-lm reads the folder as it is/,
    ],
    ["--template elsewhere", () => [run, "--format", "gguf", "--template", "--out", at("x")], /--template is for --format ollama/],
    ["--merge of a model", () => [model, "--format", "gguf", "--merge", "--out", at("x")], /--merge is for adapters/],
    ["a folder that holds files", () => [run, "--format", "peft", "--out", model], /already holds files/],
    ["a file that is there", () => [run, "--format", "gguf", "--out", at("there.gguf")], /is there and is not a file that --out wrote/],
    ["the run itself", () => [run, "--format", "peft", "--out", run], /--out is .*run, which is read as well/],
    ["what is nothing", () => [at("none"), "--format", "peft", "--out", at("x")], /none/],
    [
      "an adapter that does not say its base",
      () => [at("baseless"), "--format", "peft", "--out", at("x")],
      /the adapter does not say which model it is for\. Add --model/,
    ],
    [
      "an adapter whose base is gone",
      () => [at("orphan"), "--format", "peft", "--out", at("x")],
      /is an adapter for "gone\/model\/here", which cannot be opened.* Add --model with its base/,
    ],
  ];
  test.each(cases)("%s ends with 2 and a sentence, and writes nothing", async (_, args, says) => {
    writeFileSync(at("there.gguf"), "GGUF");
    for (const [name, base] of [
      ["baseless", null],
      ["orphan", "gone/model/here"],
    ] as const) {
      mkdirSync(at(name), { recursive: true });
      const config = JSON.parse(readFileSync(join(run, "adapter_config.json"), "utf8"));
      writeFileSync(at(name, "adapter_config.json"), JSON.stringify({ ...config, base_model_name_or_path: base }));
      writeFileSync(at(name, "adapter_model.safetensors"), readFileSync(join(run, "adapter_model.safetensors")));
    }
    const { code, stderr } = await lowrank(["export", ...args()]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(says)]);
    expect(existsSync(at("x"))).toBe(false);
  });
});
