import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import { dense, throughDense } from "./encoder.js";
import { type LstmSizes, lstm, throughLstm } from "./lstm.js";
import type { Method, PlaceContext } from "./method.js";
import {
  checkSize,
  occupying,
  onlyPlace,
  plainSource,
  type VirtualTokenOptions,
  type VirtualTokenPlace,
  type VirtualTokenSource,
  virtualTokenCount,
  virtualTokenMethod,
  virtualTokenPlace,
  virtualTokensFromPeft,
  virtualTokensToPeft,
} from "./virtual-tokens.js";

/** How p-tuning is set up. Names in parentheses are PEFT's. */
export interface PtuningOptions extends VirtualTokenOptions {
  /** What makes the embeddings (`encoder_reparameterization_type`): a perceptron, or a bidirectional LSTM and a perceptron. Default "mlp". */
  readonly encoder: "mlp" | "lstm";
  /** Inner size of the encoder (`encoder_hidden_size`). Default: the model's width. */
  readonly encoderSize: number;
  /** Layers of the LSTM (`encoder_num_layers`); the perceptron has two hidden ones in any case. Default 2. */
  readonly encoderLayers: number;
  /** Share zeroed between the LSTM's layers while training (`encoder_dropout`), in [0, 1). Default 0. */
  readonly encoderDropout: number;
}

const table = "prompt_encoder.embedding.weight";
const mlpHead = "prompt_encoder.mlp_head";
const lstmHead = "prompt_encoder.lstm_head";

/** Three dense layers with ReLU between them. */
function mlpSource({ width }: VirtualTokenPlace, options: PtuningOptions, { generator, warn }: PlaceContext): VirtualTokenSource {
  const { virtualTokens, encoderSize: size } = options;
  if (options.encoderLayers !== 2)
    warn(`encoderLayers is ${options.encoderLayers}, which only an LSTM takes: the perceptron has two hidden layers.`);
  const parameters = {
    [table]: generator.normal([virtualTokens, width]),
    ...dense(`${mlpHead}.0`, width, size, generator),
    ...dense(`${mlpHead}.2`, size, size, generator),
    ...dense(`${mlpHead}.4`, size, width, generator),
  };
  return {
    parameters,
    values: () => {
      const first = throughDense(parameters, `${mlpHead}.0`, parameters[table]).relu();
      return throughDense(parameters, `${mlpHead}.4`, throughDense(parameters, `${mlpHead}.2`, first).relu());
    },
  };
}

/** A bidirectional LSTM over the virtual tokens, then two dense layers with a ReLU between them. */
function lstmSource(place: VirtualTokenPlace, options: PtuningOptions, context: PlaceContext): VirtualTokenSource {
  const { virtualTokens, encoderSize, encoderLayers, encoderDropout } = options;
  const { generator, dropoutGenerator } = context;
  const sizes: LstmSizes = { inputSize: place.width, hiddenSize: encoderSize, layers: encoderLayers };
  const parameters = {
    [table]: generator.normal([virtualTokens, place.width]),
    ...lstm(lstmHead, sizes, generator),
    ...dense(`${mlpHead}.0`, 2 * encoderSize, 2 * encoderSize, generator),
    ...dense(`${mlpHead}.2`, 2 * encoderSize, place.width, generator),
  };
  return {
    parameters,
    values: (isTraining) => {
      const between = (x: Tensor): Tensor => (isTraining ? nn.dropout(x, encoderDropout, dropoutGenerator) : x);
      const states = throughLstm(parameters, lstmHead, sizes, parameters[table], between);
      return throughDense(parameters, `${mlpHead}.2`, throughDense(parameters, `${mlpHead}.0`, states).relu());
    },
  };
}

/**
 * P-tuning (Liu et al. 2021, section 3.2): learned embeddings in front of the text's own, made by an encoder from a table that is trained
 * with it, so that neighbours are not independent. A file holds the embeddings, not the encoder, as PEFT's.
 */
export const ptuning: Method<PtuningOptions, VirtualTokenPlace> = virtualTokenMethod("ptuning", {
  options: (given, model) => {
    const { encoder = "mlp", encoderSize = virtualTokenPlace(model).width, encoderLayers = 2, encoderDropout = 0 } = given;
    if (encoder !== "mlp" && encoder !== "lstm")
      throw new AdapterError(`encoder is "${String(encoder)}". Use "mlp" or "lstm".`, ["encoder"]);
    checkSize("encoderSize", encoderSize);
    checkSize("encoderLayers", encoderLayers);
    if (!(encoderDropout >= 0 && encoderDropout < 1))
      throw new AdapterError(`encoderDropout is ${encoderDropout}. It is a share from 0 up to, but not including, 1.`, ["encoderDropout"]);
    return { virtualTokens: virtualTokenCount(given.virtualTokens, model), encoder, encoderSize, encoderLayers, encoderDropout };
  },
  source: (place, options, context) => {
    if (context.isLoaded) return plainSource(context.generator.normal([options.virtualTokens, place.width]));
    return (options.encoder === "lstm" ? lstmSource : mlpSource)(place, options, context);
  },
  enable: ({ slots }, { virtualTokens: length }, values) => occupying(slots, "prompt", { length, embeddings: values }),
  toPeft: (options, places) => {
    const place = onlyPlace(places);
    return {
      ...virtualTokensToPeft(options, place, place.width, place.heads),
      encoder_dropout: options.encoderDropout,
      encoder_hidden_size: options.encoderSize,
      encoder_num_layers: options.encoderLayers,
      encoder_reparameterization_type: options.encoder.toUpperCase(),
      peft_type: "P_TUNING",
    };
  },
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "P_TUNING") return null;
    const { virtualTokens } = virtualTokensFromPeft(fields);
    const type = fields.peek("encoder_reparameterization_type") ?? "MLP";
    // An unknown one stays, to be refused.
    if (type === "MLP" || type === "LSTM") fields.pass("encoder_reparameterization_type");
    const encoderSize = fields.take<number | undefined>("encoder_hidden_size", z.number(), "a number", undefined);
    return {
      virtualTokens,
      encoder: type === "LSTM" ? "lstm" : "mlp",
      encoderLayers: fields.takeNumber("encoder_num_layers", 2),
      encoderDropout: fields.takeNumber("encoder_dropout", 0),
      ...(encoderSize !== undefined && { encoderSize }),
    };
  },
});
