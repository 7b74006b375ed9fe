// @ts-check
// The circuit at one step as a layered graph: embedding at the bottom, logits at the top.

import { d3 } from "./vendor/d3.js";
import { carriersAt, parseEdge } from "./data.js";
import { innerWidthOf } from "./history.js";
import { short, withError } from "./time.js";

/** @typedef {import("./history.js").Context} Context */

const SLOTS = { q: "var(--slot-q)", k: "var(--slot-k)", v: "var(--slot-v)", none: "var(--slot-none)" };

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
  if (!place.labelled)
    for (let head = 0; head < run.graph.heads; head += run.graph.heads > 16 ? 4 : 1)
      svg.append("text").attr("class", "tick").attr("x", place.x(head)).attr("y", place.y(0) + place.radius + 14).attr("text-anchor", "middle").text(`h${head}`);
  const edges = svg.append("g").attr("class", "edges");
  const nodes = svg.append("g");
  for (const name of place.names) nodes.append(() => drawNode(name, place, store));
  const largest = largestScore(run, store.state.task);
  return (/** @type {number} */ step) => {
    const circuit = run.circuits[store.state.task]?.at[step] ?? null;
    const carriers = carriersAt(run, step);
    const used = drawEdges(edges, run, circuit, place, largest, store);
    for (const node of nodes.selectAll(".node").nodes()) {
      const name = node.dataset.component;
      const doing = carriers.get(name);
      const inside = used.has(name);
      const select = d3.select(node).classed("inside", inside).classed("carrier", !!doing).classed("chosen", store.state.component === name);
      select.style("--role", doing ? colour(doing.lane.role) : null).style("--level", doing ? 0.35 + 0.65 * doing.level : null);
      const told = `${name}${doing ? `, ${doing.lane.lifeline} ${short(doing.strength)}` : ""}${inside ? ", in the circuit" : ""}`;
      select.attr("tabindex", inside || doing ? 0 : -1).select("title").text(told);
    }
    caption.replaceChildren(...captionOf(run, store.state.task, circuit, step));
  };
}

/** Where every node is drawn. */
function layout(run, width) {
  const { layers, heads, mlp } = run.graph;
  const left = layers <= 24 ? 26 : 6;
  const columns = heads + (mlp && anyMlp(run) ? 1.3 : 0);
  const gap = (width - left - 8) / columns;
  const radius = Math.max(3, Math.min(20, gap * 0.4, 4 + 80 / layers));
  const rise = Math.max(2 * radius + 4, Math.min(100, 330 / layers));
  const labelled = radius >= 3.3 * `a${layers - 1}.h${heads - 1}`.length;
  const foot = labelled ? 0 : 16;
  const height = (layers + 1) * rise + 2 * radius + 16 + foot;
  const y = (layer) => height - radius - 8 - foot - (layer + 1) * rise;
  const x = (head) => left + gap * (head + 0.5);
  const middle = left + (gap * heads) / 2;
  const names = [];
  const at = new Map();
  const add = (name, across, up) => (names.push(name), at.set(name, [across, up]));
  add("input", middle, height - radius - 8);
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < heads; head++) add(`a${layer}.h${head}`, x(head), y(layer));
    if (mlp && anyMlp(run)) add(`m${layer}`, left + gap * (heads + 0.8), y(layer) - rise * 0.3);
  }
  add("logits", middle, y(layers));
  return { width, height, radius, names, at, x, y, labelled };
}

const anyMlp = (run) => Object.values(run.circuits).some((c) => c.names.some((name) => name.includes("m")));

function drawNode(name, place, store) {
  const [x, y] = place.at.get(name);
  const end = name === "input" || name === "logits";
  const node = d3.select(document.createElementNS("http://www.w3.org/2000/svg", "g"));
  node.attr("class", `node${end ? " end" : ""}`).attr("data-component", name).attr("transform", `translate(${x},${y})`).attr("role", "button");
  if (end) node.append("rect").attr("x", -26).attr("y", -11).attr("width", 52).attr("height", 22).attr("rx", 11);
  else node.append("circle").attr("r", place.radius);
  if (place.labelled || end) node.append("text").attr("y", 3.5).attr("text-anchor", "middle").text(name);
  node.append("title").text(name);
  const choose = () => store.set({ component: store.state.component === name ? "" : name });
  node.on("click", choose).on("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    choose();
  });
  return node.node();
}

