import type { Shape, Tensor } from "@lowrank/tensor";

/** A scalar repeated over a shape, recorded once for each: most of the hundreds of parameters that it is applied to have few shapes between them. */
export function spread(scalar: Tensor): (shape: Shape) => Tensor {
  const known = new Map<string, Tensor>();
  return (shape) => {
    const key = shape.join();
    let made = known.get(key);
    if (!made) known.set(key, (made = scalar.expand(shape)));
    return made;
  };
}
