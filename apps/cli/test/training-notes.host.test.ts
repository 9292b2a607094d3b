import { describe, expect, it } from "vitest";
import { stagesOf } from "../src/compare/stage.js";
import { type RunLosses, riseNote, startNote } from "../src/training-notes.js";

describe("a run that ended above where it began", () => {
  const given = { flag: "--lr parallel=", rate: 1e-3 };
  it.each<[name: string, losses: RunLosses, said: RegExp | null]>([
    [
      "is told by its held-out loss, with the rate to take",
      { heldOut: { before: 2.87, after: 31.4 }, training: null },
      /2\.8700 → 31\.4000.*--lr parallel=0\.0001 in place of 0\.001/,
    ],
    [
      "is told by its training loss where no rows were held out",
      { heldOut: null, training: { first: 2.87, last: 31.4 } },
      /training loss.*--lr parallel=0\.0001/,
    ],
    [
      "has learned its rows by heart where the training loss fell",
      { heldOut: { before: 2, after: 3 }, training: { first: 2, last: 0.1 } },
      /by heart/,
    ],
    ["is no run that ended below", { heldOut: { before: 3, after: 2.99 }, training: { first: 3, last: 4 } }, null],
    ["is no run whose last batches are a little harder than the first", { heldOut: null, training: { first: 3, last: 3.2 } }, null],
    ["is not known where a part of the run is missing", { heldOut: null, training: null }, null],
  ])("%s", (_, losses, said) => {
    const note = riseNote(losses, given);
    if (said === null) expect(note).toBeNull();
    else expect(note).toMatch(said);
  });
});

describe("before the first step", () => {
  it.each([
    ["prefix", {}, "--init zero begins near it"],
    ["ptuning-v2", { init: "normal" }, "--init zero begins near it"],
    ["prefix", { init: "zero" }, null],
    ["lora", {}, null],
  ])("%s with %j", (method, options, said) => {
    const note = startNote(method, options, "--init ");
    if (said === null) expect(note).toBeNull();
    else expect(note).toContain(said);
  });
});

describe("stages of a measurement", () => {
  const recorded = (isTerminal: boolean) => {
    const lines: string[] = [];
    const stage = stagesOf(
      { isTerminal, draw: (line) => void lines.push(`drawn ${line}`), say: (line = "") => void lines.push(line) },
      "base",
    );
    stage("loss on general text");
    stage("loss on general text", "batch 1");
    stage("loss on general text", "batch 2");
    return lines;
  };
  it("are a line each where lines are printed, and all drawn on a terminal", () => {
    expect(recorded(false)).toEqual(["base: loss on general text"]);
    expect(recorded(true)).toEqual(["", ", batch 1", ", batch 2"].map((detail) => `drawn base: loss on general text${detail} …`));
  });
});
