import { isHubId } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";

/** The file of a model's card. */
export const cardName = "README.md";

/** What a card says. */
export interface CardFacts {
  readonly title: string;
  /** The base: its name on the hub, or a path, which only the text names. */
  readonly baseModel: string;
  /** What it is to the base, in the hub's words. */
  readonly relation: "adapter" | "finetune" | "merge" | "quantized";
  readonly libraryName: "transformers" | "peft" | "mlx" | "gguf" | "transformers.js";
  /** The base's, by the hub's names; null where it is not known. */
  readonly license: string | null;
  readonly tags?: readonly string[];
  /** Names of data sets of the hub; what is no such name is left out. */
  readonly datasets?: readonly string[];
  /** Below the title, in Markdown. */
  readonly lead: string;
  readonly sections: readonly { readonly heading: string; readonly body: string }[];
}

/** A model card: YAML that the hub accepts, and Markdown. */
export function modelCard({
  title,
  baseModel,
  relation,
  libraryName,
  license,
  tags = [],
  datasets = [],
  lead,
  sections,
}: CardFacts): string {
  const list = (name: string, values: readonly string[]): string[] =>
    values.length === 0 ? [] : [`${name}:`, ...values.map((value) => `- ${quoted(value)}`)];
  const isOnHub = (name: string): boolean => name.includes("/") && isHubId(name);
  const yaml = [
    ...(isOnHub(baseModel) ? [`base_model: ${quoted(baseModel)}`, `base_model_relation: ${relation}`] : []),
    `library_name: ${libraryName}`,
    ...(license === null ? [] : [`license: ${quoted(license)}`]),
    "pipeline_tag: text-generation",
    ...list("datasets", datasets.filter(isOnHub)),
    ...list("tags", ["lowrank", ...tags]),
  ];
  const text = [`# ${title}`, lead, ...sections.flatMap(({ heading, body }) => [`## ${heading}`, body])];
  return `---\n${yaml.join("\n")}\n---\n\n${text.join("\n\n")}\n`;
}

/** A scalar of YAML: as it stands where it cannot be read as anything else. */
function quoted(value: string): string {
  return /^[A-Za-z][\w./-]*$/.test(value) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(value) ? value : JSON.stringify(value);
}

/** The license that the card of a folder's model names; null where there is no card, or none is named. */
export async function licenseOf(folder: string): Promise<string | null> {
  const source = await nodeFiles.open(nodeFiles.join(folder, cardName)).catch(() => null); // an address has none
  if (!source) return null;
  try {
    const text = new TextDecoder().decode(await source.read(0, Math.min(source.byteLength, 2 ** 16)));
    const [, yaml = ""] = /^---\r?\n([\s\S]*?)\r?\n---/.exec(text) ?? [];
    const [, license = ""] = /^license:[ \t]*["']?([\w.-]+)["']?[ \t]*$/m.exec(yaml) ?? [];
    return license === "" ? null : license;
  } finally {
    await source.close?.();
  }
}
