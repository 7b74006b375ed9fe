// @ts-check
// The page: its parts, and what is drawn again when which part of the state changes.

import { d3 } from "./vendor/d3.js";
import { drawCircuit, drawCircuitKey, LIMITS } from "./circuit.js";
import { choose, drawComparison } from "./compare.js";
import { drawComponent, drawMatches } from "./component.js";
import { namedBy, TABLES } from "./data.js";
import { drawHead } from "./head.js";
import { drawHistory } from "./history.js";
import { drawInfluence } from "./influence.js";
import { drawNotes } from "./notes.js";
import { drawOverlay, HIGHEST, LOWEST } from "./overlay.js";
import { saveButtons } from "./save.js";
import { dark, player, press, SCALES } from "./keys.js";
import { markTracks } from "./lanes.js";
import { drawLineage } from "./lineage.js";
import { clipped, lifted } from "./paper.js";
import { fromFragment, makeStore, toFragment } from "./state.js";
import { drawTable } from "./table.js";
import { showTips, tell } from "./tip.js";
import { kindOf, short, stageClock } from "./time.js";
import { drawOverview, spanOf, zoomByKey } from "./zoom.js";

/** @typedef {import("./data.js").Page} Page */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Store} Store */

/** Parts of the page by name; the text of the page is here and in head.js alone. */
const SKELETON = `
<header class="top"><div><h1></h1><p class="about meta"></p></div>
  <div class="head-buttons"><button type="button" class="quiet help" aria-expanded="false">How to read this</button>
  <button type="button" class="quiet note-button" aria-expanded="false">Notes</button>
  <button type="button" class="quiet theme">Light or dark</button></div></header>
<section class="guide" hidden aria-label="How to read this"><dl></dl>
<p class="keys"><kbd>←</kbd> <kbd>→</kbd> step, with <kbd>Shift</kbd> to the next event · <kbd>Home</kbd> <kbd>End</kbd> ·
  <kbd>Space</kbd> play · <kbd>↑</kbd> <kbd>↓</kbd> component · <kbd>Esc</kbd> none · <kbd>u</kbd> steps or tokens ·
  <kbd>l</kbd> axis · <kbd>+</kbd> <kbd>-</kbd> zoom, also the wheel with <kbd>Ctrl</kbd>; <kbd>[</kbd> <kbd>]</kbd> move; <kbd>0</kbd> the whole run · <kbd>/</kbd> filter · <kbd>d</kbd> dark. The address holds the view: copy it to share what you see.</p></section>
<section class="notes" hidden aria-label="Notes"></section>
<p class="story"></p>
<div class="summary"><section class="findings folded" aria-label="Findings"><h2></h2><ol></ol><div class="rest"></div><button type="button" class="quiet unfold"></button></section>
<section class="comparison" aria-label="Formation"></section></div>
<div class="bar" role="group" aria-label="Time">
  <button type="button" class="play" aria-label="Play">▶</button>
  <input type="range" class="scrub" min="0" step="1" aria-label="Training step">
  <output class="now"></output>
  <span class="choices"></span>
  <div class="part"><div class="whole-run"></div><span class="zooms" role="group" aria-label="Part of the run"></span></div></div>
<div class="columns"><div class="main"><section class="over-time" aria-label="Over training"></section>
  <section class="overlay" aria-label="Over one another"></section>
  <section class="matched" aria-label="Matches" hidden></section></div>
  <div class="side"><section class="graph" aria-label="Circuit"><div class="panel-head"><h2>Circuit</h2><span class="choices"></span></div>
  <div class="drawing"></div><p class="caption"></p><p class="key"></p></section>
  <section class="component" aria-label="Component"></section></div></div>
<section class="lineage" aria-label="Lineage" hidden></section>
<section class="influences" aria-label="Influence of training data" hidden></section>
<section class="numbers" aria-label="Tables"><h2>Every number shown</h2><div class="table"></div></section>
<footer class="meta"><details><summary>What was run</summary><div class="panel-head"><h3>Commands, versions and checkpoints</h3><button type="button" class="copy-made">Copy</button></div><pre class="made" tabindex="0"></pre><h3>Settings</h3><div class="settings"></div></details><p class="version"></p></footer>`;

