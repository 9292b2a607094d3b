import type { Command } from "../command.js";
import { combineCommand } from "./combine.js";
import { compareCommand } from "./compare.js";
import { doctorCommand } from "./doctor.js";
import { evalCommand } from "./eval.js";
import { extractCommand } from "./extract.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { mergeCommand } from "./merge.js";
import { planCommand } from "./plan.js";
import { quickstartCommand } from "./quickstart.js";
import { rankStudyCommand } from "./rank-study.js";
import { resizeCommand } from "./resize.js";
import { trainCommand } from "./train.js";

/** Every command, one line each, in the order in which help shows them. */
export const commands: readonly Command[] = [
  quickstartCommand,
  planCommand,
  trainCommand,
  evalCommand,
  compareCommand,
  rankStudyCommand,
  generateCommand,
  mergeCommand,
  combineCommand,
  extractCommand,
  resizeCommand,
  inspectCommand,
  doctorCommand,
];
