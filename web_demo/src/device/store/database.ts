/**
 * The device's one database: IndexedDB with promises, whole transactions, and every failure a StorageError.
 *
 * Writes ask for strict durability: what a caller was told is on the disk. A tab that is killed leaves the state before
 * or after a transaction, never between.
 */
import { StorageError } from "../errors.ts";
import type { Schema, StoreName } from "./schema.ts";
import { upgrade, VERSION } from "./schema.ts";

/** One transaction under way. Between two of its requests nothing else may be awaited. */
export interface Transaction {
  /** Return one value, or null. */
  get<S extends StoreName>(store: S, key: IDBValidKey): Promise<Schema[S] | null>;
  /** Return values in the order of their keys. */
  getAll<S extends StoreName>(store: S, range?: IDBKeyRange, most?: number): Promise<Schema[S][]>;
  /** Return the keys in their order. */
  keys(store: StoreName): Promise<IDBValidKey[]>;
  /** Return the value with the lowest key of an index, or null. */
  first<S extends StoreName>(store: S, index: string): Promise<Schema[S] | null>;
  /** Return how many values there are. */
  count(store: StoreName): Promise<number>;
  /** Store a value; stores without a key of their own take one. */
  put<S extends StoreName>(store: S, value: Schema[S], key?: IDBValidKey): Promise<IDBValidKey>;
  /** Delete one value or a range. */
  delete(store: StoreName, key: IDBValidKey | IDBKeyRange): Promise<void>;
  /** Delete every value. */
  clear(store: StoreName): Promise<void>;
}

/** An open database. */
export class Database {
  /** Settles when another tab deletes or upgrades the database, or the browser takes it away. */
  readonly lost: Promise<void>;
  private readonly db: IDBDatabase;

  private constructor(db: IDBDatabase) {
    this.db = db;
    this.lost = new Promise((resolve) => {
      db.onversionchange = () => {
        db.close();
        resolve();
      };
      db.onclose = () => resolve();
    });
  }

  /**
   * Open the database, making it the first time.
   *
   * @param name - Its name in this origin.
   * @param factory - The platform's IndexedDB, or null where there is none.
   * @throws StorageError - Denied (reason `storage_denied`), full (`disk_full`), or damaged (`storage_failed`).
   */
  static async open(name: string, factory: IDBFactory | null): Promise<Database> {
    if (factory === null) throw denied();
    try {
      return new Database(await opened(factory, name));
    } catch (error) {
      throw translated(error);
    }
  }

  /**
   * Delete a database that this page has closed.
   *
   * @throws StorageError - The browser does not let it go.
   */
  static async remove(name: string, factory: IDBFactory | null): Promise<void> {
    if (factory === null) throw denied();
    try {
      await settled(factory.deleteDatabase(name));
    } catch (error) {
      throw translated(error);
    }
  }

  /**
   * Read in one transaction.
   *
   * @throws StorageError - The database cannot be read.
   */
  async read<T>(stores: readonly StoreName[], work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return this.run(stores, "readonly", work);
  }

  /**
   * Write in one transaction: all of it or nothing.
   *
   * @throws StorageError - Full (reason `disk_full`) or not writable; nothing was written.
   */
  async write<T>(stores: readonly StoreName[], work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return this.run(stores, "readwrite", work);
  }

  /** Close the database; transactions under way end first. */
  close(): void {
    this.db.close();
  }

  private async run<T>(
    stores: readonly StoreName[],
    mode: IDBTransactionMode,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> {
    try {
      const transaction = this.db.transaction(stores, mode, { durability: "strict" });
      const done = finished(transaction);
      try {
        const result = await work(requestsOf(transaction));
        await done;
        return result;
      } catch (error) {
        abort(transaction);
        // The first cause counts: a request that failed aborts its transaction as well.
        await done.catch((reason: unknown) => reason);
        throw transaction.error ?? error;
      }
    } catch (error) {
      throw translated(error);
    }
  }
}

function requestsOf(transaction: IDBTransaction): Transaction {
  const at = (store: StoreName): IDBObjectStore => transaction.objectStore(store);
  return {
    get: async (store, key) => (await settled(at(store).get(key))) ?? null,
    getAll: async (store, range, most) => settled(at(store).getAll(range, most)),
    keys: async (store) => settled(at(store).getAllKeys()),
    first: async (store, index) => (await settled(at(store).index(index).openCursor()))?.value ?? null,
    count: async (store) => settled(at(store).count()),
    put: async (store, value, key) => settled(at(store).put(value, key)),
    delete: async (store, key) => settled(at(store).delete(key)),
    clear: async (store) => settled(at(store).clear()),
  };
}

async function opened(factory: IDBFactory, name: string): Promise<IDBDatabase> {
  const request = factory.open(name, VERSION);
  request.onupgradeneeded = (event) => upgrade(request.result, event.oldVersion);
  return settled(request);
}

async function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new DOMException("The request failed.", "UnknownError"));
  });
}

async function finished(transaction: IDBTransaction): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new DOMException("It was aborted.", "AbortError"));
  });
  // Whoever awaits it sees the failure; nobody may have come so far yet.
  done.catch(() => undefined);
  return done;
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch (error) {
    // It has ended already.
    if (!(error instanceof DOMException && error.name === "InvalidStateError")) throw error;
  }
}

function translated(error: unknown): unknown {
  if (!(error instanceof DOMException)) return error;
  if (error.name === "QuotaExceededError") return full();
  // Firefox and Safari say so in windows that keep nothing, and where a person blocked storage.
  if (error.name === "SecurityError" || error.name === "NotAllowedError") return denied();
  return new StorageError(
    `The browser's storage failed: ${error.message.replace(/\.$/, "")} (${error.name}).`,
    "storage_failed",
    "Reload the page; nothing that was confirmed is lost.",
  );
}

/** Return the error of storage that is full. */
export function full(): StorageError {
  return new StorageError(
    "The browser has no room left for this device.",
    "disk_full",
    "Free some space on this machine, then try again; what was there before stays.",
  );
}

/** Return the error of storage that the browser does not allow. */
export function denied(): StorageError {
  return new StorageError(
    "This browser does not let the page store anything.",
    "storage_denied",
    "Leave the private window, or allow storage for this site, and open the page again.",
  );
}
