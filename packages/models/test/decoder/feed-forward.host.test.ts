import { expect, test } from "vitest";
import { normalQuantile } from "../../src/decoder/normal.js";

test.each([
  [0.5, 0],
  [0.95, 1.6448536269514722],
  [0.1, -1.2815515655446004],
  [0.999, 3.090232306167813],
  [0.000001, -4.753424308822899],
])("a normal number is below %s of the time where the tables say", (p, want) => {
  expect(normalQuantile(p)).toBeCloseTo(want, 9);
});
