import { maxTileRows, type PanelHeight, panelWidth } from "../../kernels/wasm/matmul.js";
import { roundUp } from "./round.js";

/** Columns of a tile at most: each tile packs its rows anew, which many columns pay back. */
const maxTileColumns = 1024;

/** How a product is cut into tiles: how many along the rows, and how many columns each has. */
interface Tiling {
  readonly rowTiles: number;
  readonly columns: number;
}

/** Of more than one, an even number: a thread's share is then whole columns or whole tiles, and threads, mostly 2, 4 or 8, end together. */
const evenly = (count: number): number => (count > 1 ? roundUp(count, 2) : 1);

/**
 * Tiles large enough to reuse what is packed, small enough that threads finish together. Those of the same columns follow one another, so
 * that a thread's share of them reads mostly what its share of the packing of b has written.
 */
export function tiling(m: number, n: number, height: PanelHeight, least: number): Tiling {
  const panels = Math.ceil(m / height);
  let rowTiles = Math.min(panels, evenly(Math.ceil(m / maxTileRows(height))));
  let columns = roundUp(n / evenly(Math.ceil(n / maxTileColumns)), panelWidth);
  while (rowTiles * Math.ceil(n / columns) < least) {
    const rows = Math.ceil(panels / rowTiles) * height;
    if (columns > 32 && columns >= rows && rows <= 20) columns = roundUp(columns / 2, panelWidth);
    else if (rows > 16) rowTiles = Math.min(panels, rowTiles * 2);
    else break;
  }
  return { rowTiles, columns };
}
