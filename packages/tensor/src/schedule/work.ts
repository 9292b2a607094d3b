/** How much planning has done since the process began, for tests: counts, which are the same on every machine. */
export interface PlanningWork {
  /** Nodes looked at, each time. */
  nodes: number;
  /** Kernels lowered, and pairs joined, that no equal one was known of. */
  lowered: number;
  joined: number;
  /** Kernels looked at to fuse, order and lay out. */
  kernels: number;
}

export const work: PlanningWork = { nodes: 0, lowered: 0, joined: 0, kernels: 0 };
