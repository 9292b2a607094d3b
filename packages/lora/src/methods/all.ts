// Every adapter method, one line each: an export's name is the method's.
export { dora } from "./dora.js";
export { lora } from "./lora.js";
