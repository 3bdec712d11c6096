"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("step"), select = document.getElementById("seed");
  const W = 240, H = 84, L = 34, R = 6, T = 6, B = 16;
  const last = data.steps[data.steps.length - 1];
  const x = (step) => L + (W - L - R) * Math.log2(1 + step) / Math.log2(1 + Math.max(last, 1));
  const make = (name, attributes, text) => {
    const svg = ["svg", "path", "line", "circle", "text"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const short = (v) => v === null || v === undefined ? "–" :
    Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 1 ? v.toFixed(2) : v.toFixed(3);

  const cursors = [];
  for (const curve of data.curves) {
    const box = make("div", { class: "measure" }), head = make("h3", {}), value = make("span", {});
    head.append(make("span", {}, curve.measure), value);
    const shown = [...curve.value, ...curve.low, ...curve.high].filter((v) => v !== null);
    let low = Math.min(...shown), high = Math.max(...shown);
    if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
    const y = (v) => T + (H - T - B) * (1 - (Math.min(Math.max(v, low), high) - low) / (high - low));
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label":
      `${curve.measure}: from ${short(curve.value[0])} to ${short(curve.value[curve.value.length - 1])}` +
      (curve.half ? `, half of it by step ${short(curve.half[0])}` : "") });
    const area = (a, b, name) => {
      const keep = curve.step.map((s, i) => i).filter((i) => a[i] !== null && b[i] !== null);
      if (!keep.length) return;
      const points = [...keep.map((i) => [x(curve.step[i]), y(b[i])]),
        ...keep.reverse().map((i) => [x(curve.step[i]), y(a[i])])];
      svg.append(make("path", { class: name, d: `M${points.map((p) => p.join(",")).join("L")}Z` }));
    };
    area(curve.null_low, curve.null_high, "null");
    area(curve.low, curve.high, "band");
    svg.append(make("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }));
    svg.append(make("path", { class: "line", d:
      `M${curve.step.map((s, i) => [s, curve.value[i]]).filter((p) => p[1] !== null)
        .map((p) => `${x(p[0])},${y(p[1])}`).join("L")}` }));
    if (curve.half) svg.append(make("line", { class: "half", x1: x(curve.half[0]), x2: x(curve.half[0]), y1: T, y2: H - B }));
    svg.append(make("text", { x: L - 3, y: T + 8, "text-anchor": "end" }, short(high)));
    svg.append(make("text", { x: L - 3, y: H - B, "text-anchor": "end" }, short(low)));
    for (const tick of [0, last]) {
      svg.append(make("text", { x: x(tick), y: H - 4, "text-anchor": tick ? "end" : "start" }, tick));
    }
    const line = make("line", { class: "cursor", y1: T, y2: H - B });
    svg.append(line);
    box.append(head, svg);
    document.getElementById("measures").append(box);
    cursors.push({ curve, line, value });
  }

  for (const seed of data.seeds) select.append(make("option", { value: seed }, seed));

  let largest = 1e-9;
  for (const key in data.at) for (const row of data.at[key].heads) for (const v of row) largest = Math.max(largest, Math.abs(v));

  const drawHeads = (heads) => {
    const place = document.getElementById("heads");
    place.replaceChildren();
    if (!heads.length) { place.append(make("p", {}, "Heads were not recorded.")); return; }
    const table = make("table", {}), top = make("tr", {});
    top.append(make("th", { scope: "col" }, "layer"), ...heads[0].map((_, h) => make("th", { scope: "col" }, `head ${h}`)));
    table.append(top);
    heads.forEach((row, layer) => {
      const line = make("tr", {});
      line.append(make("th", { scope: "row" }, layer));
      for (const v of row) {
        const share = Math.min(1, Math.abs(v) / largest), mix = (c) => Math.round(255 - share * (255 - c));
        const rgb = v >= 0 ? [230, 120, 40] : [70, 150, 210], cell = make("td", {}, short(v));
        cell.style.background = `rgb(${rgb.map(mix).join(",")})`;
        line.append(cell);
      }
      table.append(line);
    });
    place.append(table);
  };

  const drawLayers = (layers) => {
    const place = document.getElementById("layers");
    place.replaceChildren(...layers.map((cosine, layer) => {
      const row = make("div", { class: layer === data.layer ? "bar chosen" : "bar" });
      const label = `layer ${layer}`;
      row.append(make("span", {}, label),
        make("meter", { min: 0, max: 1, value: Math.max(0, cosine === null ? 0 : cosine), "aria-label": label }),
        make("span", {}, short(cosine)));
      return row;
    }));
  };

  const open = [];  // answers are folded until somebody opens them, and stay open while the slider moves
  const drawAnswers = (seed, index) => {
    const place = document.getElementById("answers"), note = document.getElementById("answers-note");
    let at = index;
    while (at > 0 && !data.at[`${seed}/${data.steps[at]}`].answers.length) at -= 1;
    const answers = data.at[`${seed}/${data.steps[at]}`].answers;
    note.textContent = answers.length ? `Greedy answers at step ${data.steps[at]}` +
      (at === index ? "." : `, the last before step ${data.steps[index]} at which answers were generated.`) :
      "No answers were generated.";
    place.replaceChildren(...answers.map((one, i) => {
      const box = make("details", { class: "answer" });
      if (open[i]) box.open = true;
      box.addEventListener("toggle", () => { open[i] = box.open; });
      box.append(make("summary", {}, `Prompt ${i + 1}: ${one.label}`), make("p", { class: "caption" }, one.prompt),
        make("blockquote", {}, one.answer || "(empty)"));
      return box;
    }));
  };

  const show = () => {
    const index = Number(slider.value), step = data.steps[index], seed = select.value;
    document.getElementById("now").textContent = step;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const { curve, line, value } of cursors) {
      line.setAttribute("x1", x(step)); line.setAttribute("x2", x(step));
      const at = curve.step.indexOf(step);
      const told = at < 0 ? "" : curve.changed[at];
      value.textContent = at < 0 ? "–" : short(curve.value[at]) + (told ? `, ${told}` : "");
    }
    const now = data.at[`${seed}/${step}`];
    drawHeads(now.heads); drawLayers(now.layers); drawAnswers(seed, index);
  };
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  slider.addEventListener("input", show);
  select.addEventListener("change", show);
  show();
})();
