// Sends pictures to /score and shows what comes back. No library, no request but to the service itself.

const FILES_A_REQUEST = 8; // few, so that results appear one after the other
const HISTORY_KEY = "saiqa-history";
const SHARE_OF_BODY = 0.95; // what a form adds to its files stays below the rest

const element = (id) => document.getElementById(id);
const seconds = (count) => new Promise((resolve) => setTimeout(resolve, count * 1000));

let service = null; // the answer of /health
let token = "";
let queue = []; // {file, card}
let working = false;
let done = 0;
let history = JSON.parse(sessionStorage.getItem(HISTORY_KEY) ?? "[]");

// ---- the service ------------------------------------------------------------------------------------------------------

async function connect() {
  const answer = await fetch("health");
  service = await answer.json();
  element("model").textContent = `Model ${service.model}.`;
  element("caveat").textContent = service.caveat ? `${capital(service.caveat)}.` : "";
  element("token-form").hidden = !service.token_needed;
  showHistory();
}

/** Results of some files, in order. A refusal is an Error with the service's own words and its status. */
async function ask(files) {
  for (;;) {
    const form = new FormData();
    for (const file of files) form.append("images", file, file.name);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch("score", { method: "POST", body: form, headers });
    if (answer.ok) return (await answer.json()).results;
    const wait = Number(answer.headers.get("Retry-After"));
    if (answer.status === 503 && wait > 0) {
      say(`The service is busy; trying again in ${wait} s.`);
      await seconds(wait);
      continue;
    }
    const detail = await answer.json().then((body) => body.detail, () => `HTTP status ${answer.status}`);
    throw Object.assign(new Error(detail), { status: answer.status });
  }
}

/** As ask, but every file gets a result: where several are refused together, each is asked about alone. */
async function askEach(files) {
  try {
    return await ask(files);
  } catch (error) {
    if (error.status === 401) throw error;
    if (files.length === 1 || !error.status) return files.map(() => failure(error));
    const results = [];
    for (const file of files) results.push(...(await askEach([file])));
    return results;
  }
}

function failure(error) {
  const reason = error.status ? error.message : "the service could not be reached";
  return { scores: {}, probabilities: {}, overall: null, error: reason };
}

// ---- pictures in ------------------------------------------------------------------------------------------------------

function add(files) {
  const pictures = [...files];
  if (!pictures.length) return;
  if (!working) done = 0;
  element("results-section").hidden = false;
  const cards = pictures.map((file) => ({ file, card: newCard(file) }));
  element("results").prepend(...cards.map(({ card }) => card));
  queue.push(...cards);
  work();
}

async function work() {
  if (working) return;
  working = true;
  try {
    if (!service) await connect();
    while (queue.length) await step();
    say(`${done} ${done === 1 ? "picture" : "pictures"} done.`);
  } catch (error) {
    say(error.status === 401 ? "The service refuses the token." : "The service could not be reached.");
    if (error.status === 401) element("token").focus();
  } finally {
    working = false;
  }
}

/** Score the next few pictures of the queue; they leave it when they are answered. */
async function step() {
  const batch = nextBatch();
  say(`Scoring: ${done} of ${done + queue.length} pictures done.`);
  const results = await askEach(batch.map(({ file }) => file));
  queue = queue.slice(batch.length);
  batch.forEach(({ file, card }, i) => {
    show(card, results[i]);
    history.unshift({ ...results[i], name: file.name });
  });
  done += batch.length;
  keepHistory();
}

function nextBatch() {
  const most = Math.min(FILES_A_REQUEST, service.max_images);
  let bytes = 0;
  let count = 0;
  for (const { file } of queue.slice(0, most)) {
    bytes += file.size;
    if (count && bytes > service.max_request_bytes * SHARE_OF_BODY) break;
    count += 1;
  }
  return queue.slice(0, count);
}

function say(text) {
  element("status").textContent = text;
}

// ---- one picture ------------------------------------------------------------------------------------------------------

function newCard(file) {
  const card = element("card").content.firstElementChild.cloneNode(true);
  // A long name may break behind these characters.
  const parts = file.name.split(/(?<=[-_.])/);
  card.querySelector("h3").append(...parts.flatMap((part) => [part, make("wbr")]));
  card.querySelector(".state").textContent = "Waiting";
  const image = card.querySelector("img");
  image.addEventListener("error", () => (image.hidden = true)); // no picture: the card says so in words
  image.src = URL.createObjectURL(file);
  return card;
}

