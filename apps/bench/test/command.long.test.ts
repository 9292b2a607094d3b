import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const program = fileURLToPath(new URL("../dist/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "lowrank-bench-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function bench(...args: readonly string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], (error, stdout, stderr) =>
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

test("measures a family, writes JSON and a page, and compares with what it wrote", async () => {
  const [json, html] = [join(folder, "a.json"), join(folder, "a.html")];
  const quick = ["--quick", "--peers", "none", "--family", "softmax"];
  const first = await bench(...quick, "--json", json, "--html", html);
  expect(first.status).toBe(0);
  expect(first.stdout).toMatch(/softmax, 64x128 .*\d/);
  expect(first.stdout.split("\n").every((line) => [...line].length <= 80)).toBe(true);
  const { cases, roofline } = JSON.parse(readFileSync(json, "utf8"));
  expect(cases).toHaveLength(1);
  expect(roofline.peak.gflops).toBeGreaterThan(0);
  expect(readFileSync(html, "utf8")).toContain("<h2>softmax</h2>");
  const second = await bench(...quick, "--compare", json);
  expect(second.stdout).toMatch(/of 1 cases stayed within|changed beyond the noise/);
});

test("prints a line a bar and ends with 1 when one is short", async () => {
  const { status, stdout } = await bench("--bars", "--quick", "--peers", "none", "--only", "new buffers, pipelines", "--json", "-");
  expect(status).toBe(0);
  expect(JSON.parse(stdout).bars).toMatchObject([{ verdict: "ok", outcome: { values: [0, 0, 0] } }]);
});

test.each([
  [["--famly", "x"], /famly/],
  [["--family", "x"], /--family is "x"\. Use one of matmul/],
  [["--device", "tpu"], /Use cpu or webgpu/],
  [["--peers", "theano"], /theano is not there/],
])("%j is a mistake with a remedy", async (args, message) => {
  const { status, stderr } = await bench(...args);
  expect(status).toBe(2);
  expect(stderr).toMatch(message);
});
