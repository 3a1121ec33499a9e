// Shared by the parts of the page: elements, words and colours.

export const element = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

export const percent = (share) => `${Math.round(share * 1000) / 10} %`;

/** A name that may wrap after punctuation, but not directly before the suffix. */
export function breakable(name) {
  return name.split(/(?<=[-_/])/).flatMap((part) => [part, make("wbr")]);
}

/** A button with an accessible name that is longer than its text. */
export function button(text, name, act, className = "") {
  const made = make("button", text, className);
  made.type = "button";
  made.ariaLabel = name;
  made.addEventListener("click", act);
  return made;
}

// ---- colours ----------------------------------------------------------------------------------------------------------

// From matplotlib's cividis: perceptually uniform from dark to light, also for colour-blind readers.
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

/** Give a number, or the bar of one, the colour of a score from 1 to 5. */
export function paint(target, score) {
  const at = (Math.min(5, Math.max(1, score)) - 1) / 4 * (CIVIDIS.length - 1);
  const low = Math.min(CIVIDIS.length - 2, Math.floor(at));
  const colour = CIVIDIS[low].map((value, i) => Math.round(value + (CIVIDIS[low + 1][i] - value) * (at - low)));
  const [r, g, b] = colour.map((value) => (value / 255 <= 0.04 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  target.style.setProperty("--paint", `rgb(${colour.join(" ")})`);
  // Black or white, whichever has more contrast: at least 4.5 to 1.
  target.style.setProperty("--ink", 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff");
  return target;
}

// ---- thumbnails -------------------------------------------------------------------------------------------------------

const THUMBNAIL_PIXELS = 96; // of the longer side

/** A small JPEG of a picture in base64; empty if the browser cannot read it. */
export async function thumbnailOf(file) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, THUMBNAIL_PIXELS / Math.max(picture.width, picture.height));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(picture.width * scale)),
      height: Math.max(1, Math.round(picture.height * scale)),
    });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
    return canvas.toDataURL("image/jpeg", 0.75).split(",")[1];
  } catch {
    return "";
  }
}

/** A URL for such a thumbnail that the page's policy allows. */
export function addressOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
}
