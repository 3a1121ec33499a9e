// The pictures of this tab: the list, filter and order, removed ones, and the two being compared.

import { newRow, labelOf, scoreOf, showPair } from "./card.js";
import { button, capital, element, make } from "./parts.js";
import { session } from "./service.js";

const KEY = "saiqa-history-2"; // the layout of what is kept has changed since the first
const UNDOABLE = 20;

export let entries = kept(); // {name, batch, result, thumbnail, chosen}; of this load of the page: file, address, card, row
const removed = []; // lists of entries, the last removed at the end
let empty = true; // so far
let order = { by: "added", down: true };

// ---- kept until the tab is closed -------------------------------------------------------------------------------------

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return []; // of another version
  }
}

function keep() {
  const list = scored().map(({ name, batch, result, thumbnail }) => ({ name, batch, result, thumbnail }));
  try {
    sessionStorage.setItem(KEY, JSON.stringify(list));
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error; // the table is still there, until the page is loaded again
  }
}

export const scored = () => entries.filter((entry) => entry.result);

export function addEntries(added) {
  entries.push(...added);
  update();
}

/** Remove entries; undo restores them. */
export function remove(gone) {
  removed.push(gone);
  for (const old of removed.splice(0, removed.length - UNDOABLE).flat()) if (old.address) URL.revokeObjectURL(old.address);
  entries = entries.filter((entry) => !gone.includes(entry));
  update();
}

/** Restore what was removed last; returns the number of entries. */
export function undo() {
  const back = removed.pop() ?? [];
  entries = [...back, ...entries];
  update();
  return back.length;
}

export const canUndo = () => removed.length > 0;

// ---- what is shown ----------------------------------------------------------------------------------------------------

function sorted(list) {
  const { by, down } = order;
  const sign = down ? -1 : 1;
  if (by === "added") return [...list].sort((a, b) => sign * (a.batch - b.batch)); // within a choice of files, as they came
  if (by === "name") return [...list].sort((a, b) => sign * a.name.localeCompare(b.name));
  const value = (entry) => (entry.result ? scoreOf(entry, by) : null);
  const lacks = (entry) => value(entry) === null; // these come last
  return [...list].sort((a, b) => lacks(a) - lacks(b) || sign * (value(a) - value(b)));
}

function fitting(entry) {
  const least = Number(element("least").value) || 1;
  const score = entry.result ? scoreOf(entry, element("field").value) : null;
  const high = least <= 1 || (score !== null && score >= least);
  return high && entry.name.toLowerCase().includes(element("name").value.toLowerCase());
}

/** Show the current entries, keeping the focus. Until the service has answered, there are cards but no table. */
export function update() {
  keep();
  const met = Boolean(session.about);
  const focused = document.activeElement;
  const all = sorted(entries);
  const shown = all.filter((entry) => !entry.result || fitting(entry));
  element("results").replaceChildren(...shown.map((entry) => entry.card).filter(Boolean));
  element("results-section").hidden = !shown.some((entry) => entry.card);
  const rows = met ? shown.filter((entry) => entry.result) : [];
  for (const entry of rows) entry.row ??= newRow(entry, (on) => choose(entry, on), () => removeOne(entry));
  element("history").replaceChildren(...rows.map((entry) => entry.row));
  element("history-section").hidden = !met || !scored().length;
  if (!entries.length !== empty) element("start").open = empty = !entries.length; // in between it is the user's
  element("matching").textContent = rows.length < scored().length ? `${rows.length} of ${scored().length} shown` : "";
  element("undo").hidden = !canUndo();
  if (met) head();
  const pair = chosen();
  element("pair-section").hidden = pair.length < 2;
  if (pair.length === 2) showPair(pair);
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

export function removeOne(entry) {
  const rows = [...element("history").children];
  const next = rows[rows.indexOf(entry.row) + 1] ?? rows[rows.indexOf(entry.row) - 1];
  remove([entry]);
  element("status").textContent = `${entry.name} is removed.`;
  (next?.querySelector("button") ?? element("undo")).focus({ preventScroll: true });
}

// ---- the table's head -------------------------------------------------------------------------------------------------

export function head() {
  const columns = { name: ["Picture"], overall: ["Overall"] };
  for (const dimension of session.about.dimensions) columns[dimension] = labelOf(dimension);
  if (!element("history-head").children.length) {
    const cells = Object.entries(columns).map(([name, label]) => headCell(name, label));
    element("history-head").append(unseenCell("Compare"), ...cells, unseenCell("Remove"));
    element("field").replaceChildren(...Object.keys(columns).slice(1).map((name) => new Option(capital(name), name)));
  }
  for (const cell of element("history-head").querySelectorAll("[data-column]")) {
    cell.ariaSort = cell.dataset.column !== order.by ? "none" : order.down ? "descending" : "ascending";
  }
}

function headCell(name, label) {
  const cell = Object.assign(make("th"), { scope: "col" });
  cell.dataset.column = name;
  const press = button("", "", () => sortBy(name), "sort");
  press.removeAttribute("aria-label");
  press.append(...label);
  cell.append(press);
  return cell;
}

function unseenCell(text) {
  const cell = Object.assign(make("th"), { scope: "col" });
  cell.append(make("span", text, "unseen"));
  return cell;
}

/** First scores highest first and names from A; then the reverse; then the original order. */
function sortBy(name) {
  const first = name !== "name";
  if (order.by !== name) order = { by: name, down: first };
  else order = order.down === first ? { by: name, down: !first } : { by: "added", down: true };
  update();
}

// ---- two of them ------------------------------------------------------------------------------------------------------

const chosen = () => entries.filter((entry) => entry.chosen && entry.result).sort((a, b) => a.chosen - b.chosen);

/** Select an entry for comparison, or deselect it; a third one replaces the first. */
function choose(entry, on) {
  entry.chosen = on ? Math.max(0, ...chosen().map((one) => one.chosen)) + 1 : 0;
  const [first, , third] = chosen();
  if (third) {
    first.chosen = 0;
    first.row.querySelector("input").checked = false;
  }
  update();
  const many = chosen().length;
  if (many === 2) element("pair-section").scrollIntoView(); // the table is below it
  element("status").textContent = many === 2 ? "The two are side by side above the table." : many ? "Choose another to compare with." : "";
}

export function endPair() {
  for (const entry of chosen()) {
    entry.chosen = 0;
    entry.row.querySelector("input").checked = false;
  }
  update();
  element("history").querySelector("input:not(:disabled)")?.focus();
}
