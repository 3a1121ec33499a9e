// The table as a file: the columns of score_images.py --output_csv --probabilities, in full precision.

import { make } from "./parts.js";
import { session } from "./service.js";

function csv(entries) {
  const { dimensions, words } = session.about;
  const pairs = dimensions.flatMap((dimension) => Object.keys(words).map((word) => [dimension, word]));
  const header = ["image", ...dimensions, "overall", ...pairs.map((pair) => pair.join("_")), "error"];
  const rows = entries.map(({ name, result }) => [
    name,
    ...dimensions.map((dimension) => result.scores[dimension]),
    result.overall,
    ...pairs.map(([dimension, word]) => result.probabilities[dimension]?.[word]),
    result.error,
  ]);
  return [header, ...rows].map((cells) => cells.map(cell).join(",") + "\r\n").join("");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function download(entries) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([csv(entries)], { type: "text/csv" }));
  link.download = "sa-iqa-scores.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
