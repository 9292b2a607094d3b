/** GPUBufferUsage and GPUMapMode by value: Node has no such globals, and nothing here should set any. */
export const usage = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80, queryResolve: 0x200 } as const;
export const mapRead = 0x1;
