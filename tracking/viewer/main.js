// @ts-check
// The page: its parts, its controls and its keys.

import { d3 } from "./vendor/d3.js";
import { drawCircuit, drawCircuitKey } from "./circuit.js";
import { drawComparison } from "./compare.js";
import { drawComponent } from "./component.js";
import { rowsOf } from "./data.js";
import { drawHistory, markTracks } from "./history.js";
import { fromFragment, makeStore, toFragment } from "./state.js";
import { drawTable } from "./table.js";
import { short } from "./time.js";

/** @typedef {import("./data.js").Page} Page */
/** @typedef {import("./data.js").Run} Run */

const SCALES = /** @type {const} */ (["auto", "log", "linear", "even"]);

/** How many findings stand above the fold. */
const FOLDED = 6;

/** Parts of the page by name; the text of the page is here alone. */
const SKELETON = `
<header class="top"><div><h1></h1><p class="about meta"></p></div>
  <div class="head-buttons"><button type="button" class="quiet help" aria-expanded="false">Keys</button>
  <button type="button" class="quiet theme">Theme</button></div></header>
<p class="keys" hidden><kbd>←</kbd> <kbd>→</kbd> step, with <kbd>Shift</kbd> to the next event · <kbd>Home</kbd> <kbd>End</kbd> ·
  <kbd>Space</kbd> play · <kbd>↑</kbd> <kbd>↓</kbd> component · <kbd>Esc</kbd> none · <kbd>u</kbd> steps or tokens ·
  <kbd>l</kbd> axis · <kbd>/</kbd> filter · <kbd>d</kbd> dark</p>
<section class="findings folded" aria-label="Findings"><ol></ol><button type="button" class="quiet unfold"></button></section>
<div class="bar" role="group" aria-label="Time">
  <button type="button" class="play" aria-label="Play">▶</button>
  <input type="range" class="scrub" min="0" step="1" aria-label="Training step">
  <output class="now"></output>
  <span class="choices"></span></div>
<section class="comparison" hidden aria-label="Comparison of the runs"></section>
<div class="columns"><section class="over-time" aria-label="Over training"></section>
  <div class="side"><section class="graph" aria-label="Circuit"><div class="drawing"></div><p class="caption"></p><p class="key"></p></section>
  <section class="component" aria-label="Component"></section></div></div>
<section class="numbers" aria-label="Tables"><h2>Every number shown</h2><div class="table"></div></section>
<footer class="meta"><details><summary>What was run</summary><div class="settings"></div></details><p class="version"></p></footer>`;

/**
 * Show a page in an element.
 * @param {HTMLElement} root
 * @param {Page} page
 * @param {{address?: boolean, changed?: (state: import("./state.js").State, run: Run) => void}} [options]
 */
export function mount(root, page, { address = true, changed = () => {} } = {}) {
  root.classList.add("formation");
  root.innerHTML = SKELETON;
  const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (root.querySelector(name));
  const initial = initialState(page);
  const store = makeStore(checked(page, address ? fromFragment(location.hash, initial) : initial));
  const runOf = () => page.runs.find((run) => run.name === store.state.run) ?? page.runs[0];
  const colour = (/** @type {string} */ role) => page.colours[role] ?? "#7F7F7F";
  let move = { history: noop, circuit: noop, component: noop };
  /** @type {() => void} */
  let fillTable = () => {};

  const context = () => ({ run: runOf(), colour, store, page });
  const step = () => {
    const run = runOf();
    const place = store.state.step;
    const slider = /** @type {HTMLInputElement} */ (part(".scrub"));
    slider.value = String(place);
    slider.setAttribute("aria-valuetext", `step ${run.steps[place]}`);
    part(".now").textContent = `step ${run.steps[place].toLocaleString("en")}${run.tokens ? ` · ${short(run.tokens[place])} tokens` : ""}`;
    for (const view of Object.values(move)) view(place);
  };
  const draw = (/** @type {Set<string>} */ what) => {
    const any = (/** @type {string[]} */ ...names) => names.some((name) => what.has(name));
    const axis = any("run", "unit", "scale", "size");
    if (any("run")) {
      drawHead(page, runOf(), part, colour);
      drawCircuitKey(part(".key"), context());
      part(".scrub").setAttribute("max", String(runOf().steps.length - 1));
    }
    if (any("run", "unit", "scale", "task")) drawChoices(part(".choices"), page, runOf(), store);
    if (axis && page.runs.length > 1) drawComparison(part(".comparison"), context());
    if (axis || any("open")) move.history = drawHistory(part(".over-time"), context());
    if (any("run", "task", "size")) move.circuit = drawCircuit(part(".drawing"), part(".caption"), context());
    if (axis || any("component")) move.component = drawComponent(part(".component"), context());
    if (any("run")) fillTable = drawTable(part(".table"), context());
    else if (any("table", "filter", "here") || (store.state.here && any("step", "component"))) fillTable();
    if (any("theme")) for (const one of address ? [root, document.documentElement] : [root]) one.dataset.theme = store.state.theme;
    markTracks(part(".over-time"), store.state.component);
    step();
  };

  part(".comparison").hidden = page.runs.length < 2;
  const play = player(store, runOf, part(".play"));
  part(".scrub").addEventListener("input", (event) => store.set({ step: Number(/** @type {HTMLInputElement} */ (event.target).value) }));
  part(".theme").addEventListener("click", () => store.set({ theme: dark(store.state.theme) ? "light" : "dark" }));
  part(".help").addEventListener("click", () => {
    const keys = part(".keys");
    keys.hidden = !keys.hidden;
    part(".help").setAttribute("aria-expanded", String(!keys.hidden));
  });
  store.listen((state, what) => {
    const fit = fitted(page, state);
    if (fit.step !== state.step || fit.task !== state.task) return store.set({ step: fit.step, task: fit.task }), draw(what);
    draw(what);
    if (address) history.replaceState(null, "", `#${toFragment(stepped(state, runOf()), stepped(initial, page.runs[0]))}`);
    changed(state, runOf());
  });
  (address ? document : root).addEventListener("keydown", (event) => key(/** @type {KeyboardEvent} */ (event), store, runOf, play, part(".filter")));
  if (address) addEventListener("hashchange", () => store.set(checked(page, fromFragment(location.hash, initial))));
  draw(new Set(["run", "task", "theme", "component"]));
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2) return;
    width = root.clientWidth;
    draw(new Set(["size"]));
  }).observe(root);
  return store;
}

