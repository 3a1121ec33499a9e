// The table as a file: the columns of score_images.py --output_csv --probabilities, in full precision.

import { make } from "./parts.js";
import { session } from "./service.js";

function csv(entries) {
  const { dimensions, words, confidence, max_width: mostWidth } = session.about;
  const pairs = dimensions.flatMap((dimension) => Object.keys(words).map((word) => [dimension, word]));
  const ends = confidence ? dimensions.flatMap((dimension) => [[dimension, 0], [dimension, 1]]) : [];
  const unsure = mostWidth === null ? [] : ["unsure"];
  const bounds = ends.map(([dimension, end]) => `${dimension}_${["low", "high"][end]}`);
  const header = ["image", ...dimensions, "overall", ...bounds, ...unsure, ...pairs.map((pair) => pair.join("_")), "error"];
  const rows = entries.map(({ name, result }) => [
    name,
    ...dimensions.map((dimension) => result.scores[dimension]),
    result.overall,
    ...ends.map(([dimension, end]) => result.intervals?.[dimension]?.[end]),
    ...unsure.map(() => (result.unsure ?? []).join(" ")),
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
