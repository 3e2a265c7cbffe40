/** A client of meter: typed by the OpenAPI document, its problems as values, its changes safe to repeat. */
import createClient, { type Middleware } from "openapi-fetch";

import type { paths } from "./schema.js";

export type Options = {
  /** Of the sidecar: http://127.0.0.1:8000 */
  baseUrl: string;
  /** Of `meter keys create`, where METER_AUTH=keys. */
  apiKey?: string;
  /** Who asks, for the ledger. */
  actor?: string;
  /** How often a call is tried that got no answer, or 503. */
  tries?: number;
};

const CHANGES = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/** Sends a request again, as it was, while nobody answers or nothing was decided: the Idempotency-Key makes it once. */
function patient(tries: number): (request: Request) => Promise<Response> {
  return async (request) => {
    for (let left = tries; ; left -= 1) {
      try {
        const response = await fetch(request.clone());
        if (response.status !== 503 || left <= 1) return response;
      } catch (error) {
        if (left <= 1) throw error;
      }
      await new Promise((done) => setTimeout(done, 200));
    }
  };
}

/** `client.POST("/credits/deduct", { body: … })` answers `{ data }` or, of a refusal, `{ error }`, an RFC 9457 problem. */
export function meter({ baseUrl, apiKey, actor, tries = 3 }: Options) {
  const client = createClient<paths>({ baseUrl, fetch: patient(tries) });
  const headers: Middleware = {
    onRequest({ request }) {
      if (apiKey) request.headers.set("Authorization", `Bearer ${apiKey}`);
      if (!CHANGES.has(request.method)) return request;
      if (actor) request.headers.set("X-Actor", actor);
      if (!request.headers.has("Idempotency-Key")) request.headers.set("Idempotency-Key", crypto.randomUUID());
      return request;
    },
  };
  client.use(headers);
  return client;
}
