import { afterEach, describe, expect, it, vi } from "vitest";
import { eventLoopTurn } from "../src/graph/event-loop.js";

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("a turn of the event loop", () => {
  for (const { where, isBrowser } of [
    { where: "in Node", isBrowser: false },
    { where: "as in a browser, which has no setImmediate", isBrowser: true },
  ]) {
    it(`lets timers in ${where}`, async () => {
      if (isBrowser) vi.stubGlobal("setImmediate", undefined);
      let hasRung = false;
      setTimeout(() => {
        hasRung = true;
      }, 2);
      const end = performance.now() + 2000;
      while (!hasRung && performance.now() < end) await eventLoopTurn();
      expect(hasRung).toBe(true);
    });
  }
});
