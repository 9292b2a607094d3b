export { Dropout, dropout } from "./dropout.js";
export { Embedding } from "./embedding.js";
export { type InitOptions, kaimingNormal, kaimingUniform, normal, uniform } from "./init.js";
export { type FusedPart, type LayerInit, Linear } from "./linear.js";
export { isParameter, Module, parameter, type Wrapper } from "./module.js";
export { LayerNorm, RMSNorm } from "./norm.js";
export { unpack } from "./unpack.js";
