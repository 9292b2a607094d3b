// Every adapter method, one line each: an export's name is the method's.
export { adalora } from "./adalora.js";
export { bitfit } from "./bitfit.js";
export { dora } from "./dora.js";
export { ia3 } from "./ia3.js";
export { loha } from "./loha.js";
export { lokr } from "./lokr.js";
export { lora } from "./lora.js";
export { norms } from "./norms.js";
export { oft } from "./oft.js";
export { vera } from "./vera.js";
