export * from "./index.js";
export { loadAdapter, saveAdapter } from "./peft/node.js";
