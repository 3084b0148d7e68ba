// Requests to the application, with the access token that the page's session is good for.
const csrf = document.querySelector('meta[name="csrf-token"]')?.content;
const MARGIN = 30_000; // ms before its end from which a token is not used any more
const PATIENCE = 10_000; // ms

let token = null; // a promise
let until = 0;

// An answer that says no, or that there is none; `message` is for people.
export class Problem extends Error {
  constructor(status, body, headers) {
    super(words(status, body) + later(headers));
    this.status = status;
  }
}

function words(status, body) {
  if (status === 0) return "No answer; trying again.";
  if (status === 401) return "Your session has ended. Log in again.";
  const wrong = Object.values(body.errors ?? {}).flatMap((each) => Object.entries(each));
  if (wrong.length) return wrong.map(([field, texts]) => `${field}: ${[texts].flat()}`).join(" ");
  return body.detail ?? body.title ?? `The answer was ${status}.`;
}

function later(headers) {
  const seconds = headers?.get("Retry-After");
  return seconds ? ` Try again in ${seconds} s.` : "";
}

// A good answer, for whoever wants more of it than its body.
export async function reach(path, options = {}) {
  let answer;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    answer = await fetch(path, { cache: "no-store", signal, ...options });
  } catch {
    throw new Problem(0);
  }
  if (answer.ok) return answer;
  throw new Problem(answer.status, await bodyOf(answer), answer.headers);
}

export async function ask(path, options) {
  return bodyOf(await reach(path, options));
}

export function bodyOf(answer) {
  return answer.status === 204 ? {} : answer.json().catch(() => ({}));
}

// What comes of a stream of JSON lines, some at a time, until it ends or `signal` ends it.
export async function* stream(path, signal) {
  const { body } = await reach(path, { signal });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield lines.map((line) => JSON.parse(line));
  }
}

export function accessToken() {
  if (!token || Date.now() > until) {
    until = Infinity; // whoever comes meanwhile waits for the same one
    token = ask("/account/token", { method: "POST", headers: { "X-CSRFToken": csrf } }).then(
      (body) => {
        until = Date.now() + body.expires_in * 1000 - MARGIN;
        return body.access_token;
      },
    );
    token.catch(forgetToken);
  }
  return token;
}

export function forgetToken() {
  token = null;
}

// What the API answers; a POST has a key, so that the balancer may send it again.
export async function api(method, path, body) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (method === "POST") headers["Idempotency-Key"] = crypto.randomUUID();
  const options = { method, headers, body: body && JSON.stringify(body) };
  headers.Authorization = `Bearer ${await accessToken()}`;
  try {
    return await ask(path, options);
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    forgetToken(); // its keys may have been changed; the session says who is logged in
    headers.Authorization = `Bearer ${await accessToken()}`;
    return ask(path, options);
  }
}
