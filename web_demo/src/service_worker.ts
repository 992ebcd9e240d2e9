/** Keeps the page itself, so that it opens without a network. Bundles and results never pass through its cache. */

declare const __BUILT_FILES__: Readonly<Record<string, string>>;

console.log(Object.keys(__BUILT_FILES__).length);
