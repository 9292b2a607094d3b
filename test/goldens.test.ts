// Slow: training steps of whole models, planned case by case.
// Against PyTorch, transformers and PEFT: the repository's own cases (test/goldens/make_goldens.py) and, where they lie beside the clone, the
// larger ones of shared/goldens. Both are read by the same code.
import { describe, test } from "vitest";
import { cases, casesInShare, expectCurve, expectLogits, expectLossAndGradients, integers, io, modelOf, testAdapter } from "./golden.js";

describe.each(casesInShare(cases.filter(({ isAdapter }) => !isAdapter)))("$name", (golden) => {
  test("logits, loss and every gradient", async () => {
    const model = await modelOf(golden);
    await io(golden, async (file) => {
      await expectLogits(model.forward(await integers(file, "input_ids")), file, "logits");
      await expectLossAndGradients(model, model.namedParameters(), file);
    });
  });

  test("the loss at every step of full fine-tuning with AdamW", async () => {
    const model = await modelOf(golden);
    await io(golden, (file) => expectCurve(model, model.namedParameters(), file, golden.settings));
  });
});

describe.each(casesInShare(cases.filter(({ isAdapter }) => isAdapter)))("$name", (golden) => testAdapter(golden));
