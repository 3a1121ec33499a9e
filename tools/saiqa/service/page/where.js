// Where a score comes from: the map of a dimension over the picture of its card.

import { button, capital, make } from "./parts.js";
import { ask, session } from "./service.js";

// Like `saiqa.pictures.overlay`: red, at full strength from FULL points on, nothing below WEAKEST.
const RED = [220, 20, 30];
const STRONGEST = 0.6;
const FULL = 0.05;
const WEAKEST = 0.005;
const MOST_PIXELS = 1200; // of the longer side of what is drawn

/** A button for a dimension of a card, and the text for its map. None if the service has no maps. */
export function whereOf(entry, dimension, say) {
  const standing = session.about.maps[dimension];
  if (!standing || !entry.file) return [];
  const words = Object.assign(make("p", "", "standing"), { hidden: true });
  const press = button("Where?", `Where the ${dimension} of ${entry.name} is lowered`, () => toggle(), "plain");
  press.ariaExpanded = "false";

  async function toggle() {
    const opens = press.ariaExpanded === "false";
    press.ariaExpanded = String(opens);
    words.hidden = !opens;
    if (!opens && entry.shown === dimension) plain(entry);
    if (!opens) return;
    words.textContent = "Looking.";
    press.disabled = true;
    try {
      entry.maps ??= {};
      entry.maps[dimension] ??= await mapOf(entry.file, dimension);
      words.textContent = `${worst(entry.maps[dimension], dimension)} ${capital(standing)}.`;
      await draw(entry, dimension);
    } catch (error) {
      say(`${error.message}.`);
      press.ariaExpanded = "false";
      words.hidden = true;
    } finally {
      press.disabled = false;
    }
  }

  return [press, words];
}

async function mapOf(file, dimension) {
  const answer = await ask("explain", [file], { dimensions: dimension });
  if (answer.error) throw new Error(answer.error);
  return answer.map;
}

/** Row and column of the highest value, and the value. */
function highest(map) {
  return map.flatMap((row, y) => row.map((value, x) => ({ x, y, value }))).reduce((a, b) => (b.value > a.value ? b : a));
}

function worst(map, dimension) {
  const { x, y, value } = highest(map);
  if (value < WEAKEST) return `No place lowers the ${dimension} much.`;
  const third = (place, of, names) => names[Math.min(2, Math.floor(((place + 0.5) / of) * 3))];
  const where = [third(y, map.length, ["top", "middle", "bottom"]), third(x, map[0].length, ["left", "middle", "right"])];
  return `Lowered most ${where[0] === where[1] ? "in the middle" : `at the ${where.join(" ")}`}, by ${value.toFixed(2)} points.`;
}

/** Draw the map over the card's picture; the last of several wins. A picture that the browser cannot read is left alone. */
async function draw(entry, dimension) {
  const map = entry.maps[dimension];
  const picture = await createImageBitmap(entry.file).catch(() => null);
  if (!picture) return;
  const scale = Math.min(1, MOST_PIXELS / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((size) => Math.max(1, Math.round(size * scale)));
  const canvas = Object.assign(make("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  const { x, y, value } = highest(map);
  if (value >= WEAKEST) {
    context.drawImage(red(map, value), 0, 0, width, height);
    context.strokeStyle = `rgb(${RED})`;
    context.lineWidth = Math.max(2, width / 120);
    const [across, down] = [width / map[0].length, height / map.length];
    context.strokeRect(x * across, y * down, across, down);
  }
  const drawn = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  plain(entry);
  entry.shown = dimension; // whose map lies over the picture
  entry.mapAddress = URL.createObjectURL(drawn);
  entry.card.querySelector("img").src = entry.mapAddress;
}

/** The map as a small picture that the browser scales up. */
function red(map, value) {
  const small = Object.assign(make("canvas"), { width: map[0].length, height: map.length });
  const share = (one) => Math.round((Math.max(0, one) / value) * STRONGEST * Math.min(1, value / FULL) * 255);
  const pixels = Uint8ClampedArray.from(map.flat().flatMap((one) => [...RED, share(one)]));
  small.getContext("2d").putImageData(new ImageData(pixels, small.width, small.height), 0, 0);
  return small;
}

function plain(entry) {
  if (entry.mapAddress) URL.revokeObjectURL(entry.mapAddress);
  entry.mapAddress = entry.shown = null;
  entry.card.querySelector("img").src = entry.address;
}
