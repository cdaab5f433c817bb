"use strict";
{
  // Charts: every spec is drawn into the box that bears its name. `ast` keeps Vega from using eval.
  const specs = document.getElementById("specs");
  for (const [name, spec] of Object.entries(specs ? JSON.parse(specs.textContent) : {})) {
    vegaEmbed(document.getElementById(name), spec, { actions: false, ast: true, renderer: "svg" });
  }

  for (const heading of document.querySelectorAll("h2[id]")) {
    const link = document.createElement("a");
    link.href = `#${heading.id}`;
    link.textContent = heading.textContent;
    document.getElementById("contents").append(link);
  }

  // Tables: a click on a heading sorts by it, a second click turns the order round; what was not measured stays last.
  const sortBy = (heading) => {
    const body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const place = [...heading.parentElement.cells].indexOf(heading);
    const measured = heading.closest("table").querySelector(`tbody tr > :nth-child(${place + 1})[data-value]`);
    const key = (row) => {
      const cell = row.cells[place];
      return measured ? parseFloat(cell.dataset.value) : cell.textContent;
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!measured) return descending ? y.localeCompare(x) : x.localeCompare(y);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return descending ? y - x : x - y;
    };
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  };
  for (const button of document.querySelectorAll("table.sortable thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }

  // A sweep's cells: only those whose name or hook holds every word stay.
  const filter = document.getElementById("cell-filter");
  if (filter) {
    filter.form.addEventListener("submit", (event) => event.preventDefault());
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const row of document.querySelectorAll("tr[data-cell]")) {
        row.hidden = !words.every((word) => row.dataset.cell.toLowerCase().includes(word));
      }
    });
  }
}
