// A click on a column's head sorts by it, a second click the other way round; empty cells stay last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending", column = head.cellIndex;
    const numeric = head.classList.contains("num");
    const number = text => { const value = parseFloat(text.replace(/\u2212/g, "-").replace(/[, \u202f]/g, ""));
      return Number.isNaN(value) ? null : value; };
    const key = row => { const text = row.cells[column].textContent.trim();
      return numeric ? number(text) : text || null; };
    const order = (a, b) => numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
    const rows = Array.from(body.rows, row => [key(row), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : up ? order(a, b) : order(b, a));
    body.append(...rows.map(([, row]) => row));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  });
}
