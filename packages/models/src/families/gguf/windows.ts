import type { GgufField, GgufKey } from "./description.js";
import type { GgufReader } from "./facts.js";

type Json = Readonly<Record<string, unknown>>;

/** What windows are written of. */
interface WindowConfig {
  readonly num_hidden_layers: number;
  readonly sliding_window: number | null;
}

const windowKey = "attention.sliding_window";
const patternKey = "attention.sliding_window_pattern";
const u32 = (value: number | null): GgufField | null => (value === null ? null : { type: "u32", value });

/** Architectures whose windows llama.cpp does not read: there each token sees all before it. */
const windowless: ReadonlySet<string> = new Set(["llama", "phi3", "qwen2", "qwen3", "qwen3moe", "starcoder2"]);

/** The window that a file's metadata has and llama.cpp does not read; null where there is none. */
export function ggufUnreadWindow(metadata: ReadonlyMap<string, GgufField>): number | null {
  const architecture = String(metadata.get("general.architecture")?.value);
  const size = metadata.get(`${architecture}.${windowKey}`)?.value;
  return windowless.has(architecture) && typeof size === "number" && size > 0 ? size : null;
}

/** One window for all layers. `silent`: the one of a file without the key, null for none. */
export function windowOr(silent: (file: GgufReader) => number | null): GgufKey<Pick<WindowConfig, "sliding_window">> {
  return {
    read: (file) => ({ sliding_window: (file.has(windowKey) ? file.count(windowKey) : silent(file)) || null }),
    write: ({ sliding_window: size }) => ({ [windowKey]: u32(size) }),
  };
}

/** One window for all layers; none where the key is absent. */
export const window: GgufKey<Pick<WindowConfig, "sliding_window">> = windowOr(() => null);

/** A window, and for each layer whether it has it. `more`: fields that a config needs for it. */
export function windowPerLayer<Config extends WindowConfig>(
  slides: (config: Config, layer: number) => boolean,
  more: Json = {},
): GgufKey<Config> {
  return {
    read: (file) => {
      const [size, layers] = [file.count(windowKey, 0), file.layerCount()];
      const pattern = file.truths(patternKey, layers);
      if (size === 0) return { sliding_window: null };
      if (!pattern) throw file.wrong(patternKey, undefined, "a truth value for each layer");
      return { ...more, sliding_window: size, layer_types: typesOf(pattern) };
    },
    write: (config) => {
      const pattern = patternOf(config, slides);
      if (config.sliding_window === null || !pattern.some(Boolean)) return {};
      return { [windowKey]: u32(config.sliding_window), [patternKey]: { type: "bool[]", value: pattern } };
    },
  };
}

/** A window in all layers but every n-th, where llama.cpp knows n: it is only written where it is another. */
export function windowButEvery<Config extends WindowConfig>(
  usual: number,
  slides: (config: Config, layer: number) => boolean,
): GgufKey<Config> & { readonly fits: (config: Config) => boolean } {
  const period = (config: Config): number | null => {
    const pattern = patternOf(config, slides);
    const first = pattern.indexOf(false) + 1;
    // Of fewer layers than a period all slide.
    const found = first === 0 ? Math.max(usual, pattern.length + 1) : first;
    return pattern.every((isLocal, layer) => isLocal === ((layer + 1) % found !== 0)) ? found : null;
  };
  return {
    read: (file) => {
      const [size, layers] = [file.count(windowKey, 0), file.layerCount()];
      const every = file.isList(patternKey) ? null : file.count(patternKey, usual);
      const pattern = every === null ? file.truths(patternKey, layers) : null;
      const isLocal = (layer: number): boolean => pattern?.[layer] ?? (layer + 1) % (every || 1) !== 0;
      return {
        sliding_window: size || null,
        layer_types: typesOf(Array.from({ length: layers }, (_, layer) => size > 0 && isLocal(layer))),
      };
    },
    write: (config) => {
      const found = period(config);
      return { [windowKey]: u32(config.sliding_window), [patternKey]: found === usual ? null : u32(found) };
    },
    fits: (config) => period(config) !== null,
  };
}

function patternOf<Config extends WindowConfig>(config: Config, slides: (config: Config, layer: number) => boolean): readonly boolean[] {
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => slides(config, layer));
}

function typesOf(pattern: readonly boolean[]): readonly string[] {
  return pattern.map((isLocal) => (isLocal ? "sliding_attention" : "full_attention"));
}
