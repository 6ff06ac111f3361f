// Keeps tables' first columns in view, and sorts by a column: its header becomes a button that goes through ascending,
// descending, as it was.
// Numbers go by value, text as people sort it; what holds no value stays last either way.
(() => {
  "use strict";
  const DIGITS = /[+-]?(?:\d{1,3}(?:[,\u00a0\u2009\u202f ]\d{3})+(?!\d)|\d+)?(?:\.\d+)?(?:e[+-]?\d+)?/i;
  const NUMBER = new RegExp("^([<>\u2264\u2265]?)\\s*[\\[(]?\\s*(?:([+-]?)\u221e|(" + DIGITS.source + "))", "i");

  // The value that a cell shows, as [value, step]; "< 0.001" is a step below 0.001, "[0.1, 0.3]" counts by its start.
  const value = text => {
    const found = NUMBER.exec(text.replace(/[\u2212\u2010\u2011]/g, "-"));
    if (!found) return null;
    const [, sign, infinite, digits] = found;
    const number = infinite === undefined ? parseFloat(digits.replace(/[,\s]/g, ""))
      : infinite === "-" ? -Infinity : Infinity;
    return Number.isNaN(number) ? null : [number, sign === "<" ? -1 : sign === ">" ? 1 : 0];
  };
  const compareNumbers = ([a, x], [b, y]) => a < b ? -1 : a > b ? 1 : x - y;
  const words = new Intl.Collator(undefined, { numeric: true });

  const sort = (body, rows, column, numeric, direction) => {
    const key = row => {
      const text = row.cells[column].textContent.trim();
      return numeric ? value(text) : text === "" || text === "\u2013" ? null : text;
    };
    const order = numeric ? compareNumbers : words.compare;
    const keyed = rows.map(row => [key(row), row]);
    if (direction !== 0) {
      keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : direction * order(a, b));
    }
    body.append(...keyed.map(([, row]) => row));
  };

  // Says how far from the side each column stays that stays in view: as far as those before it are wide.
  const pin = table => {
    const heads = Array.from(table.tHead.rows[0].cells).filter(head => head.classList.contains("pin"));
    if (heads.length < 2) return;
    const place = () => {
      let left = 0;
      heads.forEach((head, column) => {
        for (const row of table.rows) row.cells[column].style.setProperty("--left", `${left}px`);
        left += head.getBoundingClientRect().width;
      });
    };
    new ResizeObserver(place).observe(table);
    place();
  };

  const status = document.createElement("p");
  status.className = "status";
  status.setAttribute("role", "status");
  document.body.append(status);

  for (const table of document.querySelectorAll("table")) {
    pin(table);
    const body = table.tBodies[0], rows = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
    if (rows.length < 2) continue;
    for (const head of heads) {
      const name = head.textContent, button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.classList.add("sortable");
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
        const state = next === undefined ? "ascending" : next;
        sort(body, rows, head.cellIndex, head.classList.contains("num"), { ascending: 1, descending: -1 }[state] ?? 0);
        for (const other of heads) other.removeAttribute("aria-sort");
        if (state) head.setAttribute("aria-sort", state);
        status.textContent = state ? `Sorted by ${name}, ${state}` : "In the order it was made";
      });
    }
  }
})();
