import { CheckpointError } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { ropeFrequencies } from "../../src/decoder/rope.js";
import { type RotaryConfig, readRope } from "../../src/families/rope.js";

const config: RotaryConfig = {
  hidden_size: 128,
  num_attention_heads: 1,
  head_dim: null,
  max_position_embeddings: 2048,
  rope_theta: null,
  rope_scaling: null,
  rope_parameters: null,
  partial_rotary_factor: null,
  original_max_position_embeddings: null,
};
const frequencies = (fields: Partial<RotaryConfig>): number[] => ropeFrequencies(readRope({ ...config, ...fields }, "config.json"), 128);

describe("rotary frequencies", () => {
  test("theta^(-2i/d), theta from either place of config.json", () => {
    const old = frequencies({ rope_theta: 500000 });
    expect(old[0]).toBe(1);
    expect(old[32]).toBeCloseTo(500000 ** -0.5, 15);
    expect(frequencies({ rope_parameters: { rope_type: "default", rope_theta: 500000 } })).toEqual(old);
    expect(frequencies({ rope_scaling: null })[32]).toBeCloseTo(0.01, 15);
  });
  test("linear divides all by the factor", () => {
    const plain = frequencies({});
    expect(frequencies({ rope_scaling: { type: "linear", factor: 4 } })).toEqual(plain.map((f) => f / 4));
  });
  test("llama3 keeps short waves, stretches long ones and goes smoothly between", () => {
    const plain = frequencies({ rope_theta: 500000 });
    const scaling = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
    const scaled = frequencies({ rope_theta: 500000, rope_scaling: scaling });
    for (const [i, frequency] of plain.entries()) {
      const waves = (8192 * frequency) / (2 * Math.PI);
      const ratio = (scaled[i] ?? 0) / frequency;
      if (waves > 4) expect(ratio).toBe(1);
      else if (waves < 1) expect(ratio).toBeCloseTo(1 / 8, 12);
      else expect(ratio).toBeCloseTo(1 / 8 + ((waves - 1) / 3) * (7 / 8), 12);
    }
    expect(scaled.filter((f, i) => f !== plain[i] && f !== (plain[i] ?? 0) / 8).length).toBeGreaterThan(3);
  });
  test("others are refused by name", () => {
    expect(() => frequencies({ rope_parameters: { rope_type: "spiral" } })).toThrow(CheckpointError);
    expect(() => frequencies({ rope_parameters: { rope_type: "spiral" } })).toThrow(/"spiral", supported are default, linear/);
    expect(() => frequencies({ partial_rotary_factor: 0.5 })).toThrow(/partial_rotary_factor/);
  });
});
