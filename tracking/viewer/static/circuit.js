// @ts-check
// The circuit at one step as a layered graph: embedding at the bottom, logits at the top.

import { d3 } from "./vendor/d3.js";
import { carriersAt, parseEdge } from "./data.js";
import { innerWidthOf } from "./paper.js";
import { pressable, tell } from "./tip.js";
import { short, withError } from "./time.js";

/** @typedef {import("./history.js").Context} Context */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").CircuitAt} CircuitAt */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {ReturnType<typeof layout>} Layout */

/** Heads of arrows by slot: colours are for roles. Each fits a box of 10 by 10, its tip on the right. */
export const HEADS = {
  q: { text: "into queries", shape: "M0,0L10,5L0,10z", hollow: false },
  k: { text: "into keys", shape: "M0,5L5,1L10,5L5,9z", hollow: true },
  v: { text: "into values", shape: "M1,5a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0z", hollow: false },
  none: { text: "into logits or MLPs", shape: "M1,1L9,5L1,9", hollow: true },
};
let drawings = 0;

/** How many edges may be drawn at most. */
export const LIMITS = ["30", "100", "300"];

/**
 * Draw the nodes; gives back what changes with the step.
 * @param {HTMLElement} element
 * @param {HTMLElement} caption
 * @param {Context} context
 */
export function drawCircuit(element, caption, context) {
  const { run, colour, store } = context;
  const place = layout(run, innerWidthOf(element));
  const svg = d3.select(element).html("").append("svg").attr("width", place.width).attr("height", place.height).attr("class", "circuit");
  svg.attr("role", "group").attr("aria-label", "The circuit at this step, layer by layer");
  for (let layer = 0; layer < run.graph.layers; layer++)
    if (run.graph.layers <= 24) svg.append("text").attr("class", "tick").attr("x", 0).attr("y", place.y(layer) + 4).text(`a${layer}`);
  const under = place.y(0) + place.radius + 14;
  if (!place.labelled)
    for (let head = 0; head < run.graph.heads; head += run.graph.heads > 16 ? 4 : 1)
      svg.append("text").attr("class", "tick").attr("x", place.x(head)).attr("y", under).attr("text-anchor", "middle").text(`h${head}`);
  if (place.mlp) svg.append("text").attr("class", "tick").attr("x", place.mlp).attr("y", under).attr("text-anchor", "middle").text("MLP");
  drawings += 1;
  place.id = drawings;
  drawHeads(svg, place.id);
  const edges = svg.append("g").attr("class", "edges");
  const nodes = svg.append("g");
  for (const name of place.names) nodes.append(() => drawNode(name, place, store));
  const largest = largestScore(run, store.state.task);
  return (/** @type {number} */ step) => {
    const circuit = run.circuits[store.state.task]?.at[step] ?? null;
    const carriers = carriersAt(run, step);
    const limit = Number(store.state.edges) || 100;
    const used = drawEdges(edges, run, circuit, place, largest, store, limit);
    for (const node of nodes.selectAll(".node").nodes()) {
      const name = node.dataset.component;
      const doing = carriers.get(name);
      const inside = used.has(name);
      const select = d3.select(node).classed("inside", inside).classed("carrier", !!doing).classed("chosen", store.state.component === name);
      select.style("--role", doing ? colour(doing.lane.role) : null).style("--level", doing ? 0.35 + 0.65 * doing.level : null);
      const told = `${name}${doing ? `: ${doing.lane.lifeline}, score ${short(doing.strength)}` : ""}${inside ? ", in the circuit" : ""}`;
      tell(select, told).attr("aria-label", told).attr("tabindex", inside || doing ? 0 : -1);
    }
    caption.replaceChildren(...captionOf(run, store.state.task, circuit, step, limit));
  };
}

