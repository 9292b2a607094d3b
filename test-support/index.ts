export { newDevice, type TestBackend, testBackend, testDevice } from "./device.js";
export { gitBlob, type HubFault, type HubRequest, sha256, TestHub } from "./hub.js";
export { expectSameLists, expectSameNumbers } from "./numbers.js";
export { pythonWith, pythonWithPeft } from "./python.js";
export { drawnIndex, inShare, inTurn } from "./share.js";
export { sharedDir, skipReason } from "./shared.js";
export { smollm2 } from "./smollm2.js";
