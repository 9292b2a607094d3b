import { DeviceError } from "../../tensor/errors.js";
import type { TuningStore } from "./tuning.js";

const databaseName = "lowrank";
const storeName = "tunings";
const source = `${databaseName}/${storeName} of IndexedDB`;

/** Remembers tunings in a browser's IndexedDB. */
export function indexedTunings(databases: IDBFactory): TuningStore {
  return {
    async load(adapter) {
      const value = await withStore(databases, "readonly", (store) => store.get(adapter)).catch((error: unknown) => {
        // Where a page may store nothing, as in a sandboxed frame or a private window, nothing is remembered.
        if (error instanceof DOMException && (error.name === "SecurityError" || error.name === "InvalidStateError")) return undefined;
        throw new DeviceError(
          `${source} cannot be read: ${String(error)}. Clear the page's data, or open device("webgpu", { tuning: null }).`,
          "webgpu",
        );
      });
      return value === undefined ? null : { value, source };
    },
    async save(tuning) {
      await withStore(databases, "readwrite", (store) => store.put(tuning, tuning.adapter)).catch((error: unknown) => {
        throw new DeviceError(
          `Kernel variants cannot be remembered in this browser: ${String(error)}. Open devices with the variants that you keep yourself: device("webgpu", { tuning }).`,
          "webgpu",
        );
      });
    },
  };
}

async function withStore<T>(databases: IDBFactory, mode: IDBTransactionMode, use: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const opening = databases.open(databaseName, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(storeName);
  const database = await settled(opening);
  try {
    return await settled(use(database.transaction(storeName, mode).objectStore(storeName)));
  } finally {
    database.close();
  }
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed."));
  });
}
