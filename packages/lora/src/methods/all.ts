// Every adapter method, one line each: an export's name is the method's.
export { adalora } from "./adalora.js";
export { bitfit } from "./bitfit.js";
export { dora } from "./dora.js";
export { houlsby } from "./houlsby.js";
export { ia3 } from "./ia3.js";
export { loha } from "./loha.js";
export { lokr } from "./lokr.js";
export { lora } from "./lora.js";
export { miss } from "./miss.js";
export { norms } from "./norms.js";
export { oft } from "./oft.js";
export { parallel } from "./parallel.js";
export { pfeiffer } from "./pfeiffer.js";
export { prefix } from "./prefix.js";
export { prompt } from "./prompt.js";
export { ptuning } from "./ptuning.js";
export { ptuningV2 as "ptuning-v2" } from "./ptuning-v2.js";
export { vera } from "./vera.js";
