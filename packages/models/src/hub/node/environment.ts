import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { CheckpointError } from "@lowrank/tensor";
import { type Proxies, proxiesOf } from "./proxies.js";

/** Where models of the Hugging Face hub are looked for and fetched from. What is not given is as the environment says, as for Python's client. */
export interface HubOptions {
  /** Default: $HF_ENDPOINT or https://huggingface.co. */
  readonly endpoint?: string;
  /** Default: $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub, which Python's hub client uses too. */
  readonly cache?: string;
  /** Branch, tag or commit; default main. */
  readonly revision?: string;
  /** Empty for none. Default: $HF_TOKEN, or what `hf auth login` stored ($HF_TOKEN_PATH, $HF_HOME/token). Sent to the endpoint's origin and nowhere else. */
  readonly token?: string;
  /** Milliseconds without a byte after which a connection is given up; default $HF_HUB_DOWNLOAD_TIMEOUT seconds, or 10 s. */
  readonly stallMs?: number;
  /** Milliseconds before the first repetition of a request that failed, doubled with each; default 500. What the hub asks for comes first. */
  readonly retryMs?: number;
  /** Ends the transfer; what was received of a file is continued by the next. */
  readonly signal?: AbortSignal;
  /** Called before each file is fetched. */
  readonly onFile?: (name: string, bytes: number | null) => void;
  /** Called as bytes arrive, several times a second. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Receives what a person who waits should know: another process that fetches, a hub that asks to wait. */
  readonly onNote?: (message: string) => void;
}

/** How far a transfer is. */
export interface HubProgress {
  /** The model's or adapter's id. */
  readonly id: string;
  /** Bytes that are here, those of an earlier attempt included. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
  /** Null until the speed is known. */
  readonly secondsLeft: number | null;
  readonly fileCount: number;
}

/** The hub as one call sees it. */
export interface Hub {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly cache: string;
  readonly isOffline: boolean;
  /** Read when it is needed, so that what is cached opens whatever the token's file holds. */
  readonly token: () => string | null;
  readonly proxies: Proxies;
  readonly stallMs: number;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
  readonly onNote: (message: string) => void;
  /** Whether anybody has answered in this call: what fails before that is the connection, and is not tried again. */
  readonly contact: { isMade: boolean };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The hub as options and environment say. Throws CheckpointError where its address is not one. */
export function hubOf(options: HubOptions, id: string, env: Environment = process.env): Hub {
  const endpoint = (options.endpoint ?? (env["HF_ENDPOINT"] || "https://huggingface.co")).replace(/\/+$/, "");
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol))
    throw new CheckpointError(
      `${id}: it is no folder, and the hub's address is "${endpoint}", which is none. Set HF_ENDPOINT to one such as https://huggingface.co, or unset it.`,
      id,
    );
  const seconds = Number(env["HF_HUB_DOWNLOAD_TIMEOUT"]);
  return {
    endpoint,
    cache: options.cache ?? cacheFolder(env),
    isOffline: isTrue(env["HF_HUB_OFFLINE"] || env["TRANSFORMERS_OFFLINE"]),
    token: () => (options.token === undefined ? tokenOf(env) : options.token || null),
    proxies: proxiesOf(env),
    stallMs: options.stallMs ?? (seconds > 0 ? 1000 * seconds : 10_000),
    retryMs: options.retryMs ?? 500,
    signal: options.signal,
    onNote: options.onNote ?? (() => undefined),
    contact: { isMade: false },
  };
}

/** The folder of the hub's cache: $HF_HUB_CACHE, $HF_HOME/hub, or below $XDG_CACHE_HOME or ~/.cache. */
export function cacheFolder(env: Environment = process.env): string {
  // An empty variable counts as unset, as the XDG base directory specification has it; a path made of it would be relative.
  return expanded(env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"] || join(homeOf(env), "hub"), env);
}

function homeOf(env: Environment): string {
  return env["HF_HOME"] || join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "huggingface");
}

/** A path with ~ and $VARIABLES in it, which Python's client replaces. */
function expanded(path: string, env: Environment): string {
  const named = path.replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
  return named === "~" || named.startsWith("~/") ? join(homedir(), named.slice(1)) : named;
}

function isTrue(value: string | undefined): boolean {
  return ["1", "true", "yes", "on"].includes((value ?? "").toLowerCase());
}

function tokenOf(env: Environment): string | null {
  if (isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) return null;
  const path = expanded(env["HF_TOKEN_PATH"] || join(homeOf(env), "token"), env);
  const given = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"];
  const token = (given ?? "").trim() || textIn(path).trim();
  if (token === "") return null;
  // A header takes no more; what it is must not be said.
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new CheckpointError(
      `The token of the hub (${given ? "HF_TOKEN" : path}) holds characters that no token has. Set HF_TOKEN to it, or run \`hf auth login\` again.`,
      given ? "HF_TOKEN" : dirname(path),
    );
  return token;
}

function textIn(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // nobody logged in
  }
}
