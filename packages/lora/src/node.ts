export * from "./index.js";
export { adapterOutline, loadAdapter, saveAdapter } from "./peft/node.js";
