import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Side } from "../timing.js";

/** Other engines that do the same work, each a program of its own beside this file. */
const programs = ["tfjs-wasm", "tfjs-webgpu", "jax-wasm", "jax-webgpu", "onnx-wasm"] as const;

/** A peer's name; "pytorch" runs in the interpreter that LOWRANK_PYTHON names. */
export type PeerName = (typeof programs)[number] | "pytorch";

/** A task as all peers know it; the sizes are those of its family. */
export type Task = { readonly task: string } & Readonly<Record<string, number | string | boolean>>;

/** A task that a peer has made ready. */
export interface Prepared {
  /** Values of the result at `samplePositions(size)`, or a step's first losses. */
  readonly sample: readonly number[];
  readonly side: Side;
}

/** A sentence on why something is not measured. */
export interface Skipped {
  readonly skipped: string;
}

/** Milliseconds that a peer may take for one answer; compiling and first runs are slow. */
const patienceMs = 180_000;

/** How a peer's program is started; null when it is not there. */
function commandOf(name: PeerName): readonly [command: string, ...args: string[]] | null {
  if (name === "pytorch") {
    const python = process.env["LOWRANK_PYTHON"];
    const script = fileURLToPath(new URL("../../python/peer.py", import.meta.url));
    return python !== undefined && python !== "" && existsSync(script) ? [python, script] : null;
  }
  const program = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
  return existsSync(program) ? [process.execPath, program] : null;
}

/** The peers whose programs are there. Whether what they need is installed, each says when it is opened. */
export function installedPeers(): PeerName[] {
  return ([...programs, "pytorch"] as const).filter((name) => commandOf(name) !== null);
}

/** A peer's process. One question at a time; each is a line of JSON, and so is the answer. */
export class Peer {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #errors: string[] = [];

  private constructor(
    readonly name: PeerName,
    command: readonly [string, ...string[]],
  ) {
    const [program, ...args] = command;
    this.#child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.on("error", (error) => this.#errors.push(error.message));
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      this.#errors.push(chunk.toString());
      if (this.#errors.length > 50) this.#errors.shift();
    });
    // A pipe that breaks shows as a missing answer.
    this.#child.stdin?.on("error", () => {});
    if (!this.#child.stdout) throw new Error("A child process has no stdout.");
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Version and build as the peer tells them. */
  description = "";

  /** Starts a peer and asks it what it is. */
  static async open(name: PeerName, threads: number): Promise<Peer | Skipped> {
    const command = commandOf(name);
    if (!command) return { skipped: name === "pytorch" ? "LOWRANK_PYTHON names no interpreter" : "not built" };
    const peer = new Peer(name, command);
    const answer = await peer.#ask({ open: { threads } });
    if (isSkipped(answer)) {
      peer.end();
      return answer;
    }
    peer.description = [answer["name"] ?? name, answer["version"], answer["detail"]].filter((part) => part !== undefined).join(" ");
    return peer;
  }

  /** Makes a task ready. The values it starts from are those of inputs.ts. */
  async prepare(task: Task): Promise<Prepared | Skipped> {
    const answer = await this.#ask({ prepare: task });
    if (isSkipped(answer)) return answer;
    const sample = Array.isArray(answer["sample"]) ? answer["sample"].map(Number) : [];
    return {
      sample,
      side: {
        name: this.name,
        run: async (count) => {
          const result = await this.#ask({ run: count });
          if (isSkipped(result)) throw new Error(`${this.name}: ${result.skipped}`);
          return Number(result["seconds"]);
        },
      },
    };
  }

  /** Ends the process. */
  end(): void {
    this.#child.stdin?.end('{"close":true}\n');
    setTimeout(() => this.#child.kill("SIGKILL"), 1000).unref();
    this.#child.unref();
  }

  async #ask(question: object): Promise<Record<string, unknown>> {
    this.#child.stdin?.write(`${JSON.stringify(question)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), patienceMs);
    });
    try {
      for (;;) {
        const line = await Promise.race([this.#lines.next(), timeout]);
        if (line === "late") {
          this.#child.kill("SIGKILL");
          return { skipped: `no answer in ${patienceMs / 1000} s` };
        }
        if (line.done) return { skipped: `it ended: ${this.#lastError()}` };
        // Libraries print to stdout too.
        if (line.value.startsWith("{")) return JSON.parse(line.value) as Record<string, unknown>;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #lastError(): string {
    const lines = this.#errors.join("").trim().split("\n");
    return (lines.at(-1) ?? "").slice(0, 200) || "without a word";
  }
}

export function isSkipped(value: unknown): value is Skipped {
  return typeof value === "object" && value !== null && "skipped" in value && typeof value.skipped === "string";
}

/** Peers that are opened when first asked for and ended together. */
export class Peers {
  readonly #open = new Map<PeerName, Promise<Peer | Skipped>>();

  constructor(
    readonly threads: number,
    /** Only these take part; all when null. */
    readonly allowed: ReadonlySet<string> | null = null,
  ) {}

  get(name: PeerName): Promise<Peer | Skipped> {
    if (this.allowed && !this.allowed.has(name)) return Promise.resolve({ skipped: "not asked for" });
    const known = this.#open.get(name) ?? Peer.open(name, this.threads);
    this.#open.set(name, known);
    return known;
  }

  /** A task on a peer, or why not. */
  async prepare(name: PeerName, task: Task): Promise<Prepared | Skipped> {
    const peer = await this.get(name);
    return isSkipped(peer) ? peer : peer.prepare(task);
  }

  async end(): Promise<void> {
    for (const opened of this.#open.values()) {
      const peer = await opened;
      if (!isSkipped(peer)) peer.end();
    }
    this.#open.clear();
  }
}