const noop = (/** @type {number} */ _) => {};

const dark = (/** @type {string} */ theme) => (theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

/** In an address the step is the training step, which stays right when checkpoints are added. */
const stepped = (state, run) => ({ ...state, step: run.steps[state.step] ?? 0 });

/** @param {Page} page @returns {import("./state.js").State} */
function initialState(page) {
  const run = page.runs[0];
  const tasks = Object.keys(run.circuits);
  return {
    run: run.name, step: run.steps[run.steps.length - 1], task: tasks[0] ?? "", component: "", unit: "step",
    scale: "auto", table: "formation", filter: "", here: false, theme: "", open: "",
  };
}

/** A state from an address, made to fit the page: the step becomes a place, names that are not there fall back. */
function checked(page, state) {
  const run = page.runs.find((one) => one.name === state.run) ?? page.runs[0];
  const tasks = Object.keys(run.circuits);
  const nearest = run.steps.reduce((best, at, place) => (Math.abs(at - state.step) < Math.abs(run.steps[best] - state.step) ? place : best), 0);
  return fitted(page, { ...state, run: run.name, step: nearest });
}

/** A state whose place and task are those of its run. */
function fitted(page, state) {
  const run = page.runs.find((one) => one.name === state.run) ?? page.runs[0];
  const tasks = Object.keys(run.circuits);
  const step = Math.max(0, Math.min(state.step, run.steps.length - 1));
  return { ...state, step, task: tasks.includes(state.task) ? state.task : (tasks[0] ?? "") };
}

/** Title, findings and settings of a run. */
function drawHead(page, run, part, colour) {
  part("h1").textContent = page.title;
  const { layers, heads, mlp } = run.graph;
  const tokens = run.tokens ? `, ${short(run.tokens[run.tokens.length - 1])} tokens` : "";
  // Imported scores of heads do not say whether there are MLPs as well.
  const kind = mlp || !Object.keys(run.settings ?? {}).length ? "" : ", attention only";
  const shape = `${layers} layers × ${heads} heads${kind}`;
  const [first, last] = [run.steps[0], run.steps[run.steps.length - 1]].map((step) => step.toLocaleString("en"));
  part(".about").textContent = `${run.name} · ${shape} · ${run.steps.length} checkpoints, steps ${first} to ${last}${tokens}`;
  const roles = [...new Set(run.lanes.map((lane) => lane.role))].sort((a, b) => b.length - a.length);
  const list = d3.select(part(".findings ol")).html("");
  for (const sentence of run.sentences) {
    const item = list.append("li");
    for (const piece of pieces(sentence, roles)) {
      if (roles.includes(piece.toLowerCase())) item.append("b").attr("class", "role").style("--role", colour(piece.toLowerCase())).text(piece);
      else item.append("span").text(piece);
    }
  }
  for (const [step, task, reason] of run.failed) list.append("li").attr("class", "meta").text(`Step ${step} could not be measured on ${task}: ${reason}`);
  part(".findings").hidden = !run.sentences.length && !run.failed.length;
  const unfold = part(".unfold");
  const count = list.selectAll("li").size();
  unfold.hidden = count <= FOLDED;
  part(".findings").classList.toggle("folded", count > FOLDED);
  unfold.textContent = `All ${count} findings`;
  unfold.onclick = () => {
    part(".findings").classList.remove("folded");
    unfold.hidden = true;
  };
  const settings = d3.select(part(".settings")).html("").append("dl");
  for (const [name, value] of Object.entries({ ...run.hyperparameters, ...run.settings })) {
    settings.append("dt").text(name.replaceAll("_", " "));
    settings.append("dd").text(String(value));
  }
  part(".version").textContent = `Circuit Formation Tracker ${page.tool_version}, schema ${page.schema_version}. This page holds its data and asks nothing of the network.`;
}

/** A sentence cut at the names of roles. @param {string} sentence @param {string[]} roles */
function pieces(sentence, roles) {
  if (!roles.length) return [sentence];
  const escaped = roles.map((role) => role.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return sentence.split(new RegExp(`(?<![\\w/-])(${escaped.join("|")})(?![\\w/-])`, "i"));
}

/** The switches: run, task, steps or tokens, kind of axis. */
function drawChoices(element, page, run, store) {
  const root = d3.select(element).html("");
  const select = (key, label, names) => {
    if (names.length < 2) return;
    const box = root.append("label").attr("class", "choice").text(`${label} `).append("select").attr("data-key", key);
    box.selectAll("option").data(names).join("option").attr("value", (name) => name).text((name) => name).property("selected", (name) => name === store.state[key]);
    box.on("change", () => store.set({ [key]: box.property("value") }));
  };
  const toggle = (key, names, label) => {
    const group = root.append("span").attr("class", "toggle").attr("role", "group").attr("aria-label", label);
    for (const [value, text] of names)
      group.append("button").attr("type", "button").attr("data-value", value).attr("aria-pressed", String(store.state[key] === value)).text(text).on("click", () => store.set({ [key]: value }));
  };
  select("run", "Run", page.runs.map((one) => one.name));
  select("task", "Task", Object.keys(run.circuits));
  if (run.tokens) toggle("unit", [["step", "steps"], ["tokens", "tokens"]], "Unit of time");
  toggle("scale", [["auto", "auto"], ["log", "log"], ["linear", "linear"], ["even", "even"]], "Axis");
}

/** Plays the run from the chosen step, or from the start if it is at the end. */
function player(store, runOf, button) {
  /** @type {number|undefined} */
  let timer;
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    button.textContent = "▶";
    button.setAttribute("aria-label", "Play");
  };
  const toggle = () => {
    if (timer !== undefined) return stop();
    const last = runOf().steps.length - 1;
    if (store.state.step >= last) store.set({ step: 0 });
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "Pause");
    timer = setInterval(() => {
      if (store.state.step >= runOf().steps.length - 1) return stop();
      store.set({ step: store.state.step + 1 });
    }, Math.max(90, Math.min(600, 9000 / (last + 1))));
  };
  button.addEventListener("click", toggle);
  return toggle;
}

