"use strict";
{
  // The feature browser. Every text comes from the model's tokens: it reaches the page through textContent alone, and
  // every number arrives as the text that report.json's formatting gives it. Examples are taken apart when shown.
  const PAGE = 10;
  const STRONGEST = 3;
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

  const sequences = data.text.sequences.map(() => null);
  const sequence = (number) => {
    sequences[number] ??= data.text.sequences[number].split(" ").filter(Boolean).map((place) => data.text.tokens[place]);
    return sequences[number];
  };

  // "place:value …" as pairs.
  const entriesOf = (text) => text.split(" ").filter(Boolean).map((entry) => {
    const cut = entry.indexOf(":");
    return [Number(entry.slice(0, cut)), entry.slice(cut + 1)];
  });

  const takenApart = (example) => {
    const parts = example.split(" ");
    const [number, start, size, peak] = parts.slice(0, 4).map(Number);
    return {
      tokens: sequence(number).slice(start, start + size),
      values: new Map(entriesOf(parts.slice(4).join(" "))),
      peak,
    };
  };

  // What is searched: examples, and the tokens that a latent promotes. Made when first asked for.
  const searched = new Map();
  const textOf = (latent) => {
    if (!searched.has(latent)) {
      const examples = latent.examples.flat().map((example) => takenApart(example).tokens.join(""));
      const promoted = latent.logits.flatMap(([up]) => entriesOf(up ?? "").map(([place]) => data.text.tokens[place]));
      searched.set(latent, [...examples, ...promoted].join("\n").toLowerCase());
    }
    return searched.get(latent);
  };

  const matches = (latent, query) => {
    const number = query.match(/^#?(\d+)$/);
    if (number && latent.latent === Number(number[1])) return true;
    return !query || (!query.startsWith("#") && textOf(latent).includes(query));
  };

  const sorted = (latents) => {
    const [key, direction] = order.value.split("-");
    const sign = direction === "down" ? -1 : 1;
    const of = (latent) => (key === "latent" ? latent.latent : latent.sort[key]);
    return [...latents].sort((a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.latent - b.latent;
      return sign * (x - y) || a.latent - b.latent;
    });
  };

  // Line ends and tabs would tear an example apart.
  const visible = (token) => token.replace(/\r?\n|\r/g, "⏎").replace(/\t/g, "⇥");

  const exampleOf = ({ tokens, values, peak }, largest) => {
    const item = element("li", "example");
    item.append(element("span", "value", values.get(peak) ?? "0"));
    const line = element("bdi", "tokens");
    tokens.forEach((token, i) => {
      const text = values.get(i);
      const value = parseFloat(text) || 0;
      const span = element("span", i === peak ? "peak" : "", visible(token));
      if (value && largest) {
        span.classList.add(value > 0 ? "active" : "negative");
        span.style.setProperty("--share", (Math.abs(value) / largest).toFixed(3));
        span.title = text;
      }
      line.append(span);
    });
    item.append(line);
    return item;
  };

  const listOf = (examples, largest) => {
    const items = element("ol", "examples");
    for (const example of examples) items.append(exampleOf(example, largest));
    return items;
  };

  const folded = (title, content) => {
    const box = element("details", "folded");
    box.append(element("summary", "", title), content);
    return box;
  };

  const barsOf = (text, largest) => {
    const counts = text.split(" ").map(Number);
    const most = Math.max(...counts);
    const figure = element("div", "bars");
    figure.title = `values from 0 to ${largest}: tokens in each part of the way`;
    counts.forEach((count, i) => {
      const bar = element("span");
      bar.style.setProperty("--height", count ? Math.max(0.04, count / most).toFixed(3) : "0");
      bar.title = `${count} tokens, ${Math.round((100 * i) / counts.length)} to ` +
        `${Math.round((100 * (i + 1)) / counts.length)} % of ${largest}`;
      figure.append(bar);
    });
    return figure;
  };

  const logitsOf = ([promoted, suppressed]) => {
    const box = element("div", "logits");
    for (const [name, text] of [["Promotes", promoted], ["Suppresses", suppressed]]) {
      const line = element("p", name.toLowerCase());
      line.append(element("b", "", `${name} `));
      for (const [place, value] of entriesOf(text)) {
        const token = element("bdi", "token", visible(data.text.tokens[place]));
        token.title = value;
        line.append(token, " ");
      }
      box.append(line);
    }
    return box;
  };

  const sideOf = (latent, row) => {
    const side = element("div", "side");
    const heading = element("h4", "", data.rows[row]);
    heading.append(element("small", "", ` active on ${latent.active[row]}`));
    side.append(heading);
    const examples = latent.examples[row].map(takenApart);
    if (latent.logits[row].length) side.append(logitsOf(latent.logits[row]));
    if (!examples.length) {
      side.append(element("p", "aside", "No example: never active on the tokens looked at."));
      return side;
    }
    if (latent.histogram[row]) side.append(barsOf(latent.histogram[row], latent.largest[row]));
    const weaker = latent.weaker[row].map(takenApart);
    const heights = [...examples, ...weaker].flatMap(({ values }) => [...values.values()].map((v) => Math.abs(parseFloat(v))));
    const largest = Math.max(0, ...heights);
    side.append(listOf(examples.slice(0, STRONGEST), largest));
    if (weaker.length) side.append(element("h5", "", "Drawn from where it is weaker"), listOf(weaker, largest));
    if (examples.length > STRONGEST) {
      const further = examples.slice(STRONGEST);
      side.append(folded(`${further.length} more of the strongest`, listOf(further, largest)));
    }
    return side;
  };

  const cardOf = (latent) => {
    const card = element("li", "latent");
    card.id = `latent-${latent.latent}`;
    const head = element("div", "head");
    const link = element("a", "number", `#${latent.latent}`);
    link.href = `#latent-${latent.latent}`;
    head.append(link, element("span", `status ${latent.status}`, data.statuses[latent.status]));
    latent.facts.forEach((text, i) => {
      const fact = element("span", "fact", `${data.facts[i]} `);
      fact.append(element("b", "", text));
      head.append(fact);
    });
    if (data.page) {
      const page = element("a", "public", "Neuronpedia, of the teacher");
      page.href = `${data.page}${latent.latent}`;
      page.rel = "noreferrer";
      head.append(page);
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
