// Sends pictures to /score and shows the results. No library, and no requests except to the service itself.

import { fillCard, newCard } from "./card.js";
import { download } from "./csv.js";
import { capital, count, element, make, percent, thumbnailOf } from "./parts.js";
import { askEach, connect, example, fits, session, Unreachable } from "./service.js";
import * as table from "./table.js";

let meeting = null; // the one attempt to learn what the service is
let working = false;
let batch = Math.max(0, ...table.entries.map((entry) => entry.batch)); // files that were chosen together
let round = { scored: 0, failed: 0 }; // since there was last nothing to do

const waiting = () => table.entries.filter((entry) => !entry.result);

function say(text) {
  element("status").textContent = text;
}

// ---- the service ------------------------------------------------------------------------------------------------------

/** Ask the service for its description, once; concurrent callers wait for the same answer. */
function meet() {
  meeting ??= introduce().catch((error) => {
    meeting = null;
    throw error;
  });
  return meeting;
}

async function introduce() {
  await connect();
  const { model, caveat, token_needed: wantsToken } = session.about;
  element("model").textContent = `Model ${model}.`;
  element("caveat").textContent = caveat ? `${capital(caveat)}.` : "";
  element("caveat").hidden = !caveat;
  element("token-form").hidden = !wantsToken;
  explain();
  offerExamples();
  table.update();
}

function explain() {
  const { dimensions, meanings, examples, confidence, max_width: mostWidth } = session.about;
  const lines = dimensions.map((dimension) => [capital(dimension), `${capital(meanings[dimension])}.`]);
  if (confidence) {
    const often = `for ${percent(confidence)} of pictures like those it was calibrated on`;
    lines.push(["Brackets", `The mean of people's scores lies between their ends ${often}.`]);
  }
  if (mostWidth !== null) lines.push(["Not sure", `Scores whose bracket is wider than ${mostWidth} points are not shown.`]);
  element("meanings").replaceChildren(...lines.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
  if (!examples.length) element("start").querySelector("summary").textContent = "What the scores mean";
  element("start").hidden = false;
}

function offerExamples() {
  const names = session.about.examples;
  element("examples").hidden = !names.length;
  element("example-list").replaceChildren(...names.map(exampleOf));
}

function exampleOf(name, number) {
  const item = make("li");
  const press = Object.assign(make("button", "", "example"), { type: "button" });
  const alt = `Score example ${number + 1}`;
  press.append(Object.assign(make("img"), { alt, src: `examples/${encodeURIComponent(name)}` }));
  press.addEventListener("click", async () => {
    try {
      add([await example(name)]);
    } catch (error) {
      say(`${error.message}.`);
    }
  });
  item.append(press);
  return item;
}

// ---- pictures in ------------------------------------------------------------------------------------------------------

function add(files) {
  const chosen = [...files];
  if (!chosen.length) return;
  batch += 1;
  const added = chosen.map((file) => ({ name: file.name, batch, file, address: URL.createObjectURL(file), result: null }));
  for (const entry of added) entry.card = newCard(entry, () => table.removeOne(entry));
  table.addEntries(added);
  work();
}

async function work() {
  if (working) return;
  working = true;
  element("again").hidden = true;
  try {
    await meet();
    while (waiting().length) await step();
    say(`${outcome()}.`);
    round = { scored: 0, failed: 0 };
  } catch (error) {
    halt(error);
  } finally {
    working = false;
  }
}

/** Say why scoring stopped; pictures without a result keep waiting. */
function halt(error) {
  if (error.status === 401) {
    say("The service refuses the token.");
    element("token").focus();
    return;
  }
  const why = error instanceof Unreachable ? error.message : `Something went wrong: ${error.message}`;
  say(waiting().length ? `${why}: ${outcome()}.` : `${why}.`);
  element("again").hidden = false;
}

/** The outcome for the pictures added since the queue was last empty. */
function outcome() {
  const { scored, failed } = round;
  const left = waiting().length;
  const all = scored + failed + left;
  if (scored === all) return `${count(all, "picture")} scored`;
  const parts = [`${scored} of ${all} scored`];
  if (failed) parts.push(`${failed} failed`);
  if (left) parts.push(`${left} ${left === 1 ? "waits" : "wait"}`);
  return parts.join(", ");
}

/** Score the next few waiting pictures. */
async function step() {
  const next = waiting().slice(0, fits(waiting().map((entry) => entry.file)));
  say(`Scoring: ${outcome()}.`);
  const busy = (wait) => say(`The service is busy; trying again in ${wait} s.`);
  const results = await askEach(next.map((entry) => entry.file), busy);
  const thumbnails = await Promise.all(next.map((entry) => thumbnailOf(entry.file)));
  next.forEach((entry, i) => {
    Object.assign(entry, { result: results[i], thumbnail: thumbnails[i] });
    round[results[i].error ? "failed" : "scored"] += 1;
    fillCard(entry, say);
  });
  table.update();
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
  session.token = element("token").value.trim();
  say("Token kept for this page.");
  work();
});
for (const id of ["field", "least", "name"]) element(id).addEventListener("input", table.update);
element("again").addEventListener("click", work);
element("download").addEventListener("click", () => download(table.scored()));
element("pair-end").addEventListener("click", table.endPair);
element("clear").addEventListener("click", () => {
  table.remove(table.scored());
  say("Cleared.");
  element("files").focus();
});
element("undo").addEventListener("click", () => {
  say(`${count(table.undo(), "picture")} back.`);
  if (waiting().length) work();
  if (!table.canUndo()) element("files").focus();
});

meet().catch((error) => {
  say(`${error.message}.`);
  element("again").hidden = false;
});
