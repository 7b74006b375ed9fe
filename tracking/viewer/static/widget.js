// @ts-check
// The page as a widget in a notebook: the step, component and run that are chosen are known to Python, and may be set.

import { decode } from "./data.js";
import { mount } from "./main.js";

/** @param {{model: any, el: HTMLElement}} arguments_ */
async function render({ model, el }) {
  const page = await decode(model.get("data"));
  const store = mount(el, page, {
    address: false,
    changed(state, run) {
      model.set("run", run.name);
      model.set("step", run.steps[state.step]);
      model.set("component", state.component);
      model.save_changes();
    },
  });
  const take = () => {
    const run = page.runs.find((one) => one.name === model.get("run")) ?? page.runs[0];
    const asked = model.get("step");
    const nearest = run.steps.reduce((best, at, place) => (Math.abs(at - asked) < Math.abs(run.steps[best] - asked) ? place : best), 0);
    store.set({ run: run.name, step: nearest, component: model.get("component") });
  };
  take();
  const heard = ["run", "step", "component"].map((name) => `change:${name}`);
  for (const event of heard) model.on(event, take);
  return () => {
    for (const event of heard) model.off(event, take);
  };
}

export default { render };