/** Where every node is drawn, and how wide the ways between them are. @param {Run} run @param {number} width */
function layout(run, width) {
  const { layers, heads, mlp } = run.graph;
  const withMlp = mlp && anyMlp(run);
  const left = layers <= 24 ? 28 : 6;
  const columns = heads + (withMlp ? 1.3 : 0);
  const gap = (width - left - 8) / columns;
  const radius = Math.max(3, Math.min(20, gap * 0.36, 4 + 80 / layers));
  // An MLP stands in the way above its layer: that way has to hold it, and the edges on both its sides.
  const rise = Math.max((withMlp ? 4.4 : 2.6) * radius + 8, Math.min(100, 330 / layers));
  const labelled = radius >= 3.3 * `a${layers - 1}.h${heads - 1}`.length;
  const foot = labelled && !withMlp ? 0 : 16;
  const height = (layers + 1) * rise + 2 * radius + 16 + foot;
  const y = (/** @type {number} */ layer) => height - radius - 8 - foot - (layer + 1) * rise;
  const x = (/** @type {number} */ head) => left + gap * (head + 0.5);
  const middle = left + (gap * heads) / 2;
  /** @type {string[]} */
  const names = [];
  /** @type {Map<string, [number, number]>} */
  const at = new Map();
  const add = (/** @type {string} */ name, /** @type {number} */ across, /** @type {number} */ up) => (names.push(name), at.set(name, [across, up]));
  add("input", middle, height - 14);
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) add(`a${layer}.h${head}`, x(head), y(layer));
    if (withMlp) add(`m${layer}`, left + gap * (heads + 0.8), y(layer) - rise * 0.5);
  }
  add("logits", middle, y(layers));
  return { id: 0, width, height, left, gap, heads, layers, rise, radius, names, at, x, y, labelled, mlp: withMlp ? left + gap * (heads + 0.8) : 0 };
}

const anyMlp = (/** @type {Run} */ run) => Object.values(run.circuits).some((c) => c.names.some((name) => name.includes("m"))) || run.lanes.some((lane) => lane.tracks.some((track) => track.component.startsWith("m")));

/** @param {string} name @param {Layout} place @param {Store} store */
function drawNode(name, place, store) {
  const [x, y] = place.at.get(name) ?? [0, 0];
  const end = name === "input" || name === "logits";
  const node = d3.select(document.createElementNS("http://www.w3.org/2000/svg", "g"));
  node.attr("class", `node${end ? " end" : ""}`).attr("data-component", name).attr("transform", `translate(${x},${y})`);
  if (end) node.append("rect").attr("x", -26).attr("y", -11).attr("width", 52).attr("height", 22).attr("rx", 11);
  else node.append("circle").attr("r", place.radius);
  if (place.labelled || end) node.append("text").attr("y", 3.5).attr("text-anchor", "middle").text(name);
  pressable(node, () => store.set({ component: store.state.component === name ? "" : name }));
  return node.node();
}

/** @param {Run} run @param {string} task */
function largestScore(run, task) {
  let most = 1e-12;
  for (const at of run.circuits[task]?.at ?? []) if (at?.scores.length) most = Math.max(most, Math.abs(Number(at.scores[0])));
  return most;
}

/**
 * Draw the kept edges, the weakest first; gives back the nodes that any kept edge uses.
 * @param {any} group
 * @param {Run} run
 * @param {CircuitAt|null} circuit
 * @param {Layout} place
 * @param {number} largest
 * @param {Store} store
 * @param {number} limit
 */
function drawEdges(group, run, circuit, place, largest, store, limit) {
  const used = new Set();
  group.html("");
  if (!circuit) return used;
  const names = run.circuits[store.state.task].names;
  const chosen = store.state.component;
  for (let i = circuit.edges.length - 1; i >= 0; i--) {
    const { source, target, slot } = parseEdge(names[circuit.edges[i]]);
    used.add(source).add(target);
    if (i >= limit) continue;
    const [score, error] = [Number(circuit.scores[i]), Number(circuit.errors[i] ?? 0)];
    const sure = Math.max(0.28, Math.min(1, 1.1 - error / Math.max(Math.abs(score), 1e-12)));
    const aside = chosen && chosen !== source && chosen !== target;
    const path = group
      .append("path")
      .attr("d", curve(place, source, target, slot))
      .attr("class", `edge${score < 0 ? " negative" : ""}`)
      .attr("data-edge", names[circuit.edges[i]])
      .attr("marker-end", `url(#head-${slot ?? "none"}-${place.id})`)
      .attr("stroke-width", 0.9 + Math.min(3.6, 0.3 * place.radius) * Math.sqrt(Math.abs(score) / largest))
      .attr("opacity", aside ? 0.1 : sure);
    tell(path, `${source} → ${target}${slot ? `, into ${{ q: "queries", k: "keys", v: "values" }[slot]}` : ""}\n${run.circuits[store.state.task].measure} ${withError(score, error)}${chosenBy(circuit.inclusion?.[i])}`);
  }
  return used;
}