/**
 * Show a page in an element.
 * @param {HTMLElement} root
 * @param {Page} page
 * @param {{address?: boolean, changed?: (state: State, run: Run) => void}} [options]
 */
export function mount(root, page, { address = true, changed = () => {} } = {}) {
  root.classList.add("formation");
  root.innerHTML = SKELETON;
  const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (root.querySelector(name));
  const initial = initialState(page);
  const store = makeStore(checked(page, address ? fromFragment(location.hash || document.documentElement.dataset.view || "", initial) : initial));
  const runOf = () => page.runs.find((run) => run.name === store.state.run) ?? page.runs[0];
  const colour = (/** @type {string} */ role) => lifted(page.colours[role] ?? "#7F7F7F");
  let move = { history: noop, overlay: noop, circuit: noop, component: noop, overview: noop };
  /** @type {() => void} */
  let fillTable = () => {};

  const context = () => ({ run: runOf(), colour, store, page });
  const step = () => {
    const run = runOf();
    const place = store.state.step;
    const slider = /** @type {HTMLInputElement} */ (part(".scrub"));
    slider.value = String(place);
    slider.setAttribute("aria-valuetext", `step ${run.steps[place]}`);
    part(".now").textContent = `step ${run.steps[place].toLocaleString("en")}${stageClock(run, run.steps[place])}${run.tokens ? ` · ${short(run.tokens[place])} tokens` : ""}`;
    for (const view of Object.values(move)) view(place);
  };
  const draw = (/** @type {Set<string>} */ what) => {
    const any = (/** @type {string[]} */ ...names) => names.some((name) => what.has(name));
    const axis = any("run", "unit", "scale", "size", "view");
    if (any("run")) {
      part(".graph h2").textContent = page.runs.length > 1 ? `Circuit of ${clipped(namedBy(page, runOf()), 40)}` : "Circuit";
      drawHead(page, runOf(), part, colour, (component, at) => store.set({ component, step: runOf().steps.indexOf(at) }));
      drawCircuitKey(part(".key"), context());
      part(".scrub").setAttribute("max", String(runOf().steps.length - 1));
    }
    if (any("run", "unit", "scale", "view")) drawChoices(part(".bar .choices"), page, runOf(), store);
    if (axis) drawZooms(part(".zooms"), runOf(), store);
    if (axis) move.overview = drawOverview(part(".whole-run"), context());
    if (any("run", "task", "edges")) drawCircuitChoices(part(".graph .choices"), runOf(), store);
    if (axis || any("definition", "clock", "span", "each")) drawComparison(part(".comparison"), context());
    if (axis || any("open", "definition")) move.history = drawHistory(part(".over-time"), context());
    if (axis) drawLineage(part("section.lineage"), context());
    if (any("task", "size")) drawInfluence(part("section.influences"), page);
    if (any("run", "task", "size")) move.circuit = drawCircuit(part(".drawing"), part(".caption"), context());
    if (axis || any("component", "definition")) move.component = drawComponent(part(".component"), context());
    if (any("run", "size", "component")) drawMatches(part(".matched"), context());
    if (axis || any("component", "definition", "task", "open", "what", "heads", "runs")) {
      if (!part("svg.over")) drawOverlay(part(".overlay"), context(), LOWEST);
      move.overlay = drawOverlay(part(".overlay"), context(), heightOf(part(".columns")));
    }
    if (any("run")) fillTable = drawTable(part(".table"), context());
    else if (any("table", "filter", "here") || (store.state.here && any("step", "component"))) fillTable();
    if (any("run", "notes")) drawNotes(part(".notes"), runOf(), store, (note) => store.set(checked(page, { ...store.state, ...note, text: undefined })), address);
    if (any("theme")) for (const one of address ? [root, document.documentElement] : [root]) one.dataset.theme = store.state.theme;
    // A drawing that is wider than its place, as on paper, is made smaller.
    for (const svg of root.querySelectorAll("svg[width][height]:not([viewBox])")) svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    markTracks(part(".over-time"), store.state.component);
    step();
  };

  part(".summary").classList.toggle("several", page.runs.length > 1);
  const play = player(store, runOf, part(".play"));
  part(".scrub").addEventListener("input", (event) => store.set({ step: Number(/** @type {HTMLInputElement} */ (event.target).value) }));
  part(".theme").addEventListener("click", () => store.set({ theme: dark(store.state.theme) ? "light" : "dark" }));
  part(".play").addEventListener("click", play);
  const unfolds = (/** @type {string} */ button, /** @type {string} */ section) =>
    part(button).addEventListener("click", () => {
      part(section).hidden = !part(section).hidden;
      part(button).setAttribute("aria-expanded", String(!part(section).hidden));
    });
  unfolds(".help", ".guide");
  unfolds(".note-button", ".notes");
  part(".notes").hidden = !store.state.notes;
  part(".note-button").setAttribute("aria-expanded", String(!part(".notes").hidden));
  store.listen((state, what) => {
    const fit = fitted(page, state);
    if (fit.step !== state.step || fit.task !== state.task) return store.set({ step: fit.step, task: fit.task }), draw(what);
    draw(what);
    if (address) history.replaceState(null, "", `#${toFragment(stepped(state, runOf()), initial)}`);
    changed(state, runOf());
  });
  (address ? document : root).addEventListener("keydown", (event) => press(/** @type {KeyboardEvent} */ (event), store, runOf(), play, part(".filter")));
  if (address) addEventListener("hashchange", () => store.set(checked(page, fromFragment(location.hash, initial))));
  draw(new Set(["run", "task", "theme", "component"]));
  showTips(root);
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2) return;
    width = root.clientWidth;
    draw(new Set(["size"]));
  }).observe(root);
  return store;
}

