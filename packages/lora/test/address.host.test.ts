import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { CheckpointError, DeviceError, device, memoryFiles } from "@lowrank/tensor";
import { expect, onTestFinished, test } from "vitest";
import { adapterOutline, applyAdapter, loadAdapter, saveAdapter } from "../src/index.js";
import { TinyModel } from "./tiny.js";

const dev = await device("reference");

test("an adapter loads from an address whose host gives index.html for what it lacks, and one that is not there is called that", async () => {
  const files = memoryFiles();
  await saveAdapter(applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets: ["q_proj"] }), "a", { files });
  const server = createServer(({ url = "" }, response) => {
    const bytes = files.files.get(url.slice(1));
    response.setHeader("content-type", bytes ? "application/octet-stream" : "text/html");
    response.end(bytes ?? "<!doctype html><title>app</title>");
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", () => resolve()));
  onTestFinished(() => void server.close());
  const host = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const adapter = await loadAdapter(new TinyModel(dev), `${host}/a`);
  expect(adapter.namedParameters().size).toBeGreaterThan(0);
  await expect(loadAdapter(new TinyModel(dev), `${host}/b`)).rejects.toThrow(/\/b holds no adapter_config\.json/);
});

test.each<[string, () => Promise<unknown>, new (...given: never[]) => Error, RegExp]>([
  ["loadAdapter", () => loadAdapter(new TinyModel(dev), "a"), CheckpointError, /loadAdapter: `files` is missing\. Give an address/],
  [
    "saveAdapter",
    () => (saveAdapter as (...given: readonly unknown[]) => Promise<void>)({}, "a"),
    CheckpointError,
    /saveAdapter: `files` is missing/,
  ],
  ["adapterOutline", () => adapterOutline([], { files: memoryFiles() } as never), DeviceError, /adapterOutline: `device` is missing/],
])("%s says what JavaScript left out", async (_, call, kind, message) => {
  const error: unknown = await call().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(kind);
  expect((error as Error).message).toMatch(message);
});
