"use strict";
const AT_ONCE = 120; // cards that are made at a time: a page of ten thousand opens as fast as one of a hundred
const by = (id) => document.getElementById(id);
const { dimensions, cards } = JSON.parse(by("data").textContent);
let shown = AT_ONCE;

const score = (card, name) => (name === "overall" ? card.overall : card.scores[dimensions.indexOf(name)]) ?? null;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function chip(name, value, percentile) {
  const place = percentile === undefined ? "" : ` (${Math.round(percentile)}%)`;
  return make("li", `chip s${Math.min(5, Math.max(1, Math.round(value)))}`, `${name} ${value.toFixed(2)}${place}`);
}

function picture(card) {
  if (!card.source) return make("div", "none");
  return Object.assign(make("img"), { alt: card.name, loading: "lazy", decoding: "async", src: card.source });
}

function element(card) {
  const item = make("li", "card"), text = make("div", "text"), scores = make("ul", "scores");
  for (const name of ["overall", ...dimensions]) {
    if (score(card, name) !== null) scores.append(chip(name, score(card, name), card.percentiles[name]));
  }
  const name = make("div", "name");
  name.append(...card.name.split(/(?<=[-_./])/).flatMap((part) => [part, make("wbr")])); // a long name may break there
  text.append(name, scores);
  if (card.verdict) text.append(make("div", "quiet", card.verdict));
  item.append(picture(card), text);
  return item;
}

function fitting() {
  const field = by("field").value, least = Number(by("least").value), most = Number(by("most").value);
  const name = by("name").value.toLowerCase(), group = by("group")?.value ?? "";
  const all = least <= 1 && most >= 5; // pictures that lack this score, too
  return cards.filter((card) => {
    const value = score(card, field);
    return (all || (value !== null && value >= least && value <= most)) && (!group || card.group === group)
      && card.name.toLowerCase().includes(name);
  });
}

function sorted(found) {
  const name = by("sort").value, direction = Number(by("direction").value);
  if (name === "order") return direction > 0 ? found : found.reverse();
  const lacks = (card) => score(card, name) === null; // these come last
  return found.sort((a, b) => lacks(a) - lacks(b) || direction * (score(a, name) - score(b, name)));
}

function show() {
  const found = sorted(fitting());
  by("cards").replaceChildren(...found.slice(0, shown).map(element));
  const seen = Math.min(shown, found.length);
  by("count").textContent = seen < found.length ? `${found.length} pictures, the first ${seen} shown` : `${found.length} shown`;
  by("more").hidden = seen === found.length;
}

function more() {
  const next = shown;
  shown += AT_ONCE;
  show();
  const first = by("cards").children[next]; // where reading goes on
  first.tabIndex = -1;
  first.focus();
}

function anew() {
  shown = AT_ONCE;
  show();
}

for (const id of ["sort", "direction", "field", "least", "most", "name", "group"])
  for (const kind of ["input", "change"]) by(id)?.addEventListener(kind, anew);
by("more").addEventListener("click", more);
show();