/** How many of the resampled prompts choose an edge. @param {number|null|undefined} share */
const chosenBy = (share) => (share === null || share === undefined ? "" : `\nchosen by ${Math.round(100 * share)} % of resampled prompts`);

/** The heads of arrows, once a drawing. @param {any} svg @param {number} id */
function drawHeads(svg, id) {
  const defs = svg.append("defs");
  for (const [slot, { shape, hollow }] of Object.entries(HEADS)) {
    const marker = defs.append("marker").attr("id", `head-${slot}-${id}`).attr("viewBox", "-1 -1 12 12").attr("refX", 10).attr("refY", 5).attr("markerWidth", 11).attr("markerHeight", 11);
    marker.attr("markerUnits", "userSpaceOnUse").attr("orient", "auto").append("path").attr("class", hollow ? "head hollow" : "head").attr("d", shape);
  }
}

/** The layer of a node: a head's or an MLP's; that of the input is below all, that of the logits above. @param {string} name @param {Layout} place */
const layerOf = (name, { layers }) => (name === "input" ? -1 : name === "logits" ? layers : Number(/\d+/.exec(name)?.[0]));

/**
 * A line that leaves upwards, passes each layer between in a gap between its heads, and arrives at the side of its slot:
 * it touches no node but its own two.
 * @param {Layout} place
 * @param {string} source
 * @param {string} target
 * @param {string|null} slot
 */
export function curve(place, source, target, slot) {
  const { radius, rise } = place;
  const [x0, y0] = place.at.get(source) ?? [0, 0];
  const [x1, y1] = place.at.get(target) ?? [0, 0];
  const [low, high] = [layerOf(source, place), layerOf(target, place)];
  const intoMlp = target.startsWith("m");
  const [start, end] = [source === "input" ? 11 : radius, target === "logits" ? 11 : radius];
  const leave = x0 + Math.max(-1, Math.min(1, (x1 - x0) / 90)) * (source === "input" ? 16 : radius * 0.4);
  const aside = slot === "q" ? -0.6 : slot === "v" ? 0.6 : 0;
  const goal = intoMlp ? x1 - radius : x1 + aside * radius;
  const arrive = intoMlp ? y1 : y1 + end * (slot === "q" || slot === "v" ? 0.82 : 1);
  let [x, y] = [leave, y0 - start * (leave === x0 ? 1 : 0.94)];
  let path = `M${tenth(x)},${tenth(y)}`;
  const to = (/** @type {number} */ x2, /** @type {number} */ y2) => {
    const middle = (y + y2) / 2;
    path += `C${tenth(x)},${tenth(middle)} ${tenth(x2)},${tenth(middle)} ${tenth(x2)},${tenth(y2)}`;
    [x, y] = [x2, y2];
  };
  const passed = Array.from({ length: Math.max(0, (intoMlp ? high : high - 1) - low) }, (_, i) => low + 1 + i);
  for (const layer of passed) {
    const share = (y0 - place.y(layer)) / (y0 - y1 || 1);
    const way = wayThrough(place, x0 + share * (goal - x0), source, target);
    to(way, place.y(layer) + radius);
    path += `L${tenth(way)},${tenth((y = place.y(layer) - radius))}`;
  }
  if (!intoMlp) return to(goal, arrive), path;
  // Along the way above its layer, beside the other edges into the same MLP.
  const beside = arrive + spread(source) * radius;
  const turn = Math.min(radius, rise * 0.2);
  path += `C${tenth(x)},${tenth(beside)} ${tenth(x)},${tenth(beside)} ${tenth(x + turn)},${tenth(beside)}`;
  return `${path}L${tenth(goal - 14)},${tenth(beside)}L${tenth(goal)},${tenth(arrive + spread(source) * radius * 0.5)}`;
}

