// Lets a reader walk the graph of a figure: the numbers of an edge under the pointer, the edges of a node at a click, as many of
// the strongest edges as a slider says, and all of it by keyboard. The figure has the data: nodes and edges are groups with a title.
(() => {
  "use strict";
  const make = (name, parent) => {
    const element = document.createElement(name);
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

  // The picture with what stands beside it: a slider, what is listed, and the list.
  const graphOf = plot => {
    const edges = Array.from(plot.querySelectorAll(".edge"), edgeOf).sort((a, b) => a.rank - b.rank);
    const nodes = Array.from(plot.querySelectorAll(".node"), nodeOf), byId = new Map(nodes.map(node => [node.id, node]));
    const figure = plot.closest("figure"), side = document.createElement("div");
    figure.classList.add("walk");
    figure.querySelector(".picture").after(side);
    side.className = "side";
    const label = make("label", side), slider = make("input", label);
    label.prepend("Strongest edges ");
    const count = make("output", label), heading = make("p", side), list = make("ol", side);
    heading.setAttribute("role", "status");
    Object.assign(slider, { type: "range", min: "1", max: String(edges.length), value: String(edges.length) });
    list.setAttribute("aria-label", "Edges, the strongest first");
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-description", "Arrow up and down follow the strongest edge, left and right go along a layer; "
      + "Enter shows a node's edges alone, Escape shows all.");
    return { plot, figure, edges, nodes, byId, slider, count, heading, list, picked: null };
  };

  const touches = (edge, node) => edge.from === node.id || edge.to === node.id;
  const shown = graph => graph.edges.filter(edge => edge.rank < Number(graph.slider.value));
  const at = (graph, target) => {
    const node = target.closest(".node"), edge = target.closest(".edge");
    return { node: node && graph.byId.get(node.dataset.node), edge: edge && graph.edges.find(({ shape }) => shape === edge) };
  };

  // An edge in the list: it is set off in the picture, and leads to its other end, or to the upper one.
  const item = (graph, edge) => {
    const button = make("button", make("li", graph.list)), light = on => edge.shape.classList.toggle("on", on);
    button.type = "button";
    button.tabIndex = -1;
    button.textContent = edge.text;
    for (const event of ["focus", "pointerenter"]) button.addEventListener(event, () => light(true));
    for (const event of ["blur", "pointerleave"]) button.addEventListener(event, () => light(false));
    button.addEventListener("click", () => {
      light(false);
      const from = graph.picked && graph.picked.id === edge.to;
      pick(graph, graph.byId.get(from ? edge.from : edge.to));
      go(graph, graph.picked);
    });
  };
  const render = graph => {
    const { edges, nodes, picked, list } = graph, seen = shown(graph);
    const listed = picked ? seen.filter(edge => touches(edge, picked)) : seen;
    for (const edge of edges) {
      edge.shape.classList.toggle("gone", !seen.includes(edge));
      edge.shape.classList.toggle("dim", !listed.includes(edge));
    }
    for (const node of nodes) {
      node.shape.classList.toggle("dim", node !== picked && !listed.some(edge => touches(edge, node)));
      node.shape.setAttribute("aria-pressed", String(node === picked));
    }
    graph.count.textContent = `${seen.length} of ${edges.length}`;
    const many = `${listed.length} ${listed.length === 1 ? "edge" : "edges"}`;
    graph.heading.textContent = picked ? `${picked.name}: ${many}` : `All nodes: ${many}`;
    list.replaceChildren();
    for (const edge of listed) item(graph, edge);
    if (list.firstChild) list.firstChild.firstChild.tabIndex = 0;
  };
  const pick = (graph, node) => {
    tip.hide();
    graph.picked = node;
    render(graph);
  };
  // One node at a time is reached by Tab: the one that was last.
  const enter = (graph, node) => {
    for (const other of graph.nodes) other.shape.setAttribute("tabindex", other === node ? "0" : "-1");
  };
  const go = (graph, node) => {
    node.shape.focus({ preventScroll: true });
    node.shape.scrollIntoView({ block: "nearest", inline: "nearest" });
  };

  const along = step => (graph, node) => {
    const row = graph.nodes.filter(({ y, shape }) => Math.abs(y - node.y) < 1 && !shape.classList.contains("dim"));
    row.sort((a, b) => a.x - b.x);
    return row[row.indexOf(node) + step];
  };
  const strongest = (here, there) => (graph, node) => {
    const edge = shown(graph).find(edge => edge[here] === node.id);
    return edge && graph.byId.get(edge[there]);
  };
  const STEPS = {
    ArrowUp: strongest("from", "to"), ArrowDown: strongest("to", "from"), ArrowLeft: along(-1), ArrowRight: along(1),
  };

  const pointed = graph => {
    for (const event of ["pointermove", "pointerdown"]) {
      graph.plot.addEventListener(event, ({ target }) => {
        const { edge } = at(graph, target);
        if (edge) tip.show(edge);
        else tip.hide();
      });
    }
    graph.plot.addEventListener("pointerleave", ({ pointerType }) => { if (pointerType === "mouse") tip.hide(); });
    graph.plot.addEventListener("click", ({ target }) => {
      const { node, edge } = at(graph, target);
      if (node) pick(graph, node === graph.picked ? null : node);
      else if (!edge) pick(graph, null);
    });
  };
  const typed = graph => {
    graph.plot.addEventListener("focusin", ({ target }) => {
      const { node } = at(graph, target);
      if (node) enter(graph, node);
    });
    graph.plot.addEventListener("keydown", event => {
      const { node } = at(graph, event.target), step = STEPS[event.key];
      if (!node || !(step || event.key === "Enter" || event.key === " ")) return;
      event.preventDefault();
      const next = step ? step(graph, node) : null;
      if (!step) pick(graph, node === graph.picked ? null : node);
      if (!next) return;
      if (graph.picked) pick(graph, next);
      go(graph, next);
    });
    graph.list.addEventListener("keydown", event => {
      const step = { ArrowUp: "previousSibling", ArrowDown: "nextSibling" }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = document.activeElement.parentElement[step];
      if (next) next.firstChild.focus();
    });
    graph.figure.addEventListener("keydown", event => {
      if (event.key !== "Escape") return;
      graph.slider.value = graph.slider.max;
      pick(graph, null);
    });
  };

  for (const plot of document.querySelectorAll("svg.plot")) {
    if (!plot.querySelector(".edge")) continue;
    const graph = graphOf(plot);
    pointed(graph);
    typed(graph);
    graph.slider.addEventListener("input", () => render(graph));
    enter(graph, graph.nodes[0]);
    render(graph);
  }
})();
