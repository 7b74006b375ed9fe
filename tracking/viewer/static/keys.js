// @ts-check
// What do the play button and the keys do?

import { rowsOf } from "./data.js";
import { zoomByKey } from "./zoom.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./state.js").Store} Store */

export const SCALES = /** @type {const} */ (["auto", "log", "linear", "even"]);

/** Whether the page is dark, by the switch or else by the system. @param {string} theme */
export const dark = (theme) => (theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

/**
 * Plays the run from the chosen step, or from the start if it is at the end.
 * @param {Store} store
 * @param {() => Run} runOf
 * @param {HTMLElement} button
 */
export function player(store, runOf, button) {
  /** @type {ReturnType<typeof setInterval>|undefined} */
  let timer;
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    button.textContent = "▶";
    button.setAttribute("aria-label", "Play");
  };
  return () => {
    if (timer !== undefined) return stop();
    const last = runOf().steps.length - 1;
    if (store.state.step >= last) store.set({ step: 0 });
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "Pause");
    timer = setInterval(() => {
      if (!button.isConnected || store.state.step >= runOf().steps.length - 1) return stop();
      store.set({ step: store.state.step + 1 });
    }, Math.max(90, Math.min(600, 9000 / (last + 1))));
  };
}

/**
 * What a key does; keys typed into a field are left alone.
 * @param {KeyboardEvent} event
 * @param {Store} store
 * @param {Run} run
 * @param {() => void} play
 * @param {HTMLElement} filter
 */
export function press(event, store, run, play, filter) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, textarea, input:not([type=range]):not([type=checkbox])")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const { state } = store;
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
    u: () => void (run.tokens && store.set({ unit: state.unit === "step" ? "tokens" : "step" })),
    l: () => store.set({ scale: SCALES[(SCALES.indexOf(state.scale) + 1) % SCALES.length] }),
    d: () => store.set({ theme: dark(state.theme) ? "light" : "dark" }),
    "/": () => filter.focus(),
    ...Object.fromEntries(["+", "=", "-", "0", "[", "]"].map((key) => [key, () => zoomByKey(store, run, key)])),
  };
  if (event.key === " " && !/^(BUTTON|SUMMARY)$/.test(target.tagName)) does[" "] = play;
  if (!does[event.key]) return;
  event.preventDefault();
  does[event.key]();
}

/** The next place at which something happens. @param {Run} run @param {number} place @param {number} direction */
export function nextEvent(run, place, direction) {
  const places = [...new Set(rowsOf(run.events).map((row) => run.steps.indexOf(row.step_after)))].filter((at) => at >= 0).sort((a, b) => (a - b) * direction);
  return places.find((at) => (at - place) * direction > 0) ?? place;
}

/** The component before or after in the order of the lanes. @param {Run} run @param {string} component @param {number} direction */
export function neighbour(run, component, direction) {
  const names = [...new Set(run.lanes.flatMap((lane) => lane.tracks.map((track) => track.component)))];
  const at = names.indexOf(component);
  return names[(at < 0 ? (direction > 0 ? 0 : names.length - 1) : at + direction + names.length) % names.length] ?? "";
}
