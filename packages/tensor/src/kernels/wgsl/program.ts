import type { ProgramFunctions } from "./functions.js";
import type { ProgramMemory, WgslBinding } from "./memory.js";

/** A WGSL compute program with what it binds and how many workgroups it takes. */
export interface WgslProgram {
  readonly kind: "program";
  readonly name: string;
  readonly code: string;
  readonly bindings: readonly WgslBinding[];
  readonly workgroups: readonly [number, number, number];
  /** Whether the text depends on where slots lie in the arena: some had to share a binding. */
  readonly usesPlaces: boolean;
}

/** What decides between variants of a kernel. */
export interface Target {
  readonly maxBindingBytes: number;
  readonly maxBindings: number;
  readonly maxInvocations: number;
  /** Bytes of memory that a workgroup can share. */
  readonly maxWorkgroupBytes: number;
  readonly maxWorkgroupsPerDimension: number;
  /** A CPU that pretends to be a GPU: few threads, no cost for scattered loads beyond their number, barriers dear. */
  readonly isSoftware: boolean;
  /** Lanes of each subgroup; 0 where they differ, or programs may not exchange values between lanes. */
  readonly subgroupSize: number;
}

/** How many workgroups in x and y cover `count`; a dimension holds 65,535. */
export function foldWorkgroups(count: number, target: Target): { x: number; y: number } {
  const most = target.maxWorkgroupsPerDimension;
  if (count <= most) return { x: Math.max(count, 1), y: 1 };
  const y = Math.ceil(count / most);
  return { x: Math.ceil(count / y), y };
}

/** Puts a program's text together; `body` sees `group` (a flat workgroup number), `local` and, with subgroups, `lane`. */
export function assemble(parts: {
  readonly name: string;
  readonly memory: ProgramMemory;
  readonly functions: ProgramFunctions;
  readonly workgroupSize: readonly [number, number];
  readonly workgroups: { readonly x: number; readonly y: number; readonly z?: number };
  readonly directives?: readonly string[];
  readonly globals?: readonly string[];
  readonly usesSubgroups?: boolean;
  readonly body: readonly string[];
}): WgslProgram {
  const { memory, functions, workgroupSize, workgroups } = parts;
  const declarations = memory.declarations();
  const { usesSubgroups = false } = parts;
  const laneParameter = usesSubgroups ? ", @builtin(subgroup_invocation_id) subgroupLane: u32" : "";
  const code = [
    usesSubgroups ? "enable subgroups;" : "",
    ...(parts.directives ?? []),
    declarations,
    memory.conversions(),
    functions.declarations(),
    ...(parts.globals ?? []),
    `@compute @workgroup_size(${workgroupSize[0]}, ${workgroupSize[1]})`,
    `fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_id) local: vec3u${laneParameter}) {`,
    usesSubgroups ? "let lane = i32(subgroupLane);" : "",
    workgroups.y === 1 ? "let group = i32(workgroup.x);" : `let group = i32(workgroup.x + workgroup.y * ${workgroups.x}u);`,
    ...parts.body,
    "}",
  ]
    .filter((line) => line !== "")
    .join("\n");
  return {
    kind: "program",
    name: parts.name,
    code,
    bindings: memory.bindings,
    workgroups: [workgroups.x, workgroups.y, workgroups.z ?? 1],
    usesPlaces: memory.usesPlaces,
  };
}
