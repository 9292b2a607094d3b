#!/usr/bin/env node
// From a fresh clone too: installs and builds what is missing, then measures.
import { prepare } from "../../../scripts/prepare.mjs";

await prepare();
await import("../dist/main.js");
