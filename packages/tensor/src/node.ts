import { setNodeEnvironment } from "./backends/node/environment.js";

setNodeEnvironment();

export * from "./index.js";
export { fileError, fileSource, makeFolder, nodeFiles, temporaryName, temporaryNames, temporaryOf, writeFileAtomic } from "./io/node.js";
