"use strict";
(() => {
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", () => {
      const box = button.closest("details"), area = box.querySelector("textarea");
      area.select();
      box.querySelector(".copied").textContent = document.execCommand("copy") ? "Copied." : "Press Ctrl+C.";
    });
  }
  const holder = document.getElementById("answer-data");
  if (!holder) return;
  const { name, rows } = JSON.parse(holder.textContent);
  const at = (id) => document.getElementById(`answer-${id}`);
  const PAGE = 40;
  let shown = PAGE, found = [];
  const make = (tag, attributes, text) => {
    const made = document.createElement(tag);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const turn = (row) => row.base_label === row.tuned_label ? `${row.base_label}, both` : `${row.base_label} → ${row.tuned_label}`;
  const slug = (text) => String(text).toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  for (const row of rows) {
    row.turn = turn(row);
    row.id = `row-${slug(row.model)}-${slug(row.set)}-${row.index}`;
    row.text = `${row.prompt}\n${row.base}\n${row.tuned}`.toLowerCase();
  }
  const fill = (select, first, values) => {
    select.append(make("option", { value: "" }, first));
    for (const value of values) select.append(make("option", { value }, value));
  };
  const kinds = (key) => [...new Set(rows.map((row) => row[key]))];
  const count = {};
  for (const row of rows) count[row.turn] = (count[row.turn] || 0) + 1;
  fill(at("model"), "all", kinds("model"));
  fill(at("set"), "all", kinds("set"));
  fill(at("verdict"), "all", []);
  at("verdict").append(make("option", { value: "*" }, `changed (${rows.filter((r) => r.base_label !== r.tuned_label).length})`));
  for (const key of Object.keys(count).sort((a, b) => count[b] - count[a])) {
    at("verdict").append(make("option", { value: key }, `${key} (${count[key]})`));
  }
  const side = (who, label, text) => {
    const box = make("div", { class: "turn" }), head = make("p", { class: "who" }, `${who} · `);
    head.append(make("span", { class: "label" }, label));
    box.append(head, make("blockquote", {}, text || "(empty)"));
    return box;
  };
  const entry = (row) => {
    const box = make("details", { id: row.id }), line = make("summary", {});
    if (row.base_label !== row.tuned_label) box.classList.add("turned");
    const model = kinds("model").length > 1 ? `${row.model} · ` : "";
    line.append(`${model}${row.set} ${row.index + 1}: `, make("span", { class: "label" }, row.turn));
    line.append(make("a", { class: "permalink", href: `#${row.id}`, "aria-label": `Link to ${row.set} ${row.index + 1}` }, "#"));
    box.append(line);
    box.addEventListener("toggle", () => {
      if (!box.open || box.children.length > 1) return;
      const pair = make("div", { class: "answers" });
      const asked = make("div", { class: "turn" });
      asked.append(make("p", { class: "who" }, "Prompt"), make("blockquote", {}, row.prompt));
      pair.append(side("before", row.base_label, row.base), side("after", row.tuned_label, row.tuned));
      box.append(asked, pair);
    });
    return box;
  };
  const draw = () => {
    const place = at("rows");
    place.replaceChildren(...found.slice(0, shown).map(entry));
    at("count").textContent = `${found.length} of ${rows.length} prompts, ${Math.min(shown, found.length)} shown; folded because they may be unpleasant to read.`;
    at("more").hidden = shown >= found.length;
  };
  const filter = () => {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const model = at("model").value, set = at("set").value, verdict = at("verdict").value;
    found = rows.filter((row) => (!model || row.model === model) && (!set || row.set === set)
      && (!verdict || (verdict === "*" ? row.base_label !== row.tuned_label : row.turn === verdict))
      && words.every((word) => row.text.includes(word)));
    shown = PAGE;
    draw();
  };
  const visit = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const place = rows.findIndex((row) => row.id === id);
    if (place < 0) return;
    if (!found.includes(rows[place])) {
      for (const key of ["search", "model", "set", "verdict"]) at(key).value = "";
      filter();
    }
    shown = Math.max(shown, found.indexOf(rows[place]) + 1);
    draw();
    const box = document.getElementById(id);
    box.open = true;
    box.scrollIntoView();
  };
  const COLUMNS = ["model", "set", "index", "prompt", "base", "tuned", "base_label", "tuned_label"];
  const plain = (row) => Object.fromEntries(COLUMNS.map((key) => [key, row[key]]));
  // A cell that a spreadsheet would take for a formula gets an apostrophe.
  const cell = (value) => {
    const text = String(value), safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return `"${safe.replaceAll('"', '""')}"`;
  };
  const download = (suffix, text) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    const link = make("a", { href: url, download: `${name}.${suffix}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const key of ["search", "model", "set", "verdict"]) at(key).addEventListener("input", filter);
  at("more").addEventListener("click", () => { shown += PAGE; draw(); });
  at("open").addEventListener("click", () => { for (const box of at("rows").children) box.open = true; });
  at("csv").addEventListener("click", () => download("csv",
    [COLUMNS.join(","), ...found.map((row) => COLUMNS.map((key) => cell(row[key])).join(","))].join("\n") + "\n"));
  at("jsonl").addEventListener("click", () => download("jsonl", found.map((row) => JSON.stringify(plain(row))).join("\n") + "\n"));
  addEventListener("hashchange", visit);
  filter();
  visit();
})();
