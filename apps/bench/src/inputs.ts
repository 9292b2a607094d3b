import { type Device, type DType, type Tensor, tensor } from "@lowrank/tensor";

/** An input on a device. */
export function inputTensor(device: Device, shape: readonly number[], values: Float32Array | Int32Array, dtype: DType = "f32"): Tensor {
  return tensor(values, { device, shape, dtype });
}
