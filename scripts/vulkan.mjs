// Software Vulkan drivers for the tests: where they are, and what a process must set before Dawn makes its instance.
//
//   node scripts/vulkan.mjs                    says what was found
//   import { useVulkan } from "./vulkan.mjs"   useVulkan("swiftshader") before the first WebGPU device
//
// SwiftShader comes with the dev dependency @sparticuz/chromium, which also carries a Vulkan loader: no system package is needed.
// lavapipe is Mesa's driver (Debian: mesa-vulkan-drivers); Dawn refuses Mesa older than 25.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromiumArchive, unpackOnce } from "./archive.mjs";

/** @typedef {"swiftshader" | "lavapipe"} Driver */
/** @typedef {{ icd: string, loader: string | null, version: string }} Found */

/**
 * The driver's manifest, a Vulkan loader for machines that have none, and its version; or a sentence saying why it cannot be used.
 * @param {Driver} driver
 * @returns {Found | string}
 */
export function findVulkan(driver) {
  if (process.platform !== "linux") return `${driver} is looked for on Linux only`;
  return driver === "swiftshader" ? findSwiftShader() : findLavapipe();
}

/**
 * The environment that makes the Vulkan loader see this driver and no other, or null where the driver is absent.
 * @param {Driver} driver
 * @returns {Record<string, string> | null}
 */
export function vulkanEnvironment(driver) {
  const found = findVulkan(driver);
  if (typeof found === "string") return null;
  // Mesa's cache of shaders takes one that was compiled for vectors of another width, or without LLVM's passes, for its own: each has a cache
  // apart. They serve all clones of a machine, as Mesa's own does.
  const caches = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const shaders = join(
    caches,
    "lowrank",
    ["mesa", process.env["LP_NATIVE_VECTOR_WIDTH"] ?? "native", process.env["GALLIVM_PERF"] ?? "optimised"].join("-"),
  );
  mkdirSync(shaders, { recursive: true });
  // VK_ICD_FILENAMES is the name that loaders before 1.3.207 know. Mesa complains about a missing XDG_RUNTIME_DIR.
  return {
    MESA_SHADER_CACHE_DIR: shaders,
    VK_DRIVER_FILES: found.icd,
    VK_ICD_FILENAMES: found.icd,
    VK_LOADER_LAYERS_DISABLE: "~implicit~",
    XDG_RUNTIME_DIR: process.env["XDG_RUNTIME_DIR"] ?? tmpdir(),
  };
}

/**
 * Sets the environment in this process, and brings in the packaged Vulkan loader where the system has none.
 * @param {Driver} driver
 */
export function useVulkan(driver) {
  const found = findVulkan(driver);
  if (typeof found === "string") throw new Error(`No ${driver} driver: ${found}.`);
  Object.assign(process.env, vulkanEnvironment(driver));
  if (found.loader !== null && !hasSystemLoader()) preload(found.loader);
}

/** @returns {Found | string} */
function findSwiftShader() {
  if (process.arch !== "x64") return `the packaged SwiftShader is for x64, this is ${process.arch}`;
  const archive = chromiumArchive("swiftshader.tar.br");
  if (archive === null) return "the dev dependency @sparticuz/chromium is not installed";
  const { version, folder } = unpackOnce(archive, "swiftshader", ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"]);
  const icd = join(folder, "vk_swiftshader_icd.json");
  return { icd, loader: join(folder, "libvulkan.so.1"), version: `Chromium ${version}` };
}

/** @returns {Found | string} */
function findLavapipe() {
  const folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
  const named = process.env["LOWRANK_LAVAPIPE_ICD"];
  const manifests = folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  const icd = named ?? manifests.find((path) => /\/lvp_icd[^/]*\.json$/.test(path));
  if (icd === undefined)
    return "no lvp_icd*.json is installed (Debian: mesa-vulkan-drivers, version 25 or newer; on 12 from bookworm-backports)";
  const version = mesaVersion();
  if (version !== null && Number.parseInt(version, 10) < 25) return `Mesa ${version} is too old, Dawn takes 25 or newer`;
  const swiftShader = findSwiftShader();
  return { icd, loader: typeof swiftShader === "string" ? null : swiftShader.loader, version: `Mesa ${version ?? "(version unknown)"}` };
}

/** Mesa's version as the package manager knows it; null where nobody can say, and then Dawn judges. */
function mesaVersion() {
  try {
    const version = execFileSync("dpkg-query", ["-W", "--showformat=$" + "{Version}", "mesa-vulkan-drivers"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    return /\d+\.\d+(\.\d+)?/.exec(version.toString())?.[0] ?? null;
  } catch {
    return null;
  }
}

function hasSystemLoader() {
  const folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
  return folders.some((folder) => existsSync(join(folder, "libvulkan.so.1")));
}

/**
 * Dawn opens "libvulkan.so.1" by name. A library of that name already in the process is taken, so it is loaded from its path first.
 * Node complains that it is no addon and closes it again; RTLD_NODELETE keeps it.
 * @param {string} path
 */
function preload(path) {
  const RTLD_NOW = 0x2;
  const RTLD_GLOBAL = 0x100;
  const RTLD_NODELETE = 0x1000;
  try {
    process.dlopen({ exports: {} }, path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  } catch (error) {
    if (!/self-register/.test(String(error))) throw error;
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const driver of /** @type {const} */ (["swiftshader", "lavapipe"])) {
    const found = findVulkan(driver);
    console.log(typeof found === "string" ? `${driver}: absent, ${found}` : `${driver}: ${found.version}, ${found.icd}`);
  }
}
