export * as nn from "./nn/index.js";
export * as optim from "./optim/index.js";
export { checkpoint } from "./vjp/checkpoint.js";
export { grad, type ValueAndGrad, valueAndGrad } from "./vjp/grad.js";
