import { compile, type Device, smallest, type Tensor, tensor } from "@lowrank/tensor";
import { alternate, side } from "../timing.js";
import { Crew } from "./crew.js";
import { triadModule, triadStep } from "./module.js";

/** Billion bytes a second. */
export interface Bandwidth {
  readonly gbps: number;
  readonly detail: string;
}

/** Each array is larger than a desktop's last cache. */
const arrayBytes = 2 ** 26;

/** Memory bandwidth by STREAM's triad (McCalpin 1995) in WebAssembly SIMD: two arrays read, one written, 64 MiB each, shared out to the threads; the best round. */
export async function wasmBandwidth(threads: number): Promise<Bandwidth> {
  const pages = Math.ceil((3 * arrayBytes) / 65536) + 1;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
  const turns = Math.floor(arrayBytes / triadStep / threads);
  const args = Array.from({ length: threads }, (_, thread) => {
    const start = thread * turns * triadStep;
    return [start, arrayBytes + start, 2 * arrayBytes + start, turns];
  });
  const crew = new Crew(triadModule(), args, memory);
  const [timing] = await alternate([{ name: "triad", run: (count) => crew.run(count) }], { rounds: 7, seconds: 0.1 });
  await crew.end();
  const bytes = 3 * turns * threads * triadStep;
  return {
    gbps: timing ? bytes / smallest(timing.samples) / 1e9 : 0,
    detail: `triad over 3 x 64 MiB, ${threads} thread${threads === 1 ? "" : "s"}`,
  };
}

const adapterElements = 2 ** 24;

/** The same for a WebGPU adapter, as one fused kernel of this engine. */
export async function adapterBandwidth(device: Device): Promise<Bandwidth> {
  const [b, c] = [1, 2].map((value) => tensor(new Float32Array(adapterElements).fill(value), { device })) as [Tensor, Tensor];
  const kernel = compile((left: Tensor, right: Tensor) => left.add(right.mul(3)));
  const [timing] = await alternate(
    [
      side(
        "triad",
        () => kernel(b, c).dispose(),
        () => device.finish(),
      ),
    ],
    { rounds: 5, seconds: 0.1 },
  );
  kernel.dispose();
  for (const t of [b, c]) t.dispose();
  return { gbps: timing ? (3 * 4 * adapterElements) / smallest(timing.samples) / 1e9 : 0, detail: "triad over 3 x 64 MiB" };
}
