import type { Fields } from "./fields.js";
import type { Row } from "./row.js";

/** How rows are read that leave a choice. */
export interface LayoutOptions {
  /** Instructions and questions become messages for the model's chat template, or a prompt of plain text where it has none. */
  readonly asMessages: boolean;
}

/** A way in which people write the same kind of row. */
export interface Layout {
  /** What it is called in a sentence. */
  readonly name: string;
  /** Whether a row is written so, by its fields' names. */
  matches(fields: Fields): boolean;
  /** Throws DataError naming what is wrong with the row. */
  row(fields: Fields, options: LayoutOptions): Row;
}
