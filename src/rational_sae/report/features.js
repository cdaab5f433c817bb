"use strict";
{
  // The feature browser. Every text comes from the model's tokens: it reaches the page through textContent alone, and
  // every number arrives as the text that report.json's formatting gives it.
  const PAGE = 10;
  const data = JSON.parse(document.getElementById("features").textContent);
  const form = document.getElementById("browser");
  const list = document.getElementById("latents");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const { words, order, status } = form.elements;
  let chosen = [];
  let shown = 0;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const textOf = (latent) => latent.examples.flat().map(([tokens]) => tokens.join("")).join("\n").toLowerCase();
  for (const latent of data.latents) latent.text = textOf(latent);

  const matches = (latent, query) => {
    const number = query.match(/^#?(\d+)$/);
    if (number && latent.latent === Number(number[1])) return true;
    return !query.startsWith("#") && latent.text.includes(query);
  };

  const sorted = (latents) => {
    const [key, direction] = order.value.split("-");
    const sign = direction === "down" ? -1 : 1;
    return [...latents].sort((a, b) => {
      const [x, y] = [a.sort[key], b.sort[key]];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y) || a.latent - b.latent;
    });
  };

  // Line ends and tabs would tear an example apart.
  const visible = (token) => token.replace(/\r?\n|\r/g, "⏎").replace(/\t/g, "⇥");

  const exampleOf = ([tokens, values, peak], largest) => {
    const item = element("li", "example");
    item.append(element("span", "value", String(values[peak])));
    const line = element("bdi", "tokens");
    tokens.forEach((token, i) => {
      const value = parseFloat(values[i]) || 0;
      const span = element("span", i === peak ? "peak" : "", visible(token));
      if (value && largest) {
        span.classList.add(value > 0 ? "active" : "negative");
        span.style.setProperty("--share", (Math.abs(value) / largest).toFixed(3));
        span.title = String(values[i]);
      }
      line.append(span);
    });
    item.append(line);
    return item;
  };

  const sideOf = (latent, row) => {
    const side = element("div", "side");
    const heading = element("h4", "", data.rows[row]);
    heading.append(element("small", "", ` active on ${latent.density[row]} of tokens`));
    side.append(heading);
    const examples = latent.examples[row];
    if (!examples.length) side.append(element("p", "aside", "No example: never active on the tokens looked at."));
    const largest = Math.max(0, ...examples.flatMap(([, values]) => values.map((v) => Math.abs(parseFloat(v) || 0))));
    const items = element("ol", "examples");
    for (const example of examples) items.append(exampleOf(example, largest));
    side.append(items);
    return side;
  };

  const cardOf = (latent) => {
    const card = element("li", "latent");
    card.id = `latent-${latent.latent}`;
    const head = element("div", "head");
    const link = element("a", "number", `#${latent.latent}`);
    link.href = `#latent-${latent.latent}`;
    head.append(link, element("span", `status ${latent.status}`, latent.words));
    for (const [label, text] of latent.facts) {
      const fact = element("span", "fact", `${label} `);
      fact.append(element("b", "", text));
      head.append(fact);
    }
    const sides = element("div", "sides");
    for (const row of data.rows.keys()) sides.append(sideOf(latent, row));
    card.append(head, sides);
    return card;
  };

  const showMore = () => {
    const next = chosen.slice(shown, shown + PAGE);
    list.append(...next.map(cardOf));
    shown += next.length;
    more.hidden = shown === chosen.length;
    found.textContent = `${chosen.length} of ${data.latents.length} latents` +
      (shown < chosen.length ? `, ${shown} shown.` : ".");
  };

  const update = () => {
    const query = words.value.trim().toLowerCase();
    const kept = data.latents.filter((l) => (!status.value || l.status === status.value) && matches(l, query));
    chosen = sorted(kept);
    shown = 0;
    list.replaceChildren();
    showMore();
  };

  // A link to one latent: report.html#latent-12.
  const follow = () => {
    const wanted = location.hash.match(/^#latent-(\d+)$/);
    if (!wanted) return;
    if (!document.getElementById(location.hash.slice(1))) {
      status.value = "";
      words.value = `#${wanted[1]}`;
      update();
    }
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  addEventListener("hashchange", follow);
  update();
  follow();
}
