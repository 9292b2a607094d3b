import { CheckpointError, type Device, largest } from "@lowrank/tensor";
import type { ParameterSpec } from "../parameters.js";
import { shown } from "../schema.js";
import { type Family, parametersIn, type ReadConfig } from "./family.js";
import { families } from "./table.js";

/** A config.json with the family that reads it. */
export interface FamilyConfig extends ReadConfig {
  readonly family: Family;
}

/**
 * Reads a config.json. Throws CheckpointError naming the family where it is not supported, with those that are, and the fields that are
 * wrong.
 */
export function readFamily(json: Readonly<Record<string, unknown>>, path: string): FamilyConfig {
  const type = json["model_type"];
  const names = Array.isArray(json["architectures"]) ? json["architectures"] : [];
  const found = typeof type === "string" && Object.hasOwn(families, type) ? families[type] : undefined;
  const supported = Object.entries(families)
    .map(([key, { className }]) => `${key} (${className})`)
    .join(", ");
  if (type === undefined)
    throw new CheckpointError(`${path}: "model_type" is missing. It names the architecture; supported are ${supported}.`, path);
  if (!found) {
    const name = [shown(type), ...names.slice(0, 3).map((item) => (typeof item === "string" ? item : shown(item)))].join(" / ");
    throw new CheckpointError(`${path}: the architecture ${name} is not supported. Use a checkpoint of ${supported}.`, path);
  }
  return { family: found, ...found.read(json, path, String(type)) };
}

/** Layers, numbers and numbers along an axis that a model may have of which there are no tensors; the largest models published have some hundred and 10^12. */
const most = { layers: 4096, numbers: 1e14, axis: 2 ** 24 };

/**
 * The parameters of a config that no tensors stand beside: for planning, and for models that begin with random weights.
 * Throws CheckpointError for sizes far above any model's, before anything of that size is made.
 */
export function boundedParameters(read: ReadConfig, path: string, device: Device): Map<string, ParameterSpec> {
  const tooLarge = (fact: string): CheckpointError =>
    new CheckpointError(`${path}: ${fact}, which no model has. Correct the sizes in the file or fetch it again.`, path);
  const layers = read.options.layers.count;
  if (layers > most.layers) throw tooLarge(`it asks for ${layers} layers`);
  const parameters = parametersIn(read, device);
  let numbers = 0;
  for (const [name, { shape }] of parameters) {
    const longest = largest(shape);
    if (longest > most.axis) throw tooLarge(`it asks for ${name} of ${shape.join(" x ")} numbers`);
    numbers += shape.reduce((product, size) => product * size, 1);
  }
  if (numbers > most.numbers) throw tooLarge(`it asks for ${numbers.toPrecision(3)} parameters`);
  return parameters;
}
