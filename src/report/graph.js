// Lets a reader walk the graph of a figure: the numbers of an edge under the pointer, the edges of a node at a click, as many of
// the strongest edges as a slider says, and all of it by keyboard. The figure has the data: nodes and edges are groups with a title.
(() => {
  "use strict";
  const make = (name, className, parent) => {
    const element = document.createElement(name);
    element.className = className;
    parent.append(element);
    return element;
  };

  // An edge: its line is made wider, unseen, for the pointer to hit it, and its numbers stand over its middle.
  const edgeOf = shape => {
    const { from, to, rank } = shape.dataset, title = shape.querySelector("title"), line = shape.querySelector("path");
    const reach = document.createElementNS(line.namespaceURI, "path");
    reach.setAttribute("class", "reach");
    reach.setAttribute("d", line.getAttribute("d"));
    const around = () => {
      const middle = line.getPointAtLength(line.getTotalLength() / 2).matrixTransform(line.getScreenCTM());
      return new DOMRect(middle.x, middle.y - 8, 0, 16);
    };
    // The browser's own box would be a second one.
    title.remove();
    shape.prepend(reach);
    return { shape, from, to, rank: Number(rank), text: title.textContent, around };
  };
  const nodeOf = shape => {
    const title = shape.querySelector("title"), name = title.textContent, { x, y, width } = shape.getBBox();
    title.remove();
    shape.setAttribute("role", "button");
    shape.setAttribute("tabindex", "-1");
    shape.setAttribute("aria-label", name);
    return { shape, id: shape.dataset.node, name, x: x + width / 2, y };
  };

  const walk = plot => {
    const edges = Array.from(plot.querySelectorAll(".edge"), edgeOf).sort((a, b) => a.rank - b.rank);
    const nodes = Array.from(plot.querySelectorAll(".node"), nodeOf), byId = new Map(nodes.map(node => [node.id, node]));
    const figure = plot.closest("figure"), side = document.createElement("div");
    figure.classList.add("walk");
    figure.querySelector(".picture").after(side);
    side.className = "side";
    const label = make("label", "", side), slider = make("input", "", label);
    label.prepend("Strongest edges shown ");
    const count = make("output", "", label), heading = make("p", "", side), list = make("ol", "", side);
    heading.setAttribute("role", "status");
    Object.assign(slider, { type: "range", min: "1", max: String(edges.length), value: String(edges.length) });
    list.setAttribute("aria-label", "Edges, the strongest first");
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-description", "Arrow up and down follow the strongest edge, left and right go along a layer; "
      + "Enter shows a node's edges alone, Escape shows all.");

    let picked = null;
    const size = () => Number(slider.value);
    const shown = () => edges.filter(edge => edge.rank < size());
    const touches = (edge, node) => edge.from === node.id || edge.to === node.id;
    const item = edge => {
      const button = make("button", "", make("li", "", list)), on = () => edge.shape.classList.add("on");
      const off = () => edge.shape.classList.remove("on");
      button.type = "button";
      button.tabIndex = -1;
      button.textContent = edge.text;
      for (const [event, then] of [["focus", on], ["pointerenter", on], ["blur", off], ["pointerleave", off]]) {
        button.addEventListener(event, then);
      }
      // To the other end, or the upper one.
      button.addEventListener("click", () => {
        off();
        pick(byId.get(picked && picked.id === edge.to ? edge.from : edge.to));
        go(picked);
      });
    };
    const render = () => {
      const listed = picked ? shown().filter(edge => touches(edge, picked)) : shown();
      for (const edge of edges) {
        edge.shape.classList.toggle("gone", edge.rank >= size());
        edge.shape.classList.toggle("dim", !listed.includes(edge));
      }
      for (const node of nodes) {
        const bare = node !== picked && !listed.some(edge => touches(edge, node));
        node.shape.classList.toggle("dim", bare);
        node.shape.setAttribute("aria-pressed", String(node === picked));
      }
      count.textContent = `${size()} of ${edges.length}`;
      const many = `${listed.length} ${listed.length === 1 ? "edge" : "edges"}`;
      heading.textContent = picked ? `${picked.name}: ${many}` : `All nodes: ${many}`;
      list.replaceChildren();
      listed.forEach(item);
      if (list.firstChild) list.firstChild.firstChild.tabIndex = 0;
    };
    const pick = node => {
      tip.hide();
      picked = node;
      render();
    };
    // One node at a time is reached by Tab: the one that was last.
    const enter = node => {
      for (const other of nodes) other.shape.setAttribute("tabindex", other === node ? "0" : "-1");
    };
    const go = node => {
      enter(node);
      node.shape.focus({ preventScroll: true });
      node.shape.scrollIntoView({ block: "nearest", inline: "nearest" });
    };

    const along = (node, step) => {
      const row = nodes.filter(other => Math.abs(other.y - node.y) < 1 && shown().some(edge => touches(edge, other)));
      row.sort((a, b) => a.x - b.x);
      return row[row.indexOf(node) + step];
    };
    const strongest = (node, here, there) => {
      const edge = shown().find(edge => edge[here] === node.id);
      return edge && byId.get(edge[there]);
    };
    const STEPS = {
      ArrowUp: node => strongest(node, "from", "to"), ArrowDown: node => strongest(node, "to", "from"),
      ArrowLeft: node => along(node, -1), ArrowRight: node => along(node, 1),
    };
    const nodeAt = target => { const at = target.closest(".node"); return at && byId.get(at.dataset.node); };
    const edgeAt = target => { const at = target.closest(".edge"); return at && edges.find(edge => edge.shape === at); };

    for (const event of ["pointermove", "pointerdown"]) {
      plot.addEventListener(event, ({ target }) => { const edge = edgeAt(target); edge ? tip.show(edge) : tip.hide(); });
    }
    plot.addEventListener("pointerleave", ({ pointerType }) => { if (pointerType === "mouse") tip.hide(); });
    plot.addEventListener("click", ({ target }) => {
      const node = nodeAt(target);
      if (node) pick(node === picked ? null : node);
      else if (!edgeAt(target)) pick(null);
    });
    plot.addEventListener("focusin", ({ target }) => { const node = nodeAt(target); if (node) enter(node); });
    plot.addEventListener("keydown", event => {
      const node = nodeAt(event.target), step = STEPS[event.key];
      if (!node || !(step || event.key === "Enter" || event.key === " ")) return;
      event.preventDefault();
      if (!step) return pick(node === picked ? null : node);
      const next = step(node);
      if (!next) return;
      if (picked) pick(next);
      go(next);
    });
    list.addEventListener("keydown", event => {
      const step = { ArrowUp: "previousSibling", ArrowDown: "nextSibling" }[event.key];
      const next = step && document.activeElement.parentElement[step];
      if (!step) return;
      event.preventDefault();
      if (next) next.firstChild.focus();
    });
    figure.addEventListener("keydown", event => {
      if (event.key !== "Escape") return;
      slider.value = slider.max;
      pick(null);
    });
    slider.addEventListener("input", render);
    if (nodes.length > 0) enter(nodes[0]);
    render();
  };

  for (const plot of document.querySelectorAll("svg.plot")) if (plot.querySelector(".edge")) walk(plot);
})();
