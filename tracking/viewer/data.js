// @ts-check
// What is in the page's data, and which rows of the tables is that?

/**
 * @typedef {{component: string, places: number[], strength: (number|null)[], confidence: (number|null)[]}} Track
 * @typedef {Record<string, any>} Formation
 * @typedef {{lifeline: string, role: string, task: string|null, measure: string|null, tracks: Track[],
 *   formation: Formation[]}} Lane
 * @typedef {{name: string, label: string, family: string, unit: string, places: number[], values: (number|null)[],
 *   errors: (number|null)[]}} Curve
 * @typedef {{task: string, measure: string, prompts: number, components: string[], values: (number|null)[][],
 *   errors: (number|null)[][]|null}} Scores
 * @typedef {{status: string, size: number, faithfulness: (number|null)[]|null, edges: number[],
 *   scores: (number|null)[], errors: (number|null)[]}} CircuitAt
 * @typedef {{measure: string, target: number|null, prompts: number, names: string[], at: (CircuitAt|null)[]}} Circuits
 * @typedef {{automatic: string, log: string, constant: number}} Scale
 * @typedef {{name: string, graph: {layers: number, heads: number, mlp: boolean, parallel: boolean},
 *   hyperparameters: Record<string, any>, settings: Record<string, any>, sentences: string[], steps: number[],
 *   tokens: number[]|null, scale: {step: Scale, tokens: Scale|null}, failed: [number, string, string][],
 *   curves: Curve[], lanes: Lane[], events: Record<string, any[]>, formation: Record<string, any[]>,
 *   scores: Scores[], circuits: Record<string, Circuits>}} Run
 * @typedef {{title: string, tool_version: string, schema_version: number, colours: Record<string, string>,
 *   differing: string[], runs: Run[]}} Page
 */

/**
 * The page's data from gzipped JSON in base64.
 * @param {string} text
 * @returns {Promise<Page>}
 */
export async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** An edge's name, `a0.h1->a1.h0<k>`, in parts. @param {string} name */
export function parseEdge(name) {
  const [source, reader] = name.split("->");
  const match = /^(.*)<([qkv])>$/.exec(reader);
  return { source, target: match ? match[1] : reader, slot: match ? match[2] : null };
}

/** The names in a cell of the events table. @param {string|null} cell */
export const namesIn = (cell) => (cell ?? "").split(/[ ,]+/).filter(Boolean);

/** Rows of a table of columns, as objects. @param {Record<string, any[]>} columns */
export function rowsOf(columns) {
  const names = Object.keys(columns);
  return (columns[names[0]] ?? []).map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

/**
 * The first lane of each component at a place: what it mainly does there, and how strongly.
 * @param {Run} run
 * @param {number} place
 * @returns {Map<string, {lane: Lane, strength: number, level: number}>}
 */
export function carriersAt(run, place) {
  const found = new Map();
  for (const lane of run.lanes) {
    const top = Math.max(...lane.tracks.map((track) => Math.max(...track.strength.map(Number))));
    for (const track of lane.tracks) {
      const index = track.places.indexOf(place);
      if (index < 0 || found.has(track.component)) continue;
      const strength = Number(track.strength[index]);
      found.set(track.component, { lane, strength, level: level(strength, top) });
    }
  }
  return found;
}

/** How dark a score is drawn, from 0 to 1; in logarithms where scores span decades. */
export function level(/** @type {number} */ value, /** @type {number} */ top) {
  if (!(top > 0)) return 0;
  const share = top > 20 ? Math.log1p(Math.max(value, 0)) / Math.log1p(top) : value / top;
  return Math.min(1, Math.max(0, share));
}

/** Every table of the page: its columns, and a function that gives its rows. */
export const TABLES = /** @type {const} */ (["formation", "events", "lifelines", "scores", "edges", "metrics"]);

/**
 * @param {Run} run
 * @param {string} table
 * @returns {{columns: string[], rows: any[][]}}
 */
export function tableOf(run, table) {
  const tokens = (/** @type {number} */ place) => run.tokens?.[place] ?? null;
  if (table === "events" || table === "formation") {
    const columns = Object.keys(run[table]);
    return { columns, rows: (run[table][columns[0]] ?? []).map((_, i) => columns.map((name) => run[table][name][i])) };
  }
  /** @type {any[][]} */
  const rows = [];
  if (table === "scores") {
    for (const { task, measure, components, values, errors } of run.scores)
      components.forEach((component, c) =>
        values[c].forEach((value, place) => {
          if (value !== null)
            rows.push([run.steps[place], tokens(place), component, task, measure, value, errors?.[c][place] ?? null]);
        }),
      );
    return { columns: ["step", "tokens", "component", "task", "measure", "value", "std_error"], rows };
  }
  if (table === "edges") {
    for (const [task, circuits] of Object.entries(run.circuits))
      circuits.at.forEach((at, place) =>
        at?.edges.forEach((edge, i) => {
          const { source, target, slot } = parseEdge(circuits.names[edge]);
          rows.push([run.steps[place], task, source, target, slot, at.scores[i], at.errors[i], true]);
        }),
      );
    return { columns: ["step", "task", "source", "target", "slot", "score", "std_error", "in_circuit"], rows };
  }
  if (table === "metrics") {
    for (const { name, places, values, errors } of run.curves)
      places.forEach((place, i) => rows.push([run.steps[place], tokens(place), name, values[i], errors[i]]));
    return { columns: ["step", "tokens", "name", "value", "std_error"], rows };
  }
  for (const { lifeline, role, tracks } of run.lanes)
    for (const { component, places, strength, confidence } of tracks)
      places.forEach((place, i) => rows.push([lifeline, role, run.steps[place], component, strength[i], confidence[i]]));
  return { columns: ["lifeline", "role", "step", "component", "strength", "confidence"], rows };
}
