// Charts: every spec is drawn into the box that bears its name. `ast` keeps Vega from using eval.
const specs = document.getElementById("specs");
if (specs) {
  for (const [name, spec] of Object.entries(JSON.parse(specs.textContent))) {
    vegaEmbed(document.getElementById(name), spec, { actions: false, ast: true, renderer: "svg" });
  }
}

// Tables: a click on a heading sorts by it, a second click turns the order round; empty cells stay last.
function sortBy(heading) {
  const body = heading.closest("table").tBodies[0];
  const descending = heading.ariaSort === "ascending";
  const value = (row) => parseFloat(row.cells[heading.cellIndex].dataset.value);
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return descending ? y - x : x - y;
  };
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...body.rows].sort(compare));
}
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

// Paper shows what is folded on the screen.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
