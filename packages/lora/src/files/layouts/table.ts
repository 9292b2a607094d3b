import type { AdapterLayout } from "./layout.js";
import { mlxLayout } from "./mlx.js";
import { peftLayout } from "./peft.js";

/** Every layout; the first that a configuration is of counts. */
export const adapterLayouts: readonly AdapterLayout[] = [mlxLayout, peftLayout];