function show(card, result) {
  card.classList.toggle("failed", Boolean(result.error));
  card.querySelector(".state").textContent = result.error ? `No score: ${result.error}` : (result.notes ?? []).join("; ");
  if (result.overall !== null) {
    card.querySelector(".overall .number").textContent = result.overall.toFixed(2);
    card.querySelector(".overall .scale").textContent = "of 5 overall";
  }
  const known = service.dimensions.filter((dimension) => dimension in result.scores);
  card.querySelector(".dimensions").append(
    ...known.map((dimension) => dimensionOf(dimension, result.scores[dimension], result.probabilities[dimension])),
  );
}

function dimensionOf(dimension, score, probabilities) {
  const block = element("dimension").content.firstElementChild.cloneNode(true);
  block.dataset.dimension = dimension;
  block.querySelector("h4").textContent = capital(dimension);
  block.querySelector(".score .number").textContent = score.toFixed(2);
  const bar = block.querySelector(".bar");
  bar.ariaLabel = capital(dimension);
  bar.ariaValueNow = score.toFixed(2);
  bar.ariaValueText = `${score.toFixed(2)} of 5`;
  bar.firstElementChild.style.setProperty("--share", `${((score - 1) / 4) * 100}%`);
  const words = Object.keys(service.words).sort((a, b) => service.words[a] - service.words[b]);
  const likeliest = words.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
  block.querySelector(".words").ariaLabel = `How likely the model finds each word for ${dimension}`;
  block.querySelector(".words").append(...words.map((word) => wordOf(word, probabilities[word], word === likeliest)));
  return block;
}

function wordOf(word, probability, likeliest) {
  const item = make("li");
  item.classList.toggle("likeliest", likeliest);
  const column = make("div", "", "column");
  column.append(make("div"));
  column.firstElementChild.style.setProperty("--share", `${probability * 100}%`);
  column.ariaHidden = "true";
  item.append(column, make("span", `${Math.round(probability * 100)} %`), make("span", word));
  return item;
}

function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

// ---- history ----------------------------------------------------------------------------------------------------------

function keepHistory() {
  try {
    sessionStorage.setItem(HISTORY_KEY, JSON.stringify(history));
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error; // the table is still there, until the page is loaded again
  }
  showHistory();
}

function showHistory() {
  element("history-section").hidden = !history.length;
  const titles = ["Picture", "Overall", ...service.dimensions.map(capital)];
  element("history-head").replaceChildren(...titles.map((title) => Object.assign(make("th", title), { scope: "col" })));
  element("history").replaceChildren(...history.map(historyRow));
}

function historyRow(result) {
  const row = make("tr");
  row.append(Object.assign(make("th", result.name), { scope: "row" }));
  if (result.error && !Object.keys(result.scores).length) {
    row.append(Object.assign(make("td", result.error, "error"), { colSpan: service.dimensions.length + 1 }));
    return row;
  }
  const values = [result.overall, ...service.dimensions.map((dimension) => result.scores[dimension])];
  row.append(...values.map((value) => make("td", value?.toFixed(2) ?? "none")));
  return row;
}

/** The columns of score_images.py --output_csv --probabilities, in full precision. */
function csv() {
  const words = service.dimensions.flatMap((dimension) => Object.keys(service.words).map((word) => [dimension, word]));
  const header = ["image", ...service.dimensions, "overall", ...words.map((pair) => pair.join("_")), "error"];
  const rows = [...history].reverse().map((result) => [
    result.name,
    ...service.dimensions.map((dimension) => result.scores[dimension]),
    result.overall,
    ...words.map(([dimension, word]) => result.probabilities[dimension]?.[word]),
    result.error,
  ]);
  return [header, ...rows].map((cells) => cells.map(cell).join(",") + "\r\n").join("");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "sa-iqa-scores.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function clear() {
  history = [];
  keepHistory();
  const waiting = new Set(queue.map(({ card }) => card));
  for (const card of [...element("results").children].filter((child) => !waiting.has(child))) {
    URL.revokeObjectURL(card.querySelector("img").src);
    card.remove();
  }
  element("results-section").hidden = !waiting.size;
  say("Cleared.");
  element("files").focus();
}

// ---- events -----------------------------------------------------------------------------------------------------------

element("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});

const drop = element("drop");
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value.trim();
  say("Token kept for this page.");
  work();
});
element("download").addEventListener("click", download);
element("clear").addEventListener("click", clear);

connect().catch(() => say("The service could not be reached."));
