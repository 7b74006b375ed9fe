// @ts-check
// What does this mark mean? A small note beside whatever the pointer or the focus is on.

/** Notes for the elements of a selection. @param {any} selection @param {string|null|((datum: any) => string)} text */
export const tell = (selection, text) => selection.attr("data-tip", text);

/** Show the notes inside an element. @param {HTMLElement} root */
export function showTips(root) {
  const note = document.createElement("div");
  note.className = "tip";
  note.hidden = true;
  note.setAttribute("aria-hidden", "true");
  root.append(note);
  const hide = () => void (note.hidden = true);
  const say = (/** @type {EventTarget|null} */ target, /** @type {number} */ x, /** @type {number} */ y) => {
    const text = target instanceof Element ? target.closest("[data-tip]")?.getAttribute("data-tip") : null;
    if (!text) return hide();
    note.textContent = text;
    note.hidden = false;
    const { width, height } = note.getBoundingClientRect();
    note.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - width - 12))}px`;
    note.style.top = `${y + 20 + height > innerHeight ? y - height - 10 : y + 18}px`;
  };
  root.addEventListener("pointermove", (event) => (event.buttons ? hide() : say(event.target, event.clientX, event.clientY)));
  root.addEventListener("pointerleave", hide);
  root.addEventListener("pointerdown", hide);
  root.addEventListener("focusin", (event) => {
    const on = /** @type {Element} */ (event.target);
    if (!on.matches(":focus-visible")) return;
    const box = on.getBoundingClientRect();
    say(on, box.left, box.bottom - 12);
  });
  root.addEventListener("focusout", hide);
  addEventListener("scroll", hide, { passive: true });
}

/**
 * Make a drawn element a button: for the pointer, for the keyboard, and for those who are read to.
 * @param {any} selection
 * @param {() => void} does
 */
export function pressable(selection, does) {
  selection.attr("role", "button").on("click", does).on("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    does();
  });
  return selection;
}
