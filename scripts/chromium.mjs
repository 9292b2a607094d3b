// A headless Chromium for the browser tests: the system's, else the one in the dev dependency @sparticuz/chromium.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromiumArchive, unpackOnce } from "./archive.mjs";

/**
 * What starts a Chromium here, or a sentence saying why none does.
 * @returns {{ command: string, env: NodeJS.ProcessEnv } | string}
 */
export function findChromium() {
  const named = process.env["LOWRANK_CHROMIUM"];
  const system = [named, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
    (path) => path && existsSync(path),
  );
  if (system) return { command: system, env: process.env };
  if (process.platform !== "linux" || process.arch !== "x64") return "no Chromium is installed (LOWRANK_CHROMIUM names one)";
  const program = chromiumArchive("chromium.br");
  const libraries = chromiumArchive("al2023.tar.br");
  if (program === null || libraries === null) return "the dev dependency @sparticuz/chromium is not installed";
  const { folder } = unpackOnce(program, "chromium");
  const { folder: lib } = unpackOnce(libraries, "chromium-libraries");
  return { command: join(folder, "chromium"), env: { ...process.env, LD_LIBRARY_PATH: join(lib, "lib") } };
}

/**
 * Opens a page; the function returned closes the browser again.
 * @param {{ command: string, env: NodeJS.ProcessEnv }} chromium
 * @param {string} url
 * @param {readonly string[]} [flags]
 * @returns {{ close: () => Promise<void>, output: () => string }}
 */
export function openPage({ command, env }, url, flags = []) {
  const profile = mkdtempSync(join(tmpdir(), "lowrank-chromium-"));
  const args = [
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--disable-dev-shm-usage",
    `--user-data-dir=${profile}`,
    "--remote-debugging-port=0",
    ...flags,
    url,
  ];
  const child = spawn(command, args, { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
  // Every process of the browser holds its error output: it closes when the last of them has ended, and with it the last that writes to the profile.
  const hasEnded = new Promise((resolve) => child.once("close", resolve));
  let output = "";
  child.stderr.on("data", (chunk) => {
    output += chunk;
  });
  child.on("error", (error) => {
    output += error.message;
  });
  return {
    output: () => output,
    close: async () => {
      // The browser leads a process group of its own, renderers included.
      if (child.pid !== undefined) {
        try {
          process.kill(-child.pid, "SIGKILL");
        } catch {
          // It has ended by itself.
        }
      }
      await hasEnded;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

/**
 * Opens a page, lets its scripts run for a minute of its own clock, which runs ahead where nothing is to do, and closes it again.
 * @param {{ command: string, env: NodeJS.ProcessEnv }} chromium
 * @param {string} url
 * @param {{ width?: number, height?: number, isDark?: boolean, screenshot?: string }} [options]
 * @returns {{ dom: string, console: string[] }} the document afterwards, and every line of its console: messages, warnings, errors, uncaught exceptions
 */
export function visitPage({ command, env }, url, { width = 1280, height = 900, isDark = false, screenshot } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "lowrank-chromium-"));
  const args = [
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    `--blink-settings=preferredColorScheme=${isDark ? 0 : 1}`,
    `--window-size=${width},${height}`,
    "--virtual-time-budget=60000",
    `--user-data-dir=${profile}`,
    screenshot === undefined ? "--dump-dom" : `--screenshot=${screenshot}`,
    url,
  ];
  try {
    const { stdout, stderr, status, error } = spawnSync(command, args, { env, encoding: "utf8", timeout: 60_000, maxBuffer: 2 ** 28 });
    if (status !== 0) throw new Error(`Chromium ended with ${status}${error ? `, ${error.message}` : ""}.\n${stderr}`);
    return { dom: stdout, console: [...stderr.matchAll(/:CONSOLE[:(]\d+\)?\] (.*)/g)].map(([, line = ""]) => line) };
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