const AXES = { auto: "the time axis on which the checkpoints can be seen", log: "logarithmic time", linear: "linear time", even: "one distance between any two checkpoints" };

/** How high the lines over one another may be, so that both columns end together. @param {HTMLElement} columns */
function heightOf(columns) {
  const lines = columns.querySelector("svg.over");
  const now = Number(lines?.getAttribute("height") ?? LOWEST);
  columns.style.alignItems = "start";
  const [main, side] = [".main", ".side"].map((name) => /** @type {HTMLElement} */ (columns.querySelector(name)));
  const room = main.offsetTop === side.offsetTop ? side.offsetHeight - main.offsetHeight : 0;
  columns.style.alignItems = "";
  return Math.max(LOWEST, Math.min(HIGHEST, now + room));
}

const noop = (/** @type {number} */ _) => {};

/** In an address the step is the training step, which stays right when checkpoints are added. @param {State} state @param {Run} run */
const stepped = (state, run) => ({ ...state, step: run.steps[state.step] ?? 0 });

/** The view a page opens with: the last checkpoint of the first run. @param {Page} page @returns {State} */
function initialState(page) {
  const run = page.runs[0];
  const tasks = Object.keys(run.circuits);
  return {
    run: run.name, step: run.steps[run.steps.length - 1], task: tasks[0] ?? "", component: "", unit: "step", scale: "auto",
    definition: "", clock: "", edges: "100", table: "formation", filter: "", here: false, theme: "", open: "", span: "", view: "", what: "", heads: "", runs: "", each: "", notes: "",
  };
}

