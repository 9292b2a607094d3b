#!/usr/bin/env node
// npm links a workspace's bin at install time and skips a target that is not there yet; the bundle comes only with the build. So the link points here.
import "../bundle/main.js";