/** What a key does; keys typed into a field are left alone. */
function key(event, store, runOf, play, filter) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const { state } = store;
  const run = runOf();
  const last = run.steps.length - 1;
  /** @type {Record<string, () => void>} */
  const does = {
    ArrowRight: () => store.set({ step: event.shiftKey ? nextEvent(run, state.step, 1) : Math.min(last, state.step + 1) }),
    ArrowLeft: () => store.set({ step: event.shiftKey ? nextEvent(run, state.step, -1) : Math.max(0, state.step - 1) }),
    ArrowDown: () => store.set({ component: neighbour(run, state.component, 1) }),
    ArrowUp: () => store.set({ component: neighbour(run, state.component, -1) }),
    Home: () => store.set({ step: 0 }),
    End: () => store.set({ step: last }),
    Escape: () => store.set({ component: "" }),
    u: () => run.tokens && store.set({ unit: state.unit === "step" ? "tokens" : "step" }),
    l: () => store.set({ scale: SCALES[(SCALES.indexOf(state.scale) + 1) % SCALES.length] }),
    d: () => store.set({ theme: dark(state.theme) ? "light" : "dark" }),
    "/": () => filter.focus(),
  };
  if (event.key === " " && target.tagName !== "BUTTON") does[" "] = play;
  if (!does[event.key]) return;
  event.preventDefault();
  does[event.key]();
}

/** The next place at which something happens. */
function nextEvent(run, place, direction) {
  const places = [...new Set(rowsOf(run.events).map((row) => run.steps.indexOf(row.step_after)))].filter((at) => at >= 0).sort((a, b) => (a - b) * direction);
  return places.find((at) => (at - place) * direction > 0) ?? place;
}

/** The component before or after in the order of the lanes. */
function neighbour(run, component, direction) {
  const names = [...new Set(run.lanes.flatMap((lane) => lane.tracks.map((track) => track.component)))];
  const at = names.indexOf(component);
  return names[(at < 0 ? (direction > 0 ? 0 : names.length - 1) : at + direction + names.length) % names.length] ?? "";
}
