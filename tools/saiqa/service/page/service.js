// The service: its description, and its answers.

const SHARE_OF_BODY = 0.95; // what a form adds to its files stays below the rest
const FILES_A_REQUEST = 8; // few, so that results appear one after the other

export const session = { about: null, token: "" }; // the answer of /health; what is sent along

/** The service did not answer or is stopping: the pictures have no result and can be sent again. */
export class Unreachable extends Error {}

async function reach(path, options) {
  try {
    const answer = await fetch(path, options);
    return { answer, body: answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : null };
  } catch {
    throw new Unreachable("The service could not be reached");
  }
}

export async function connect() {
  const { answer, body } = await reach("health");
  if (!answer.ok || !body) throw new Unreachable(body?.status ? "The service has stopped" : "The service could not be reached");
  session.about = body;
}

/** An example file of the service. */
export async function example(name) {
  try {
    const answer = await fetch(`examples/${encodeURIComponent(name)}`);
    if (!answer.ok) throw new Error(answer.statusText);
    return new File([await answer.blob()], name, { type: "image/jpeg" });
  } catch {
    throw new Unreachable("The service could not be reached");
  }
}

/**
 * The service's answer for some files. A refusal is an Error with the service's own message and status.
 * @param {object} fields are sent with the files.
 * @param {function(number)} busy is called with the seconds to wait if the service is busy.
 */
export async function ask(path, files, fields = {}, busy = () => {}) {
  for (;;) {
    const form = new FormData();
    for (const file of files) form.append("images", file, file.name);
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const headers = session.token ? { Authorization: `Bearer ${session.token}` } : {};
    const { answer, body } = await reach(path, { method: "POST", body: form, headers });
    if (answer.ok) return body;
    const wait = Number(answer.headers.get("Retry-After"));
    if (answer.status !== 503 || !(wait > 0)) {
      throw Object.assign(new Error(body?.detail ?? `HTTP status ${answer.status}`), { status: answer.status });
    }
    busy(wait);
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
  }
}

/** Results for some files, in order. Every file gets one: if several are refused together, each is sent alone. */
export async function askEach(files, busy) {
  try {
    return (await ask("score", files, {}, busy)).results;
  } catch (error) {
    if (error instanceof Unreachable || error.status === 401) throw error;
    if (files.length === 1) return [{ scores: {}, probabilities: {}, overall: null, error: error.message }];
    const results = [];
    for (const file of files) results.push(...(await askEach([file], busy)));
    return results;
  }
}

/** How many of these files go into the next request. */
export function fits(files) {
  const most = Math.min(FILES_A_REQUEST, session.about.max_images);
  let bytes = 0;
  let count = 0;
  for (const file of files.slice(0, most)) {
    bytes += file.size;
    if (count && bytes > session.about.max_request_bytes * SHARE_OF_BODY) break;
    count += 1;
  }
  return count;
}
