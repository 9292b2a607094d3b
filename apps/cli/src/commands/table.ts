import type { Command } from "../command.js";

/** Every command, one line each, in the order in which help shows them. Each is loaded, with all that it stands on, when it is wanted. */
export const commands: Readonly<Record<string, () => Promise<Command>>> = {
  quickstart: async () => (await import("./quickstart.js")).quickstartCommand,
  data: async () => (await import("./data.js")).dataCommand,
  plan: async () => (await import("./plan.js")).planCommand,
  tune: async () => (await import("./tune.js")).tuneCommand,
  train: async () => (await import("./train.js")).trainCommand,
  eval: async () => (await import("./eval.js")).evalCommand,
  compare: async () => (await import("./compare.js")).compareCommand,
  "rank-study": async () => (await import("./rank-study.js")).rankStudyCommand,
  generate: async () => (await import("./generate.js")).generateCommand,
  chat: async () => (await import("./chat.js")).chatCommand,
  merge: async () => (await import("./merge.js")).mergeCommand,
  export: async () => (await import("./export.js")).exportCommand,
  push: async () => (await import("./push.js")).pushCommand,
  combine: async () => (await import("./combine.js")).combineCommand,
  extract: async () => (await import("./extract.js")).extractCommand,
  resize: async () => (await import("./resize.js")).resizeCommand,
  inspect: async () => (await import("./inspect.js")).inspectCommand,
  models: async () => (await import("./models.js")).modelsCommand,
  doctor: async () => (await import("./doctor.js")).doctorCommand,
};