function largestScore(run, task) {
  const all = run.circuits[task]?.at ?? [];
  return Math.max(1e-12, ...all.flatMap((at) => at?.scores.map((score) => Math.abs(Number(score))) ?? []));
}

/** Draw the kept edges, the weakest first; gives back the nodes they use. */
function drawEdges(group, run, circuit, place, largest, store) {
  const used = new Set();
  group.html("");
  if (!circuit) return used;
  const names = run.circuits[store.state.task].names;
  for (let i = circuit.edges.length - 1; i >= 0; i--) {
    const { source, target, slot } = parseEdge(names[circuit.edges[i]]);
    const [score, error] = [Number(circuit.scores[i]), Number(circuit.errors[i] ?? 0)];
    used.add(source).add(target);
    const sure = Math.max(0.15, Math.min(1, 1 - (1.5 * error) / Math.max(Math.abs(score), 1e-12)));
    const chosen = store.state.component;
    const aside = chosen && chosen !== source && chosen !== target;
    group
      .append("path")
      .attr("d", curve(place, source, target, slot))
      .attr("class", `edge${score < 0 ? " negative" : ""}`)
      .attr("data-edge", names[circuit.edges[i]])
      .attr("stroke", SLOTS[slot ?? "none"])
      .attr("stroke-width", 0.8 + 6 * Math.sqrt(Math.abs(score) / largest))
      .attr("opacity", aside ? 0.08 : sure)
      .append("title")
      .text(`${names[circuit.edges[i]]}: ${withError(score, error)}`);
  }
  return used;
}

/** A line that leaves upwards and arrives from below, on the side of its slot. */
function curve(place, source, target, slot) {
  const [x0, y0] = place.at.get(source) ?? [0, 0];
  const [x1, y1] = place.at.get(target) ?? [0, 0];
  const aside = { q: -0.55, k: 0, v: 0.55 }[slot ?? "k"] ?? 0;
  const [start, end] = [source === "input" ? 11 : place.radius, target === "logits" ? 11 : place.radius];
  const arrive = [x1 + aside * place.radius, y1 + end * (slot === "k" || !slot ? 1 : 0.84)];
  const leave = [x0 + Math.max(-1, Math.min(1, (x1 - x0) / 90)) * (source === "input" ? 16 : place.radius * 0.4), y0 - start * 0.94];
  const bend = Math.max(18, (y0 - y1) * 0.45);
  const bow = Math.abs(x1 - x0) < 2 && y0 - y1 > 130 ? 40 : 0;
  return `M${leave}C${leave[0] + bow},${leave[1] - bend} ${arrive[0] + bow},${arrive[1] + bend} ${arrive}`;
}

/** What the colours of edges and nodes mean. @param {HTMLElement} element @param {Context} context */
export function drawCircuitKey(element, { run, colour }) {
  const root = d3.select(element).html("");
  const any = Object.keys(run.circuits).length > 0;
  for (const [slot, text] of any ? [["q", "into queries"], ["k", "into keys"], ["v", "into values"], ["none", "other edges"]] : []) {
    const item = root.append("span");
    item.append("i").style("border-color", SLOTS[slot]);
    item.append("span").text(text);
  }
  for (const role of new Set(run.lanes.map((lane) => lane.role))) {
    const item = root.append("span").style("--role", colour(role));
    item.append("i").attr("class", "dot");
    item.append("span").text(role);
  }
  if (any) root.append("span").text("width: score · faint: uncertain · dashed: negative");
}

function captionOf(run, task, circuit, step) {
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
  const parts = [`${task}: ${circuit.size} edges`];
  if (circuit.edges.length < circuit.size) parts.push(`the strongest ${circuit.edges.length} drawn`);
  if (circuit.faithfulness) parts.push(`faithfulness ${withError(circuit.faithfulness[0], circuit.faithfulness[1])}`);
  const { measure, prompts } = run.circuits[task];
  parts.push(`scores by ${measure}${prompts ? ` on ${prompts} prompts` : ""}`);
  return [say(when, "b"), say(` · ${parts.join(" · ")}`)];
}
