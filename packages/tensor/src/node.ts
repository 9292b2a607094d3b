import { setNodeEnvironment } from "./backends/node/environment.js";

setNodeEnvironment();

export { threadCount } from "./backends/cpu/node.js";
export * from "./index.js";
export { fileError, fileSource, makeFolder, nodeFiles, temporaryName, temporaryNames, temporaryOf, writeFileAtomic } from "./io/node.js";
