// @ts-check
// What was found, in words, and how is the page to be read?

import { d3 } from "./vendor/d3.js";
import { definitionsOf } from "./data.js";
import { toClipboard } from "./save.js";
import { short } from "./time.js";

/** @typedef {import("./data.js").Page} Page */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {(name: string) => HTMLElement} Part */

/** How many findings stand above the fold. */
const FOLDED = 8;

/**
 * Title, findings and settings of a run.
 * @param {Page} page
 * @param {Run} run
 * @param {Part} part
 * @param {(role: string) => string} colour
 * @param {(component: string, step: number) => void} go
 */
export function drawHead(page, run, part, colour, go) {
  part("h1").textContent = page.title;
  const named = run.name === page.title ? "" : `${run.name} · `;
  const { layers, heads, mlp } = run.graph;
  const tokens = run.tokens ? `, ${short(run.tokens[run.tokens.length - 1])} tokens` : "";
  // Imported scores of heads do not say whether there are MLPs as well.
  const kind = mlp || !("n_prompts" in (run.settings ?? {})) ? "" : ", attention only";
  const plural = (/** @type {number} */ number, /** @type {string} */ word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const [first, last] = [run.steps[0], run.steps[run.steps.length - 1]].map((step) => step.toLocaleString("en"));
  const span = run.steps.length === 1 ? `step ${first}` : `steps ${first} to ${last}`;
  part(".about").textContent = `${named}${plural(layers, "layer")} × ${plural(heads, "head")}${kind} · ${plural(run.steps.length, "checkpoint")}, ${span}${tokens}`;
  drawFindings(page, run, part, colour, go);
  drawMade(run, part);
  const settings = d3.select(part(".settings")).html("").append("dl");
  for (const [name, value] of Object.entries({ ...run.hyperparameters, ...run.settings })) {
    settings.append("dt").text(name.replaceAll("_", " "));
    settings.append("dd").text(String(value));
  }
  part(".guide dl").replaceChildren(...guide(page, run));
  part(".version").textContent = `Circuit Formation Tracker ${page.tool_version}, schema ${page.schema_version}. This page holds its data and asks nothing of the network.`;
}

/** Who came nearest to roles that never formed: a click goes there. @param {any} item @param {import("./data.js").Miss[]} misses @param {(role: string) => string} colour @param {(component: string, step: number) => void} go */
function drawMisses(item, misses, colour, go) {
  item.append("span").text("Never formed; who came nearest:");
  for (const { role, component, step, value, bar } of misses) {
    const line = item.append("div").attr("class", "meta");
    line.append("b").attr("class", "role").style("--role", colour(role)).text(role);
    line.append("button").attr("type", "button").attr("class", "quiet").text(component).on("click", () => go(component, step));
    line.append("span").text(`${short(value)} of the ${short(bar)} needed, at step ${step.toLocaleString("en")}`);
  }
}

/**
 * The headlines; unfolded, every sentence as well.
 * @param {Page} page
 * @param {Run} run
 * @param {Part} part
 * @param {(role: string) => string} colour
 * @param {(component: string, step: number) => void} go
 */
function drawFindings(page, run, part, colour, go) {
  const roles = [...new Set(run.lanes.map((lane) => lane.role))].sort((a, b) => b.length - a.length);
  const { faults, story, roles: lines, events, misses, more } = run.headlines;
  part(".findings h2").textContent = page.runs.length > 1 ? `What was found in ${run.name}` : "What was found";
  const every = [...new Set(page.runs.flatMap((one) => one.lanes.map((lane) => lane.role)))].sort((a, b) => b.length - a.length);
  write(d3.select(part(".story")).html(""), page.across.story || story, every, colour);
  const list = d3.select(part(".findings ol")).html("");
  if (page.across.story) write(list.append("li"), story, roles, colour);
  if (run.parent) list.append("li").attr("class", "meta").text(`This run is ${run.parent}.`);
  for (const fault of faults) list.append("li").attr("class", "fault").text(fault);
  for (const [lifeline, when, who] of lines) {
    const item = list.append("li");
    const role = run.lanes.find((lane) => lane.lifeline === lifeline)?.role ?? lifeline;
    item.append("b").attr("class", "role").style("--role", colour(role)).text(lifeline);
    if (page.roles[role]) item.append("span").attr("class", "meta").text(` ${page.roles[role]}`);
    item.append("div").text(`${when}: ${who}`);
  }
  for (const event of events) write(list.append("li").attr("class", "event"), `${event}.`, roles, colour);
  if (misses.length) drawMisses(list.append("li").attr("class", "misses"), misses, colour, go);
  for (const text of more) list.append("li").attr("class", "meta").text(text);
  for (const [step, task, reason] of run.failed.slice(0, 20)) list.append("li").attr("class", "meta").text(`Step ${step} could not be measured on ${task}: ${reason}`);
  if (run.failed.length > 20) list.append("li").attr("class", "meta").text(`${run.failed.length - 20} more could not be measured.`);
  const rest = d3.select(part(".findings .rest")).html("");
  if (run.sentences.length) rest.append("h3").text("By every definition");
  for (const sentence of run.sentences) write(rest.append("p"), sentence, roles, colour);
  fold(part, list.selectAll("li").size(), run.sentences.length > 0);
}

/** A sentence, its roles in their colours. @param {any} element @param {string} sentence @param {string[]} roles @param {(role: string) => string} colour */
function write(element, sentence, roles, colour) {
  for (const piece of pieces(sentence, roles)) {
    if (roles.includes(piece.toLowerCase())) element.append("b").attr("class", "role").style("--role", colour(piece.toLowerCase())).text(piece);
    else element.append("span").text(piece);
  }
}

/** The switch between the headlines and all of it. @param {Part} part @param {number} count @param {boolean} rest */
function fold(part, count, rest) {
  const more = count > FOLDED || rest;
  part(".findings").hidden = !count;
  const unfold = part(".unfold");
  unfold.hidden = !more;
  const turn = (/** @type {boolean} */ folded) => {
    part(".findings").classList.toggle("folded", folded && more);
    unfold.textContent = folded ? (count > FOLDED ? `All ${count} findings, in full` : "In full, by every definition") : "Shorter";
    unfold.setAttribute("aria-expanded", String(!folded));
  };
  turn(true);
  unfold.onclick = () => turn(!part(".findings").classList.contains("folded"));
}

/** A sentence cut at the names of roles. @param {string} sentence @param {string[]} roles */
export function pieces(sentence, roles) {
  if (!roles.length) return [sentence];
  const escaped = roles.map((role) => role.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return sentence.split(new RegExp(`(?<![\\w/-])(${escaped.join("|")})(?![\\w/-])`, "i"));
}

/** What was run, to copy. @param {Run} run @param {Part} part */
function drawMade(run, part) {
  part(".made").textContent = run.made;
  const button = part(".copy-made");
  button.textContent = "Copy";
  button.onclick = async () => void (button.textContent = (await toClipboard(run.made)) ? "Copied" : "Copying was refused by the browser");
}

/** The words of the page, with this run's own numbers. @param {Page} page @param {Run} run */
function guide(page, run) {
  const bars = Object.entries(run.thresholds ?? {});
  const same = new Set(bars.map(([, bar]) => bar)).size === 1;
  const from = !bars.length ? "" : same ? ` (from a score of ${short(bars[0][1])} on)` : ` (from a score of ${bars.map(([role, bar]) => `${short(bar)} for ${role}`).join(", ")} on)`;
  const sure = run.confidence ? `${Math.round(100 * run.confidence)}% interval` : "interval";
  const definitions = definitionsOf(page.runs);
  /** @type {[string, string][]} */
  const words = [
    ["component", "an attention head (a1.h0: layer 1, head 0) or an MLP (m0)"],
    ["role", `what a component does, told by its scores. It carries the role while its score is high enough${from}`],
    ...Object.entries(page.roles).filter(([role]) => run.lanes.some((lane) => lane.role === role)).map(([role, text]) => /** @type {[string, string]} */ ([role, `a head that ${text}`])),
    ["formation", `never a point: after the last checkpoint without, by the first with; in dark, the ${sure} over resampled prompts${definitions.length ? `. Definitions: ${definitions.join(", ")}` : ""}`],
    ["form, function, behaviour", "three clocks: it looks like one (its score); the model needs it (corrupting it hurts the task); the model does the task. They differ in real runs"],
    ["circuit", "the fewest edges that still do the task. Faithfulness: which share of the task they restore on their own"],
    ["attention", "edges go into a head's queries (what it looks for), keys (what it is found by) and values (what it passes on)"],
  ];
  if (page.runs.length > 1) words.push(["matches", "which component of one run is which of another, by signature and wiring; letters such as A mark those that agree all round"]);
  return words.flatMap(([word, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [word, text];
    return [dt, dd];
  });
}
