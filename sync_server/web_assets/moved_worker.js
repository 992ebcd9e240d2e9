// The device's page has moved to a host of its own: the worker that keeps it here takes itself away.
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(leave()));

async function leave() {
  const names = await caches.keys();
  const ours = names.filter((name) => name.startsWith("page-") || name === "recordings");
  await Promise.all(ours.map((name) => caches.delete(name)));
  await self.registration.unregister();
  // Not waited for: a navigation needs this worker to be active, and it becomes that when this is over.
  for (const client of await self.clients.matchAll({ type: "window" })) void client.navigate(client.url);
}
