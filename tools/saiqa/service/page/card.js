// One picture: its card, its row in the table, and two of them side by side.

import { addressOf, breakable, button, capital, element, make, paint, percent } from "./parts.js";
import { session } from "./service.js";
import { whereOf } from "./where.js";

const UNSURE = "not sure"; // in place of a score whose interval is too wide
const lowToHigh = ([low, high]) => `${low.toFixed(2)} to ${high.toFixed(2)}`;
const template = (id) => element(id).content.firstElementChild.cloneNode(true);

/** A dimension's name, with a hint on how to read its score if it needs one. */
export function labelOf(dimension) {
  const hint = session.about.hints[dimension];
  return [capital(dimension), ...(hint ? [" ", make("small", `(${hint})`)] : [])];
}

// ---- the card ---------------------------------------------------------------------------------------------------------

export function newCard(entry, remove) {
  const card = template("card");
  card.querySelector("h3").append(...breakable(entry.name));
  card.querySelector(".state").textContent = "Waiting";
  const image = card.querySelector("img");
  image.addEventListener("error", () => (image.hidden = true)); // no picture: the card says so in words
  image.src = entry.address;
  card.append(button("Remove", `Remove ${entry.name}`, remove, "plain"));
  return card;
}

export function fillCard(entry, say) {
  const { card, result } = entry;
  card.classList.toggle("failed", Boolean(result.error));
  card.querySelector(".state").textContent = result.error ? `No score: ${result.error}` : (result.notes ?? []).join("; ");
  if (result.overall !== null) {
    paint(card.querySelector(".overall"), result.overall).hidden = false;
    card.querySelector(".overall .number").textContent = result.overall.toFixed(2);
    card.querySelector(".overall .scale").textContent = "of 5 overall";
  }
  card.querySelector(".verdict").textContent = result.verdict ? `${capital(result.verdict)}.` : "";
  const unsure = result.unsure ?? [];
  const known = session.about.dimensions.filter((dimension) => dimension in result.scores || unsure.includes(dimension));
  if (known.length && session.about.caveat) card.querySelector(".caveat").textContent = `${capital(session.about.caveat)}.`;
  card.querySelector(".dimensions").replaceChildren(
    ...known.map((dimension) => dimensionOf(dimension, entry, say)),
  );
}

function dimensionOf(dimension, entry, say) {
  const { result } = entry;
  const block = template("dimension");
  const probabilities = result.probabilities[dimension];
  block.dataset.dimension = dimension;
  block.querySelector("h4").append(...labelOf(dimension));
  fillBar(block, dimension, result.scores[dimension]);
  if (result.intervals?.[dimension]) fillInterval(block, result.intervals[dimension]);
  const values = session.about.words;
  const words = Object.keys(values).sort((a, b) => values[a] - values[b]);
  const likeliest = words.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
  block.querySelector(".words").ariaLabel = `How likely the model finds each word for ${dimension}`;
  block.querySelector(".words").append(...words.map((word) => wordOf(word, probabilities[word], word === likeliest)));
  block.append(...whereOf(entry, dimension, say));
  return block;
}

const shareOf = (score) => `${((score - 1) / 4) * 100}%`;

function fillBar(block, dimension, score) {
  const bar = block.querySelector(".bar");
  bar.hidden = score === undefined;
  block.querySelector(".score .number").textContent = score?.toFixed(2) ?? UNSURE;
  if (bar.hidden) return;
  bar.ariaLabel = capital(dimension);
  bar.ariaValueNow = score.toFixed(2);
  bar.ariaValueText = `${score.toFixed(2)} of 5`;
  paint(bar, score).firstElementChild.style.setProperty("--share", shareOf(score));
}

function fillInterval(block, [low, high]) {
  const bracket = block.querySelector(".bracket");
  bracket.hidden = false;
  bracket.style.setProperty("--low", shareOf(low));
  bracket.style.setProperty("--high", shareOf(high));
  const said = block.querySelector(".interval");
  said.hidden = false;
  said.textContent = `People: ${lowToHigh([low, high])}, in ${percent(session.about.confidence)} of cases`;
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

// ---- its row ----------------------------------------------------------------------------------------------------------

export function newRow(entry, choose, remove) {
  const { name, result, thumbnail } = entry;
  const row = make("tr");
  const box = Object.assign(make("input"), { type: "checkbox", checked: Boolean(entry.chosen), ariaLabel: `Compare ${name}` });
  const known = Object.keys(result.scores).length || result.unsure?.length;
  box.disabled = !known;
  box.addEventListener("change", () => choose(box.checked));
  const title = Object.assign(make("th"), { scope: "row", ariaLabel: name });
  if (thumbnail) title.append(Object.assign(make("img"), { alt: "", src: addressOf(thumbnail) }));
  const text = make("span");
  text.append(...breakable(name));
  title.append(text);
  row.append(make("td"), title);
  row.firstElementChild.append(box);
  if (result.error && !known) {
    row.append(Object.assign(make("td", result.error, "error"), { colSpan: session.about.dimensions.length + 1 }));
  } else {
    row.append(...["overall", ...session.about.dimensions].map((name) => numberCell(entry, name)));
  }
  const last = make("td");
  last.append(button("Remove", `Remove ${name} from the table`, remove, "plain"));
  row.append(last);
  return row;
}

function numberCell(entry, name) {
  const cell = make("td", "", "value");
  const value = scoreOf(entry, name);
  const known = value !== null;
  cell.append(make("span", known ? value.toFixed(2) : isUnsure(entry, name) ? UNSURE : "none", known ? "painted" : ""));
  if (known) paint(cell.firstElementChild, value);
  const interval = entry.result.intervals?.[name];
  if (interval) cell.append(make("small", lowToHigh(interval), "interval"));
  return cell;
}

// ---- two side by side -------------------------------------------------------------------------------------------------

/** Show two pictures in the section for comparison. */
export function showPair([a, b]) {
  element("pair-pictures").replaceChildren(...[a, b].map(figureOf));
  element("pair-rows").replaceChildren(...["overall", ...session.about.dimensions].map((name) => pairRow(name, a, b)));
}

export function scoreOf(entry, name) {
  return (name === "overall" ? entry.result.overall : entry.result.scores[name]) ?? null;
}

/** Whether a score is hidden because its interval is too wide; for the overall score, whether any of the four is. */
function isUnsure({ result }, name) {
  const unsure = result.unsure ?? [];
  return name === "overall" ? unsure.length > 0 : unsure.includes(name);
}

function figureOf(entry, number) {
  const figure = make("figure");
  const address = entry.address || (entry.thumbnail && addressOf(entry.thumbnail));
  if (address) figure.append(Object.assign(make("img"), { alt: "", src: address }));
  const caption = make("figcaption");
  caption.append(make("b", `${"AB"[number]} `), ...breakable(entry.name));
  figure.append(caption);
  return figure;
}

function pairRow(name, a, b) {
  const row = make("tr");
  const title = Object.assign(make("th"), { scope: "row" });
  title.append(...(name === "overall" ? ["Overall"] : labelOf(name)));
  row.append(title, numberCell(a, name), numberCell(b, name), make("td", ahead(scoreOf(a, name), scoreOf(b, name))));
  return row;
}

function ahead(a, b) {
  if (a === null || b === null) return "cannot be said";
  const difference = Math.abs(a - b).toFixed(2);
  return difference === "0.00" ? "the same" : `${a > b ? "A" : "B"} by ${difference}`;
}
