// The sample table. Samples are model output: they only ever become text nodes, never markup.
"use strict";
(() => {
  const samples = JSON.parse(document.getElementById("data").textContent);
  const body = document.querySelector("#rows tbody");
  const controls = ["find", "verdict", "stage", "why"].map((id) => document.getElementById(id));
  const [find, verdict, stage, why] = controls;

  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const number = (x, digits) => (x === null ? "–" : x.toFixed(digits));
  const fill = (select, values) => [...new Set(values)].forEach((v) => {
    const option = make("option", v);
    option.value = v;
    select.append(option);
  });
  fill(stage, samples.map((s) => s.stage));
  fill(why, samples.flatMap((s) => s.why));

  const known = new Set([...verdict.options].map((option) => option.value));
  const chip = (name) => {
    const node = make("td", undefined, "chip");
    const dot = make("i");
    dot.style.background = known.has(name) ? `var(--${name})` : "var(--muted)";
    node.append(dot, name.replaceAll("_", " "));
    return node;
  };

  const block = (parent, title, text) => {
    parent.append(make("h4", title), make("pre", text));
  };

  // The less probable a token was to the sampler, the stronger its background.
  const tokens = (sample) => {
    const pre = make("pre", undefined, sample.decoded ? "tokens" : "tokens ids");
    sample.tokens.forEach((text, i) => {
      const logprob = sample.logprobs[i];
      const span = make("span", text);
      const surprise = logprob === null ? 1 : Math.min(1, -logprob / 4);
      span.style.background = `color-mix(in srgb, var(--c4) ${Math.round(70 * surprise)}%, transparent)`;
      span.title = logprob === null ? "log-prob not finite" : `p = ${Math.exp(logprob).toPrecision(2)}, log-prob ${logprob}`;
      pre.append(span);
    });
    return pre;
  };

  const facts = (sample) => {
    const table = make("table");
    const rows = [
      ["value", number(sample.value, 4)], ["advantage", number(sample.advantage, 4)], ["reason", sample.reason || "–"],
      ["answer read", sample.extracted ?? "–"], ["gold", sample.gold], ["stopped by", sample.stop],
      ["tokens", sample.length], ["policy version", sample.version], ["task", sample.task], ["id", sample.id],
      ["shown as", sample.why.join(", ")],
    ];
    rows.forEach(([name, value]) => {
      const row = make("tr");
      row.append(make("td", name), make("td", value));
      table.append(row);
    });
    return table;
  };

  const parts = (sample) => {
    const table = make("table");
    Object.entries(sample.breakdown).forEach(([name, value]) => {
      const row = make("tr");
      row.append(make("td", name), make("td", number(value, 4)));
      table.append(row);
    });
    return table;
  };

  const detail = (sample) => {
    const cell = make("td");
    cell.colSpan = 9;
    const box = make("div", undefined, "detail");
    const [left, right] = [make("div"), make("div")];
    block(left, "Prompt", sample.prompt);
    const whole = sample.tokens.length === sample.length;
    if (!(sample.decoded && whole)) block(left, "Completion", sample.text);
    if (sample.tokens.length) {
      const title = sample.decoded && whole ? "Completion" : "Sampler's tokens";
      const cut = whole ? "" : ` (first ${sample.tokens.length} of ${sample.length})`;
      left.append(make("h4", `${title}${cut}; the redder a token, the less likely it was`), tokens(sample));
    }
    right.append(make("h4", "Grading"), facts(sample));
    if (Object.keys(sample.breakdown).length) right.append(make("h4", "Reward parts, unweighted"), parts(sample));
    box.append(left, right);
    cell.append(box);
    const row = make("tr");
    row.append(cell);
    return row;
  };

  const head = (sample) => {
    const row = make("tr", undefined, "head");
    row.tabIndex = 0;
    row.setAttribute("aria-expanded", "false");
    row.append(
      make("td", sample.step), make("td", sample.stage), chip(sample.verdict), make("td", number(sample.value, 2), "n"),
      make("td", number(sample.advantage, 2), "n"), make("td", sample.length, "n"),
      make("td", sample.prompt.slice(0, 160)), make("td", sample.extracted ?? "–"), make("td", sample.gold),
    );
    const toggle = () => {
      const open = row.classList.toggle("on");
      row.setAttribute("aria-expanded", String(open));
      if (open) row.after(detail(sample));
      else row.nextSibling.remove();
    };
    row.addEventListener("click", toggle);
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        toggle();
      }
    });
    return row;
  };

  const draw = () => {
    const words = find.value.toLowerCase();
    const shown = samples.filter((s) =>
      (!verdict.value || s.verdict === verdict.value) &&
      (!stage.value || s.stage === stage.value) &&
      (!why.value || s.why.includes(why.value)) &&
      (!words || [s.prompt, s.text, s.gold, s.extracted ?? "", s.id, s.reason].some((t) => t.toLowerCase().includes(words))));
    body.replaceChildren(...shown.map(head));
    document.getElementById("count").textContent = `${shown.length} of ${samples.length}`;
  };
  controls.forEach((control) => control.addEventListener("input", draw));
  draw();
})();
