import { attentionBars } from "./attention.js";
import type { Bar } from "./bar.js";
import { blockWeightBars } from "./block-weights.js";
import { decodingBars } from "./decoding.js";
import { decompositionBars } from "./decompositions.js";
import { generationBars } from "./generation.js";
import { ggufLoadingBars } from "./gguf-loading.js";
import { lifeBars, runBars } from "./life.js";
import { loadingBars } from "./loading.js";
import { matmulBars, webgpuMatmulBars } from "./matmul.js";
import { mixerBars } from "./mixers.js";
import { planBars } from "./plan.js";
import { planningBars } from "./planning.js";
import { qloraBars } from "./qlora.js";
import { quantisedBars } from "./quantised.js";
import { schemaBars } from "./schema.js";
import { smollm2Bars } from "./smollm2.js";
import { savingBars, stepBars, webgpuStepBars } from "./steps.js";

/** Every bar, in the order in which they are measured and shown. */
export const bars: readonly Bar[] = [
  ...matmulBars,
  ...blockWeightBars,
  ...stepBars,
  ...attentionBars,
  ...webgpuMatmulBars,
  ...webgpuStepBars,
  ...savingBars,
  ...runBars,
  ...generationBars,
  ...decodingBars,
  ...schemaBars,
  ...mixerBars,
  ...planBars,
  ...planningBars,
  ...lifeBars,
  ...loadingBars,
  ...ggufLoadingBars,
  ...qloraBars,
  ...decompositionBars,
  ...smollm2Bars,
  ...quantisedBars,
];
