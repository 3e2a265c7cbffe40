/** What a small application does with it: credits in, a hold, what it cost, a refusal, and the history. */
import assert from "node:assert/strict";

import { meter } from "./meter.js";

const baseUrl = process.env.METER_URL ?? "http://127.0.0.1:8000";
const credits = meter({ baseUrl, apiKey: process.env.METER_KEY, actor: "typescript" });
const user_id = `ts-${Date.now()}`;

const added = await credits.POST("/credits/add", { body: { user_id, amount: 100, description: "Welcome" } });
assert(added.data && "available" in added.data, JSON.stringify(added.error));
assert.equal(added.data.available, 100);

const held = await credits.POST("/credits/reservations", { body: { user_id, amount: 30 } });
assert(held.data, JSON.stringify(held.error));
const { reservation_id } = held.data;
const done = await credits.POST("/credits/reservations/{reservation_id}/commit", {
  params: { path: { reservation_id } },
  body: { amount: "18.25" },
});
assert.equal(done.data?.charged, 18.25);
assert.equal(done.data?.available, 81.75);

// The same key and body is the same answer, and charged once.
const headers = { "Idempotency-Key": `once-${user_id}` };
for (const replayed of [null, "true"]) {
  const once = await credits.POST("/credits/deduct", { body: { user_id, amount: 1.75 }, headers });
  assert.equal(once.data?.available, 80);
  assert.equal(once.response.headers.get("Idempotency-Replayed"), replayed);
}

// A refusal is a value, with what there was.
const refused = await credits.POST("/credits/deduct", { body: { user_id, amount: 1000 } });
assert.equal(refused.data, undefined);
assert.equal(refused.response.status, 402);
assert.equal(refused.error?.code, "INSUFFICIENT_CREDITS");

// What an adjustment would come to, and the adjustment.
const less = { user_id, amount: -5, reason: "Counted twice" };
const tried = await credits.POST("/credits/adjust", { body: { ...less, dry_run: true } });
assert(tried.data && "effect" in tried.data && tried.data.effect, JSON.stringify(tried.error));
assert.equal(tried.data.effect.available_after, 75);
assert((await credits.POST("/credits/adjust", { body: less })).data);

const kinds: string[] = [];
for (let cursor: string | null = ""; cursor !== null; ) {
  const query: { limit: number; cursor?: string } = cursor ? { limit: 2, cursor } : { limit: 2 };
  const page = await credits.GET("/credits/history/{user_id}", { params: { path: { user_id }, query } });
  assert(page.data && typeof page.data !== "string", JSON.stringify(page.error)); // a text is what CSV would be
  kinds.push(...page.data.items.map((row) => row.kind));
  cursor = page.data.next_cursor;
}
assert.deepEqual(kinds, ["adjust", "deduct", "commit", "reserve", "grant"]);

console.log(`${user_id} has 75 credits: ${kinds.join(", ")}`);
