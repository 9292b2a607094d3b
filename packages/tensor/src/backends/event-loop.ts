/**
 * Resolves after a turn of the event loop, in which signals, timers and messages are dealt with. `setTimeout` would sleep for a millisecond or
 * more, and browsers make four of them.
 */
export function eventLoopTurn(): Promise<void> {
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
