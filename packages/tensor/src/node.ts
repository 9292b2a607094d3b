import { setNodeEnvironment } from "./backends/node/environment.js";

setNodeEnvironment();

export * from "./index.js";
export { fileSource, makeFolder, nodeFiles, temporaryName, temporaryOf, writeFileAtomic } from "./io/node.js";
