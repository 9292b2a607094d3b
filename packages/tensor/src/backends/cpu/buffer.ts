import type { BackendBuffer } from "../../graph/backend.js";
import type { PanelLayout } from "./panel-layout.js";

/** Memory of a tensor. */
export class CpuBuffer implements BackendBuffer {
  /** As which panels its matrix lies in it; null where it lies as the tensor says. */
  panels: PanelLayout | null = null;
  /** As which panels the last runs could have read it, and how many in a row. */
  wanted: PanelLayout | null = null;
  runs = 0;
  /** So many such runs in a row make it worth laying out anew. */
  patience = 2;

  constructor(
    readonly bytes: number,
    readonly address: number,
  ) {}
}
