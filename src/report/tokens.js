// Lets a reader ask a text where a head looks: at a token, under the pointer or with the focus, the others are shaded by its weights.
// The view has the data: prompts with their tokens, and for each head what every token gives to those before it.
(() => {
  "use strict";
  const make = (name, parent, text) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const choice = (parent, label, names) => {
    const box = make("label", parent, `${label} `), select = make("select", box);
    names.forEach((name, i) => Object.assign(make("option", select, name), { value: String(i) }));
    return select;
  };
  // Spaces and line breaks are seen in what is said; in the text they are what they are.
  // Each token is isolated, so that scripts of both directions keep their order.
  const seen = text => `\u2068${text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥")}\u2069`;
  // The tokens' own direction is each token's; that of the line is that of most letters.
  const direction = tokens => {
    const letters = tokens.join("").match(/\p{L}/gu) ?? [];
    const back = letters.filter(letter => /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/u.test(letter)).length;
    return 2 * back > letters.length ? "rtl" : "ltr";
  };
  const LISTED = 5;

  const start = figure => {
    const view = JSON.parse(figure.dataset.view), text = figure.querySelector(".text");
    const side = document.createElement("div");
    side.className = "side";
    text.before(side);
    const prompt = choice(side, "Prompt", view.prompts.map(({ id }) => id));
    const head = choice(side, "Head", view.prompts[0].heads.map(({ name }) => name));
    const way = choice(side, "Show", ["where a token looks", "who looks at a token", "what a token gets moved from where"]);
    const said = make("p", figure);
    said.setAttribute("role", "status");
    text.setAttribute("role", "group");
    text.setAttribute("aria-description", "Arrow left and right go from token to token, Escape shows none.");
    let spans = [], picked = null;

    // What the picked token has to do with each of the others.
    const weights = () => {
      const { heads, tokens } = view.prompts[prompt.value], { weights: rows, sizes } = heads[head.value];
      const all = tokens.map((_, j) => {
        if (way.value === "1") return rows[j]?.[picked] ?? 0;
        const weight = rows[picked]?.[j] ?? 0;
        return way.value === "2" ? weight * sizes[j] : weight;
      });
      const most = way.value === "2" ? Math.max(...all, 1e-9) : 1;
      return { all, shade: all.map(weight => weight / most) };
    };
    const show = () => {
      const { tokens } = view.prompts[prompt.value];
      spans.forEach((span, i) => span.setAttribute("aria-pressed", String(i === picked)));
      if (picked === null) {
        spans.forEach(span => span.style.removeProperty("--weight"));
        said.textContent = "Point at a token, or go to one by keyboard.";
        return;
      }
      const { all, shade } = weights();
      spans.forEach((span, i) => span.style.setProperty("--weight", `${Math.round(60 * shade[i])}%`));
      const order = all.map((weight, j) => [weight, j]).filter(([weight]) => weight >= .0005).sort((a, b) => b[0] - a[0]);
      const list = order.slice(0, LISTED).map(([weight, j]) => `${seen(tokens[j])} (${j}) ${weight.toFixed(3)}`).join(", ");
      const verb = ["looks at", "is looked at by", "gets moved from"][way.value];
      said.textContent = `${seen(tokens[picked])} (${picked}) ${verb} ${list || "nothing"}`;
    };
    const pick = (i, focus) => {
      picked = i;
      spans.forEach((span, j) => { span.tabIndex = j === (i ?? spans.length - 1) ? 0 : -1; });
      if (focus && i !== null) spans[i].focus();
      show();
    };
    const write = () => {
      text.replaceChildren();
      text.dir = direction(view.prompts[prompt.value].tokens);
      spans = view.prompts[prompt.value].tokens.map((token, i) => {
        const span = make("span", text, token);
        span.setAttribute("role", "button");
        span.setAttribute("aria-label", `${seen(token)}, token ${i}`);
        span.dir = "auto";
        if (token.includes("\n")) make("br", text);
        span.addEventListener("pointerenter", () => pick(i));
        span.addEventListener("focus", () => { if (picked !== i) pick(i); });
        return span;
      });
      pick(null);
    };
    text.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") pick(null);
      else if (event.key === "Home" || event.key === "End") pick(event.key === "Home" ? 0 : spans.length - 1, true);
      else if (step) pick(Math.min(Math.max((picked ?? spans.length) + step, 0), spans.length - 1), true);
      else return;
      event.preventDefault();
    });
    prompt.addEventListener("change", write);
    [head, way].forEach(select => select.addEventListener("change", show));
    write();
  };
  document.querySelectorAll("figure.tokens").forEach(start);
})();
