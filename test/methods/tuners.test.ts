// Slow: training steps of whole models, planned case by case.
// Methods that are not LoRA, held to PEFT's values: AdaLoRA, VeRA, LoHa, LoKr, OFT, IA3, norms and biases.
import { describe } from "vitest";
import { casesInShare, methodCases, testAdapter } from "../golden.js";

const tuners: ReadonlySet<string> = new Set(["IA3", "LN_TUNING", "BITFIT", "VERA", "LOHA", "LOKR", "OFT", "MISS", "ADALORA"]);
const cases = methodCases.filter(({ settings }) => tuners.has(settings.method ?? ""));

describe.each(casesInShare(cases))("$name", testAdapter);
