export { type AdapterInfo, isSoftwareAdapter } from "./adapter.js";
export { createWebgpuBackend, hasRealGpu, WebgpuBackend, type WebgpuOptions } from "./backend.js";
