/**
 * The rows of a table that this run takes: all of them, or with LOWRANK_TEST_SHARE=N one in N, drawn by LOWRANK_GOLDEN_SEED and the row's name, and
 * never none. For tables of whole models and the like, of which a software adapter compiles many programs a row; the cpu runs them all.
 */
export function inShare<Row>(rows: readonly Row[], nameOf: (row: Row) => string): readonly Row[] {
  const share = Number(process.env["LOWRANK_TEST_SHARE"] ?? 1);
  const chosen = rows.filter((row) => drawnIndex(nameOf(row), share) === 0);
  return chosen.length > 0 ? chosen : rows.slice(0, 1);
}

/** A number below `count`, out of LOWRANK_GOLDEN_SEED and a name (FNV-1a, then a mixer of murmur3). */
export function drawnIndex(name: string, count: number): number {
  let state = 0x811c9dc5;
  for (const unit of `${process.env["LOWRANK_GOLDEN_SEED"] ?? "0"} ${name}`)
    state = Math.imul(state ^ (unit.codePointAt(0) ?? 0), 0x01000193);
  state = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
  return ((state ^ (state >>> 13)) >>> 0) % count;
}

/**
 * The rows of a table of which the two software adapters take half each where both run (LOWRANK_TEST_SHARE above 1), so that each row meets one of
 * them: drawn by LOWRANK_GOLDEN_SEED and the row's name. Elsewhere, and on other devices, all of them.
 */
export function inTurn<Row>(rows: readonly Row[], nameOf: (row: Row) => string): readonly Row[] {
  const turn = ["swiftshader", "lavapipe"].indexOf(process.env["LOWRANK_TEST_BACKEND"] ?? "");
  if (turn < 0 || Number(process.env["LOWRANK_TEST_SHARE"] ?? 1) === 1) return rows;
  return rows.filter((row) => drawnIndex(nameOf(row), 2) === turn);
}