/** A state from an address, made to fit the page: the step becomes a place, names that are not there fall back. @param {Page} page @param {State} state */
function checked(page, state) {
  const run = page.runs.find((one) => one.name === state.run) ?? page.runs[0];
  const nearest = run.steps.reduce((best, at, place) => (Math.abs(at - state.step) < Math.abs(run.steps[best] - state.step) ? place : best), 0);
  const edges = LIMITS.includes(state.edges) ? state.edges : "100";
  const table = TABLES.some((name) => name === state.table) ? state.table : TABLES[0];
  return fitted(page, { ...state, edges, table, run: run.name, step: nearest });
}

/** A state whose place and task are those of its run. @param {Page} page @param {State} state @returns {State} */
function fitted(page, state) {
  const run = page.runs.find((one) => one.name === state.run) ?? page.runs[0];
  const tasks = Object.keys(run.circuits);
  const step = Math.max(0, Math.min(state.step, run.steps.length - 1));
  return { ...state, step, task: tasks.includes(state.task) ? state.task : (tasks[0] ?? "") };
}

/** The switches over all panels: run, steps or tokens, kind of axis. @param {HTMLElement} element @param {Page} page @param {Run} run @param {Store} store */
function drawChoices(element, page, run, store) {
  const root = d3.select(element).html("");
  const toggle = (/** @type {string} */ key, /** @type {string[][]} */ names, /** @type {string} */ label) => {
    const group = root.append("span").attr("class", "toggle").attr("role", "group").attr("aria-label", label);
    for (const [value, text, note] of names) {
      const button = group.append("button").attr("type", "button").attr("data-value", value).text(text);
      tell(button, note).attr("aria-pressed", String(store.state[key] === value)).on("click", () => store.set({ [key]: value }));
    }
  };
  choose(root, "run", "Run", page.runs.map((one) => [one.name, page.runs.length > 1 ? namedBy(page, one) : one.name]), store.state.run, store);
  if (run.tokens) toggle("unit", [["step", "steps", "time in training steps"], ["tokens", "tokens", "time in tokens seen"]], "Unit of time");
  toggle("scale", SCALES.map((name) => [name, name === "auto" ? `auto: ${automatic(run, store.state)}` : name, AXES[name]]), "Axis");
}

/** Which scale `auto` chose. @param {Run} run @param {State} state */
function automatic(run, state) {
  const kind = kindOf(run, state.unit, "auto", spanOf(state, run));
  return kind.startsWith("log") ? "log" : kind;
}

/** Buttons for the part of the run that is drawn. @param {HTMLElement} element @param {Run} run @param {Store} store */
function drawZooms(element, run, store) {
  const root = d3.select(element).html("");
  for (const [key, text, name] of [["-", "−", "Zoom out"], ["+", "+", "Zoom in on the step"], ["0", "Whole run", "Draw the whole run"]]) {
    const button = root.append("button").attr("type", "button").attr("class", "quiet").attr("data-zoom", key).text(text).on("click", () => zoomByKey(store, run, key));
    tell(button, `${name}, in every chart (key ${key})`).attr("aria-label", name).attr("disabled", key === "+" || store.state.view ? null : "");
  }
}

/** Whose circuit is drawn, and how many of its edges. @param {HTMLElement} element @param {Run} run @param {Store} store */
function drawCircuitChoices(element, run, store) {
  const root = d3.select(element).html("");
  const tasks = Object.keys(run.circuits);
  choose(root, "task", "Task", tasks.map((name) => [name, name]), store.state.task, store);
  const most = (run.circuits[store.state.task]?.at ?? []).reduce((high, at) => Math.max(high, at?.edges.length ?? 0), 0);
  saveButtons(root, () => element.closest(".graph")?.querySelector("svg.circuit") ?? null, () => `${run.name}-circuit-step-${run.steps[store.state.step]}`);
  if (most > Number(LIMITS[0])) choose(root, "edges", "Edges", LIMITS.map((limit) => [limit, `up to ${limit}`]), store.state.edges, store);
}
