// Tables: a click on a heading sorts by it, another one turns the order round.
function keyOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return { text, number: /^[+−-]?[\d.]/.test(text) ? number : NaN };
}

function compared(a, b) {
  const [aKnown, bKnown] = [!isNaN(a.number), !isNaN(b.number)];
  if (aKnown && bKnown) return a.number - b.number;
  return aKnown - bKnown || a.text.localeCompare(b.text, undefined, { numeric: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") === "ascending"
        || (!heading.hasAttribute("aria-sort") && heading.classList.contains("n"));
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
      rows.sort(([a], [b]) => compared(a, b) * (falling ? -1 : 1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