const tenth = (/** @type {number} */ value) => Number(value.toFixed(1));

/** The gap between heads that is nearest, and in it a place that differs from edge to edge. @param {Layout} place @param {number} x @param {string} source @param {string} target */
function wayThrough({ left, gap, heads, radius }, x, source, target) {
  const number = Math.max(0, Math.min(heads, Math.round((x - left) / gap)));
  const free = Math.max(0, gap / 2 - radius - 2);
  return left + gap * number + spread(source + target) * free;
}

/** A number between -0.7 and 0.7 that is always the same for a name. @param {string} name */
function spread(name) {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) % 997;
  return (1.4 * sum) / 996 - 0.7;
}

/** What the colours of edges and nodes mean. @param {HTMLElement} element @param {Context} context */
export function drawCircuitKey(element, { run, colour }) {
  const root = d3.select(element).html("");
  const any = Object.values(run.circuits).some(({ names }) => names.length);
  const entry = (/** @type {string} */ name, /** @type {string} */ text) => {
    const item = root.append("span");
    item.append("i").attr("class", name);
    item.append("span").text(text);
    return item;
  };
  for (const { text, shape, hollow } of any ? Object.values(HEADS) : []) {
    const sample = root.append("span").attr("class", "slot").append("svg").attr("width", 30).attr("height", 12).attr("aria-hidden", "true");
    sample.append("path").attr("class", "edge").attr("d", "M1,6H20").attr("stroke-width", 1.6);
    sample.append("g").attr("transform", "translate(18,1)").append("path").attr("class", hollow ? "head hollow" : "head").attr("d", shape);
    d3.select(sample.node().parentNode).append("span").text(text);
  }
  if (any) for (const [name, text] of [["wide", "wide: high score"], ["faint", "faint: unsure"], ["dashes", "dashed: negative"]]) entry(name, text);
  for (const role of new Set(run.lanes.map((lane) => lane.role))) entry("dot", role).style("--role", colour(role));
  if (any) entry("dot ring", "in the circuit");
}

/**
 * @param {Run} run
 * @param {string} task
 * @param {CircuitAt|null} circuit
 * @param {number} step
 * @param {number} limit
 */
function captionOf(run, task, circuit, step, limit) {
  const say = (/** @type {string} */ text, name = "span") => {
    const part = document.createElement(name);
    part.textContent = text;
    return part;
  };
  const when = `Step ${run.steps[step].toLocaleString("en")}`;
  if (!Object.keys(run.circuits).length)
    return [say(when, "b"), say(" · No edges were recorded. Filled heads carry a role at this step, darker where the score is higher.")];
  if (!circuit) return [say(when, "b"), say(` · no circuit was recorded here for ${task}.`)];
  if (circuit.status === "not_performed")
    return [say(when, "b"), say(` · ${task}: the model does not do this task yet, so there is no circuit to speak of.`)];
  const drawn = Math.min(limit, circuit.edges.length);
  const count = (/** @type {number} */ number) => number.toLocaleString("en");
  const parts = [`${task}: ${drawn < circuit.size ? `${count(drawn)} of ${count(circuit.size)} edges, the largest` : `${count(circuit.size)} edges`}`];
  if (circuit.faithfulness) parts.push(`faithfulness ${withError(circuit.faithfulness[0], circuit.faithfulness[1])}`);
  if (typeof circuit.floor === "number") parts.push(`two halves of the prompts share ${Math.round(100 * circuit.floor)} % of the edges`);
  if (circuit.caveat) parts.push(circuit.caveat);
  const { measure, prompts } = run.circuits[task];
  parts.push(`scores by ${measure}${prompts ? ` on ${prompts} prompts` : ""}`);
  return [say(when, "b"), say(` · ${parts.join(" · ")}`)];
}
