// What llama.cpp's own converter makes of test/goldens-families (convert_hf_to_gguf.py --outtype f32 of August 2026, with its vocabulary's step left out):
// metadata with its types, and each tensor's shape and the digest of its bytes. What we file is the same, but for what the tables below say.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel } from "@lowrank/models";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { familyCases } from "./family.js";
import { configOf, contentOf } from "./gguf.js";

interface Converted {
  readonly metadata: Readonly<Record<string, readonly [type: string, value: unknown]>>;
  readonly tensors: Readonly<Record<string, readonly [shape: readonly number[], digest: string]>>;
}

const converted = JSON.parse(readFileSync(fileURLToPath(new URL("./goldens-gguf/converted.json", import.meta.url)), "utf8")) as Readonly<
  Record<string, Converted>
>;

const types: Readonly<Record<string, string>> = {
  u32: "UINT32",
  f32: "FLOAT32",
  bool: "BOOL",
  string: "STRING",
  "i32[]": "INT32[]",
  "f32[]": "FLOAT32[]",
  "bool[]": "BOOL[]",
};

/** Keys and tensors that we write and the converter does not, or otherwise. */
const more: readonly (readonly [why: string, names: RegExp])[] = [
  ["θ, which the converter leaves out where it is 10000 or believes so", /\.rope\.freq_base$/],
  [
    "windows of families for which llama.cpp has none, for our own reader",
    /^(llama|qwen2|qwen3|starcoder2)\.attention\.sliding_window(_pattern)?$/,
  ],
  ["windows that return otherwise than llama.cpp believes", /^(gemma3|cohere2)\.attention\.sliding_window_pattern$/],
  ["a cap of 0, where llama.cpp has one of its own", /^gemma4\.final_logit_softcapping$/],
  ["what cosines and sines are multiplied by beyond the usual", /\.rope\.scaling\.attn_factor$/],
  [
    "factors of long texts, which it files for Phi-3 alone",
    /^rope_factors_(long|short)\.weight$|^llama\.rope\.scaling\.original_context_length$/,
  ],
];

/** What differs in a case. */
const otherwise: Readonly<Record<string, readonly (readonly [why: string, names: RegExp])[]>> = {
  gemma2: [["query_pre_attn_scalar, which it drops, is in the queries", /attn_q\.weight$/]],
  gemma3_text: [["query_pre_attn_scalar, which it drops, is in the queries' norm", /attn_q_norm\.weight$/]],
  gemma4_text: [["its AutoConfig drops the heads of layers without a window", /head_count_kv$/]],
  granitemoehybrid: [["it knows a layer with attention by the word attention alone", /^blk\.1\.attn_[qk]\.weight$/]],
  qwen3_5: [
    ["the interval is that of layer_types", /full_attention_interval$/],
    ["sections of more pairs than turn end llama.cpp's process", /rope\.dimension_sections$/],
  ],
  qwen3_5_text: [
    ["the interval is that of layer_types", /full_attention_interval$/],
    ["sections of more pairs than turn end llama.cpp's process", /rope\.dimension_sections$/],
  ],
};

/** Numbers that are rounded in another order: of e^x and of powers. */
const rounded = /^rope_freqs\.weight$|\.ssm_a$/;

test.each(familyCases.filter(({ name }) => name.startsWith("own/") && converted[name.slice(4)]))("$name", async ({ name, folder }) => {
  const { model } = await loadModel(join(folder, "model"), { device: await testDevice() });
  const { metadata, tensors } = converted[name.slice(4)] as Converted;
  const isAllowed = (found: string): boolean => (otherwise[name.slice(4)] ?? []).some(([, names]) => names.test(found));
  const problems: string[] = [];
  const content = await contentOf(model, configOf(model), true);
  for (const [key, { type, value }] of content.metadata) {
    const [wantedType, wanted] = metadata[key] ?? [];
    const own = Array.isArray(value) ? value : type === "f32" ? Math.fround(value) : value;
    if (wantedType === undefined && !more.some(([, names]) => names.test(key))) problems.push(`${key} is more`);
    if (wantedType !== undefined && !isAllowed(key) && (types[type] !== wantedType || JSON.stringify(own) !== JSON.stringify(wanted)))
      problems.push(`${key} is ${types[type]} ${JSON.stringify(own)}, not ${wantedType} ${JSON.stringify(wanted)}`);
  }
  if (content.metadata.size > 0)
    problems.push(...Object.keys(metadata).flatMap((key) => (content.metadata.has(key) || isAllowed(key) ? [] : [`${key} is missing`])));
  for (const [found, { shape, values }] of content.tensors) {
    const [wantedShape, wanted] = tensors[found] ?? [];
    const digest = createHash("sha256")
      .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
      .digest("hex")
      .slice(0, 12);
    if (!wantedShape && !more.some(([, names]) => names.test(found))) problems.push(`${found} is more`);
    if (wantedShape && `${shape}` !== `${wantedShape}`) problems.push(`${found} has the shape ${shape}, not ${wantedShape}`);
    if (wantedShape && digest !== wanted && !rounded.test(found) && !isAllowed(found)) problems.push(`${found} has other bytes`);
  }
  problems.push(...Object.keys(tensors).flatMap((found) => (content.tensors.has(found) ? [] : [`${found} is missing`])));
  model.dispose();
  expect(problems).toEqual([]);
});
