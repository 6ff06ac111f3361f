// Shows the numbers of a figure's parts: under the pointer, at a tap, and by the arrow keys where a figure has the focus.
// A part is a shape with its text; `around` gives its box in the window where that is not the shape's own.
const tip = (() => {
  "use strict";
  const box = document.createElement("div");
  box.className = "tip";
  box.setAttribute("role", "status");
  box.hidden = true;
  document.body.append(box);
  let shown = null;

  const hide = () => {
    if (shown) shown.shape.classList.remove("on");
    shown = null;
    box.hidden = true;
  };
  // Over the part, within the window; under it where there is no room.
  const place = () => {
    if (!shown) return;
    const around = shown.around ? shown.around() : shown.shape.getBoundingClientRect();
    const width = document.documentElement.clientWidth, over = around.top - box.offsetHeight - 6;
    const middle = around.left + around.width / 2 - box.offsetWidth / 2;
    box.style.left = `${Math.max(4, Math.min(middle, width - box.offsetWidth - 4))}px`;
    box.style.top = `${over >= 4 ? over : Math.min(around.bottom + 6, innerHeight - box.offsetHeight - 4)}px`;
  };
  const show = part => {
    if (part === shown) return;
    hide();
    shown = part;
    part.shape.classList.add("on");
    box.textContent = part.text;
    box.hidden = false;
    place();
  };
  addEventListener("scroll", place, { passive: true });
  return { show, hide, shown: () => shown };
})();

(() => {
  "use strict";
  // The nearest part in a direction: the way along it counts, twice what is beside.
  const next = (parts, from, [dx, dy]) => {
    let best = from, least = Infinity;
    for (const part of parts) {
      const x = part.x - from.x, y = part.y - from.y, along = x * dx + y * dy, beside = Math.abs(x * dy) + Math.abs(y * dx);
      if (along > 0.5 && along + 2 * beside < least) [best, least] = [part, along + 2 * beside];
    }
    return best;
  };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  for (const figure of document.querySelectorAll("svg.plot")) {
    const parts = [], of = new Map();
    for (const shape of figure.querySelectorAll(".tips > path")) {
      const title = shape.querySelector("title"), { x, y, width, height } = shape.getBBox();
      const part = { shape, text: title.textContent, x: x + width / 2, y: y + height / 2 };
      // The browser's own box would be a second one.
      title.remove();
      parts.push(part);
      of.set(shape, part);
    }
    if (parts.length === 0) continue;
    figure.setAttribute("tabindex", "0");
    figure.setAttribute("aria-description", "Arrow keys read out the numbers.");
    for (const event of ["pointermove", "pointerdown"]) {
      figure.addEventListener(event, ({ target }) => of.has(target) ? tip.show(of.get(target)) : tip.hide());
    }
    figure.addEventListener("pointerleave", ({ pointerType }) => { if (pointerType === "mouse") tip.hide(); });
    figure.addEventListener("blur", tip.hide);
    figure.addEventListener("keydown", event => {
      const arrow = ARROWS[event.key];
      if (event.key === "Escape") tip.hide();
      if (!arrow) return;
      event.preventDefault();
      const part = parts.includes(tip.shown()) ? next(parts, tip.shown(), arrow) : parts[0];
      part.shape.scrollIntoView({ block: "nearest" });
      tip.show(part);
    });
  }
})();
