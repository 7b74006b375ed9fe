// @ts-check
// Every number that is shown, as tables that can be filtered, sorted and copied.

import { d3 } from "./vendor/d3.js";
import { TABLES, tableOf } from "./data.js";
import { commaSeparated, download, tabSeparated, toClipboard } from "./save.js";

/** @typedef {import("./history.js").Context} Context */

const PAGE = 15;
const MORE_ROWS = 100;

/** What is read first in a wide table; the rest is a click away, and in what is saved or copied. */
const FIRST = { formation: ["lifeline", "component", "clock", "definition", "state", "midpoint", "low", "high", "interval_before", "interval_after", "p_value", "stage"] };

/**
 * Rows that hold every word of the filter, and belong to the step and component that are asked for.
 * @param {{columns: string[], rows: any[][]}} table
 * @param {{filter: string, step: number|null, component: string}} wanted
 */
export function filtered({ columns, rows }, { filter, step, component }) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const steps = columns.map((name, i) => (name === "step" || name === "step_after" ? i : -1)).filter((i) => i >= 0);
  return rows.filter((row) => {
    if (step !== null && steps.length && !steps.some((i) => row[i] === step)) return false;
    const texts = row.map((cell) => String(cell ?? "").toLowerCase());
    if (component && !texts.some((text) => text.split(",").includes(component))) return false;
    return words.every((word) => texts.some((text) => text.includes(word)));
  });
}

/**
 * @param {HTMLElement} element
 * @param {Context} context
 */
export function drawTable(element, context) {
  const { page, run, store } = context;
  const root = d3.select(element).html("");
  const bar = root.append("div").attr("class", "table-bar");
  const tabs = bar.append("div").attr("class", "tabs").attr("role", "group").attr("aria-label", "Table");
  for (const name of TABLES)
    tabs.append("button").attr("type", "button").attr("data-table", name).text(name).on("click", () => store.set({ table: name }));
  const filter = bar.append("input").attr("type", "search").attr("class", "filter").attr("placeholder", "Filter rows").attr("aria-label", "Filter rows");
  filter.on("input", () => store.set({ filter: filter.property("value") }));
  const here = bar.append("label");
  const box = here.append("input").attr("type", "checkbox").on("change", () => store.set({ here: box.property("checked") }));
  here.append("span").text(" this step and component");
  const wide = bar.append("label");
  const wider = wide.append("input").attr("type", "checkbox").attr("class", "wide").on("change", () => fill());
  wide.append("span").text(" all columns");
  const copy = bar.append("button").attr("type", "button").attr("class", "copy");
  const save = bar.append("button").attr("type", "button").attr("class", "save").text("Save CSV");
  const holder = root.append("div").attr("class", "scroll table-holder").attr("tabindex", 0).attr("role", "region").attr("aria-label", "Numbers");
  const foot = root.append("p").attr("class", "meta");
  let order = { column: "", down: false };
  let known = { name: "", table: { columns: /** @type {string[]} */ ([]), rows: /** @type {any[][]} */ ([]) } };
  let limit = PAGE;
  /** @type {any[][]} */
  let rows = [];
  const update = () => {
    const { table: name, here: only, step, component } = store.state;
    if (known.name !== name) [known, order, limit] = [{ name, table: tableOf(page, run, name) }, { column: "", down: false }, PAGE];
    for (const button of tabs.selectAll("button").nodes()) button.setAttribute("aria-pressed", String(button.dataset.table === name));
    if (filter.property("value") !== store.state.filter) filter.property("value", store.state.filter);
    box.property("checked", only);
    rows = filtered(known.table, { filter: store.state.filter, step: only ? run.steps[step] : null, component: only ? component : "" });
    const by = known.table.columns.indexOf(order.column);
    if (by >= 0) rows = rows.slice().sort((a, b) => compare(a[by], b[by]) * (order.down ? -1 : 1));
    fill();
  };
  const fill = () => {
    const { columns } = known.table;
    const first = FIRST[/** @type {keyof typeof FIRST} */ (known.name)];
    wide.attr("hidden", first ? null : "");
    const shown = columns.map((_, i) => i).filter((i) => !first || wider.property("checked") || first.includes(columns[i]));
    holder.classed("many", limit > PAGE);
    const table = holder.html("").append("table");
    const numeric = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
    const heads = table.append("thead").append("tr").selectAll("th").data(shown.map((i) => columns[i])).join("th").attr("scope", "col");
    heads.attr("aria-sort", (/** @type {string} */ name) => (name !== order.column ? null : order.down ? "descending" : "ascending"));
    heads.attr("class", (/** @type {string} */ _, /** @type {number} */ i) => (numeric[shown[i]] ? "number" : null));
    const sort = (/** @type {Event} */ _, /** @type {string} */ name) => {
      order = { column: name, down: order.column === name && !order.down };
      update();
    };
    heads.append("button").attr("type", "button").text((/** @type {string} */ name) => name.replaceAll("_", " ")).on("click", sort);
    const body = table.append("tbody");
    body.selectAll("tr").data(rows.slice(0, limit)).join("tr").selectAll("td").data((/** @type {any[]} */ row) => shown.map((i) => row[i])).join("td")
      .attr("class", (/** @type {any} */ _, /** @type {number} */ i) => (numeric[shown[i]] ? "number" : null))
      .attr("data-tip", (/** @type {any} */ cell) => (typeof cell === "string" && cell.length > 34 ? cell : null))
      .text(written);
    copy.text(`Copy ${rows.length.toLocaleString("en")} rows`);
    foot.html("").append("span").text(rows.length ? `${Math.min(limit, rows.length)} of ${rows.length.toLocaleString("en")} rows. ` : `No rows. ${hint(context)}`);
    if (rows.length > limit) foot.append("button").attr("type", "button").attr("class", "quiet").text("Show more").on("click", () => ((limit += MORE_ROWS), fill()));
    foot.append("span").text(" Measured numbers have four significant digits here; the exported tables have all.");
  };
  save.on("click", () => download(`${run.name}-${known.name}.csv`, "text/csv", commaSeparated(known.table.columns, rows)));
  copy.on("click", async () => {
    const text = tabSeparated(known.table.columns, rows);
    copy.text((await toClipboard(text)) ? "Copied" : "Copying was refused by the browser");
  });
  update();
  return update;
}

const compare = (/** @type {any} */ a, /** @type {any} */ b) =>
  a === b ? 0 : a === null ? 1 : b === null ? -1 : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

/** @param {any} cell */
const written = (cell) => (cell === null ? "" : typeof cell === "number" ? (cell !== 0 && Math.abs(cell) < 1e-3 ? cell.toExponential(2) : cell.toLocaleString("en", { maximumSignificantDigits: 6 }).replace("-", "−")) : String(cell));

/** @param {Context} context */
const hint = ({ run, store }) => (store.state.table === "edges" && !Object.keys(run.circuits).length ? "No edges were recorded in this run." : "");
