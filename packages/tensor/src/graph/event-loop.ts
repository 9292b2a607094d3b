/** How long a thread that has an event loop computes at a time, in milliseconds. */
const sliceMs = 8;

/** When the last turn ended that was asked for here. */
let turnedAt = 0;

/**
 * Resolves after a turn of the event loop, in which signals, timers and messages are dealt with. `setTimeout` would sleep for a millisecond or
 * more, and browsers make four of them.
 */
export async function eventLoopTurn(): Promise<void> {
  await turn();
  turnedAt = performance.now();
}

/** Whether the event loop has waited for its turn long enough. */
export function isTurnDue(): boolean {
  return performance.now() - turnedAt > sliceMs;
}

function turn(): Promise<void> {
  const { setImmediate: soon } = globalThis as { readonly setImmediate?: (done: () => void) => unknown };
  return new Promise((resolve) => {
    if (soon) {
      soon(resolve);
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
