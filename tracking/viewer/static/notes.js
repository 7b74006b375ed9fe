// @ts-check
// What does the reader think of it? Notes at a step and a component, which travel in the address and in a saved page.

import { d3 } from "./vendor/d3.js";
import { download } from "./save.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {{run: string, step: number, component: string, text: string}} Note */

/** Notes from the state; what cannot be read is none. @param {string} text @returns {Note[]} */
export function notesOf(text) {
  try {
    const found = JSON.parse(text || "[]");
    return Array.isArray(found) ? found.filter((note) => typeof note?.text === "string" && Number.isFinite(note.step)) : [];
  } catch {
    return [];
  }
}

/**
 * @param {HTMLElement} element
 * @param {Run} run
 * @param {Store} store
 * @param {(note: Note) => void} go
 * @param {boolean} saves whether the page can be saved with its notes
 */
export function drawNotes(element, run, store, go, saves) {
  const root = d3.select(element).html("");
  const notes = notesOf(store.state.notes);
  const keep = (/** @type {Note[]} */ some) => store.set({ notes: some.length ? JSON.stringify(some) : "" });
  root.append("h2").text("Notes");
  const list = root.append("ul").attr("class", "notes-list");
  notes.forEach((note, i) => {
    const item = list.append("li");
    const where = [note.run === run.name ? "" : note.run, `step ${note.step.toLocaleString("en")}`, note.component].filter(Boolean).join(" · ");
    item.append("button").attr("type", "button").attr("class", "quiet").text(where).on("click", () => go(note));
    item.append("span").text(note.text);
    item.append("button").attr("type", "button").attr("class", "quiet drop").attr("aria-label", `Remove the note at ${where}`).text("Remove").on("click", () => keep(notes.filter((_, k) => k !== i)));
  });
  const form = root.append("form").attr("class", "note-form");
  const field = form.append("input").attr("type", "text").attr("class", "note").attr("aria-label", "A note on this step and component").attr("placeholder", "A note on this step and component");
  form.append("button").attr("type", "submit").text("Add");
  form.on("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    const text = String(field.property("value")).trim();
    if (text) keep([...notes, { run: run.name, step: run.steps[store.state.step], component: store.state.component, text }]);
  });
  if (saves) form.append("button").attr("type", "button").attr("class", "quiet save-page").text("Save the page with its notes").on("click", () => download(`${run.name}.html`, "text/html", withView(location.hash)));
}

/** This page as a file that opens with a view. @param {string} hash */
function withView(hash) {
  const copy = /** @type {HTMLElement} */ (document.documentElement.cloneNode(true));
  copy.dataset.view = hash;
  const main = copy.querySelector("#page");
  if (main) [main.innerHTML, main.className] = ["", ""];
  return `<!doctype html>\n${copy.outerHTML}`;
}
