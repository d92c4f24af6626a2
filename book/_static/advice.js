/* "What about my model?": lib/commands/level.py in the browser, with the constants that the page holds. */
"use strict";
(() => {
  const ORDER = "in order", PACKED = "packed", COPIED = "replicated";
  const WHERE = "my-model";
  // Wichura's AS 241 (Applied Statistics 37, 1988): numerator and denominator, falling powers
  const MIDDLE = [
    [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
      13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
    [5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
      5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1]];
  const TAIL = [
    [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
      3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734],
    [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
      0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1]];

  const sum = (numbers) => numbers.reduce((whole, part) => whole + part, 0);
  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const horner = (powers, x) => powers.reduce((value, power) => value * x + power, 0);
  const most = (numbers) => numbers.reduce((a, b) => Math.max(a, b), -Infinity);

  function even(number) { // to the nearest whole number, halves to the even one
    const low = Math.floor(number), rest = number - low;
    return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
  }

  function quantile(p) { // of the normal distribution; 1e-11 < p < 1 - 1e-11
    const q = p - 0.5;
    if (Math.abs(q) <= 0.425) return q * horner(MIDDLE[0], 0.180625 - q * q) / horner(MIDDLE[1], 0.180625 - q * q);
    const r = Math.sqrt(-Math.log(q <= 0 ? p : 1 - p)) - 1.6;
    return Math.sign(q) * horner(TAIL[0], r) / horner(TAIL[1], r);
  }

  /* lib/network/synthetic.py */
  const SHAPES = {
    power: (experts) => range(experts).map((i) => -Math.log(i + 1)),
    lognormal: (experts) => range(experts).map((i) => quantile((experts - i - 0.5) / experts)),
  };

  function gini(falling) {
    const n = falling.length;
    return sum(falling.map((w, i) => (n - 1 - 2 * i) * w)) / (n * sum(falling));
  }

  function capped(falling, k) {
    const rest = falling.slice();
    for (let i = rest.length - 2; i >= 0; i--) rest[i] += rest[i + 1];
    for (let full = 0; full < k; full++) {
      const a = (k - full) / rest[full];
      if (a * falling[full] <= 1) return falling.map((w, i) => (i < full ? 1 : a * w));
    }
    return falling.map((_, i) => (i < k ? 1 : 0));
  }

  const highest = (experts, k, family) => (family === "one_hot" ? 1 / k - 1 / experts : 1 - k / experts);

  function inclusion(experts, k, level, family) {
    if (level < 1e-12) return range(experts).map(() => k / experts);
    if (family === "one_hot") {
      const hot = k * (level + 1 / experts);
      return range(experts).map((i) => (i ? (k - hot) / (experts - 1) : hot));
    }
    const logs = SHAPES[family](experts);
    const steep = (s) => capped(logs.map((log) => Math.exp(Math.min(s * (log - logs[k - 1]), 40))), k);
    let low = 0, high = 1;
    while (gini(steep(high)) < level && high < 1e12) high *= 2;
    if (gini(steep(high)) <= level) return steep(high);
    for (;;) { // halved until no number is left between
      const middle = (low + high) / 2;
      if (middle <= low || middle >= high) return steep(middle);
      if (gini(steep(middle)) < level) low = middle; else high = middle;
    }
  }

  /* lib/network/placement.py; a placement is, by expert, a map from device to the share it serves */
  const contiguous = (experts, devices) => range(experts).map((i) => Math.floor(i / (experts / devices)));

  function packed(load, devices) {
    const home = [], total = Array(devices).fill(0), room = Array(devices).fill(load.length / devices);
    for (const i of range(load.length).sort((a, b) => load[b] - load[a])) {
      let best = -1;
      for (let d = 0; d < devices; d++) if (room[d] > 0 && (best < 0 || total[d] < total[best])) best = d;
      home[i] = best;
      total[best] += load[i];
      room[best] -= 1;
    }
    return home;
  }

  function replicated(load, devices, more) { // [experts, devices] by slot
    const held = range(load.length), copies = load.map(() => 1);
    while (held.length < load.length + more) {
      let busiest = 0;
      for (const i of range(load.length)) if (load[i] / copies[i] > load[busiest] / copies[busiest]) busiest = i;
      held.push(busiest);
      copies[busiest] += 1;
    }
    return [held, packed(held.map((i) => load[i] / copies[i]), devices)];
  }

  function share(held, home, experts) {
    const found = range(experts).map(() => new Map());
    held.forEach((i, slot) => found[i].set(home[slot], (found[i].get(home[slot]) || 0) + 1));
    for (const own of found) {
      const copies = sum([...own.values()]);
      for (const [device, number] of own) own.set(device, number / copies);
    }
    return found;
  }

  /* lib/network/cost.py, step.py and fabric.py, where every device sends the same rows */
  const sent = (p, bytes) => Math.min(bytes / p.small_bytes_per_s, p.large_s + bytes / p.wire_bytes_per_s);

  function busiest(own, devices, perNode) { // own: bytes that each device gets of every device
    const whole = sum(own), got = own.map((b) => (devices - 1) * b);
    const away = own.map((b, i) => Math.max(got[i], whole - b));
    const wire = most(away);
    const back = most(own.map((b, i) => (away[i] >= wire ? Math.min(got[i], whole - b) : 0)));
    const inside = [], across = [];
    for (let first = 0; first < devices; first += perNode) {
      const node = own.slice(first, first + perNode), here = sum(node);
      for (const b of node) {
        inside.push(here - b, (node.length - 1) * b);
        across.push(whole - here, (devices - node.length) * b);
      }
    }
    const held = Math.max(whole, devices * most(own));
    return { whole, wire, back, held, inside: most(inside), across: most(across) };
  }

  function wireSeconds(card, b, scale, devices, perNode) {
    const p = card.exchange;
    const nic = devices > perNode ? b.across / card.nic_bytes_per_s : 0;
    const seconds = scale * Math.max(b.inside / p.wire_bytes_per_s, nic);
    const bytes = seconds * p.wire_bytes_per_s + p.back_share * scale * b.back;
    return Math.max(scale * (b.held - b.wire) / (p.copy_bytes_per_s ?? Infinity), sent(p, bytes));
  }

  const expertBytes = (shape) => even(3 * shape.hidden * shape.width * shape.weight_bytes);

  function expertSeconds(p, rows, shape, tile) {
    const tiles = sum(rows.map((n) => Math.ceil(n / tile) * tile));
    if (!(tiles > 0)) return 1e-9;
    const read = rows.filter((n) => n > 0).length * expertBytes(shape) / p.memory_bytes_per_s;
    const work = tiles * 6 * shape.hidden * shape.width / p.flop_per_s;
    const q = 1 + p.join, longer = Math.max(read, work, 1e-12);
    return p.start_s + longer * ((read / longer) ** q + (work / longer) ** q) ** (1 / q);
  }

  function layer(known, asked, chances, shares) { // [rho, seconds]
    const card = known.cards[asked.card], shape = known.shapes[asked.shape], { devices, tokens } = asked;
    const row = Array(devices).fill(0), rows = range(devices).map(() => []);
    chances.forEach((chance, i) => shares[i].forEach((part, device) => {
      row[device] += tokens * chance * part;
      rows[device].push(even(devices * tokens * chance * part));
    }));
    const apart = row.map((n, device) => n * (1 + known.apart * device));
    const b = busiest(apart.map((n) => shape.out_share * (n * 2 * shape.hidden)), devices, known.per_node);
    const p = card.exchange, on = card.layer;
    const start = p.start_s + p.first_s + (p.message_s || 0) * (devices - 2);
    const wire = wireSeconds(card, b, 1, devices, known.per_node)
      + wireSeconds(card, b, 1 / shape.out_share, devices, known.per_node);
    const arithmetic = most(rows.map((own) => expertSeconds(card.expert, own, shape, known.tile)));
    const order = b.whole / (on.source_bytes_per_s ?? Infinity) + b.held / (on.order_bytes_per_s ?? Infinity);
    return [most(row) / (sum(row) / devices), on.start_s + 2 * start + wire + arithmetic + order];
  }

  /* lib/commands/deciding.py */
  const ceiling = (slowdown) => 1 - 1 / (1 + slowdown);
  const percent = (part) => `${(100 * part).toFixed(1)}%`;

  function taken(left, rules) { // the placement
    const ways = [PACKED, COPIED].filter((name) => name in left);
    return ways.find((name) => left[name] <= rules.enough) ?? ways.reduce((a, b) => (left[b] < left[a] ? b : a));
  }

  function decided(left, beta, tokens, rules) {
    if (left[ORDER] <= rules.enough) return "nothing";
    const way = taken(left, rules);
    if (left[ORDER] - left[way] <= rules.enough) {
      return tokens <= rules.few_tokens && beta < rules.small_beta ? "fewer" : "router";
    }
    return way === PACKED ? "pack" : "copy";
  }

  function told(action, left, known) {
    const words = known.actions[action], before = percent(left[ORDER]);
    if (action === "nothing") return `${words}: perfect balance would take ${before} off a layer's time.`;
    if (action === "fewer") return `${words}: at so few tokens a device the busiest one hardly sets the pace.`;
    const [cheapest] = known.prices.filter((row) => !row.start).sort((a, b) => a.nats - b.nats);
    const price = cheapest ? ` (${priced(cheapest)})` : "";
    if (action === "router") {
      const least = percent(Math.min(...Object.values(left)));
      return `${words}${price}: imbalance takes ${before} of a layer's time, ${least} under the best placement.`;
    }
    const after = left[taken(left, known.rules)];
    const takes = `imbalance then takes ${percent(after)} of a layer's time instead of ${before}`;
    const more = after > known.rules.enough ? `. Only a change of the router takes off more${price}` : "";
    return `${words}: ${takes}${more}.`;
  }

  function priced(row) {
    const [nats, low, high] = [row.nats, row.nats_low, row.nats_high].map((n) => n.toFixed(3));
    const of = row.models ? `${row.models} small models` : "this model";
    return `${row.way} cost ${nats} [${low}, ${high}] nats per token in ${of}`;
  }

  /* lib/commands/level.py */
  function orders(experts, number) {
    let state = 1;
    return range(number).map(() => {
      const order = range(experts);
      for (let last = experts - 1; last > 0; last--) {
        state = (1664525 * state + 1013904223) % 4294967296;
        const other = Math.floor(state * (last + 1) / 4294967296);
        [order[last], order[other]] = [order[other], order[last]];
      }
      return order;
    });
  }

  function elasticity(rho, slowdown) {
    const above = rho.map((r) => r - 1), size = sum(above.map((x) => x * x));
    return size > 0 ? sum(above.map((x, i) => x * slowdown[i])) / size : 0;
  }

  function answer(known, asked, family) {
    const { experts, k, devices, spare } = asked, all = range(experts);
    const chances = inclusion(experts, k, asked.level, family).map((chance) => even(chance * known.grid) / known.grid);
    const order = share(all, contiguous(experts, devices), experts);
    const evenly = layer(known, asked, all.map(() => k / experts), order)[1];
    const slower = (load, made) => layer(known, asked, load, made)[1] / evenly - 1;
    const both = orders(experts, known.orders).map((labels) => layer(known, asked, labels.map((i) => chances[i]), order));
    const rho = both.map(([r]) => r), slow = both.map(([, s]) => s / evenly - 1);
    const left = {}, found = { family };
    for (const [name, values] of [["rho", rho], ["slowdown", slow]]) {
      const ordered = values.slice().sort((a, b) => a - b);
      [found[`${name}_low`], found[name], found[`${name}_high`]] = known.band.map((i) => ordered[i]);
    }
    found.beta = elasticity(rho, slow);
    left[ORDER] = found.ceiling = ceiling(found.slowdown);
    found.slowdown_packed = slower(chances, share(all, packed(chances, devices), experts));
    left[PACKED] = ceiling(found.slowdown_packed);
    if (spare) {
      found.slowdown_copied = slower(chances, share(...replicated(chances, devices, spare * devices), experts));
      left[COPIED] = ceiling(found.slowdown_copied);
    }
    found.action = decided(left, found.beta, asked.tokens, known.rules);
    return { ...found, advice: told(found.action, left, known) };
  }

  function families(known, asked) {
    const reach = Object.keys(known.families).filter((name) => asked.level < highest(asked.experts, asked.k, name));
    return reach.map((family) => answer(known, asked, family));
  }

  /* what `advise` refuses, in its words; "" where nothing is */
  function refused(known, asked) {
    const { experts, k, devices, tokens, level, spare } = asked;
    const whole = (name, most) => {
      const fits = Number.isInteger(asked[name]) && asked[name] >= 1 && asked[name] <= most;
      return fits ? "" : `${name}: must be a whole number from 1 to ${most}`;
    };
    const first = whole("experts", 4096) || whole("devices", 4096) || whole("tokens", 2 ** 20);
    if (first) return first;
    if (!(Number.isInteger(k) && k >= 1 && k < experts)) return `experts of a token: must be from 1 to below the ${experts} experts`;
    if (experts % devices || devices < 2) return `devices: must be 2 or more and divide ${experts} experts`;
    if (devices > known.per_node && devices % known.per_node) {
      return `devices: must be at most ${known.per_node} or fill nodes of ${known.per_node}`;
    }
    const top = highest(experts, k, "power"), room = experts - experts / devices;
    if (!(level >= 0 && level < top)) return `Gini: must be from 0 to below ${top.toPrecision(4)}, which ${k} of ${experts} allow`;
    if (!(Number.isInteger(spare) && spare >= 0 && spare <= room)) return `spare slots: must be from 0 to ${room}`;
    return "";
  }

  /* the box */
  const FIELDS = [
    ["shape", "layer as large as in"], ["experts", "experts"], ["k", "experts of a token"],
    ["level", "Gini of their load"], ["devices", "devices"], ["tokens", "tokens of one device"],
    ["card", "measured card"], ["spare", "spare slots of a device"],
  ];
  const STYLE = `.paper-advice{border:1px solid var(--pst-color-border,#999);border-radius:4px;padding:.8rem;max-width:46rem}
.paper-advice form{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.5rem;margin:.5rem 0}
.paper-advice label{font-size:.85em}
.paper-advice :is(input,select){display:block;width:100%;min-width:0;padding:.25rem;font:inherit;border:1px solid currentColor;
border-radius:3px;background:var(--pst-color-background,#fff);color:inherit}
@media print{.paper-advice form{display:none}}`;
  const make = (tag, known = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), known);
    node.append(...children);
    return node;
  };

  function field(known, [name, words]) {
    const id = `${WHERE}-${name}`, options = { shape: known.shapes, card: known.cards }[name];
    const input = options
      ? make("select", { id, name }, ...Object.keys(options).map((option) => new Option(option)))
      : make("input", { id, name, type: "number", min: 0, step: name === "level" ? 0.01 : 1 });
    return make("label", { htmlFor: id }, words, input);
  }

  function table(known, rows) {
    const band = (row, name, show) => `${show(row[name])} [${show(row[`${name}_low`])}, ${show(row[`${name}_high`])}]`;
    const heads = ["load", "busiest device / mean [P5, P95]", "layer slower by [P5, P95]", "slower if placed by load", "slower with copies", "ceiling (share of its time)"];
    const cells = rows.map((row) => [
      known.families[row.family], band(row, "rho", (n) => n.toFixed(2)), band(row, "slowdown", percent),
      percent(row.slowdown_packed), "slowdown_copied" in row ? percent(row.slowdown_copied) : "–", percent(row.ceiling)]);
    const line = (tag, texts) => make("tr", {}, ...texts.map((text) => make(tag, { textContent: text })));
    const whole = make("table", { className: "paper-table" }, make("thead", {}, line("th", heads)),
      make("tbody", {}, ...cells.map((texts) => line("td", texts))));
    const scroll = make("div", { className: "paper-scroll", tabIndex: 0 }, whole);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "answer by how the load falls off");
    return scroll;
  }

  function advised(known, rows) {
    const each = rows.map((row) => `If the load is ${known.families[row.family]}: ${row.advice}`);
    const words = new Set(rows.map((row) => row.advice)).size === 1 ? [rows[0].advice] : each;
    const engines = [...new Set(rows.map((row) => known.offered[row.action] || "none that is known"))];
    return [...words, `Engines that offer what is advised: ${engines.join("; or ")}.`];
  }

  function rests(known, asked) {
    const shape = known.shapes[asked.shape];
    const copies = asked.spare * expertBytes(shape) * shape.layers / 1e9;
    return `${asked.experts} experts, ${asked.k} of a token, Gini ${Number(asked.level.toPrecision(6))}, on `
      + `${asked.devices} devices with ${asked.tokens} tokens each (${known.cards[asked.card].origin}), a `
      + `layer as large as in ${asked.shape}. A Gini fixes no busiest device: numbers are `
      + "medians over orders of the experts, and between P5 and P95 lie nine in ten, for each way "
      + "in which the load may fall off. Routes are the expected ones (synthetic), times "
      + "simulated, extrapolated beyond two devices and their node. Copies take "
      + `${copies.toFixed(2)} GB of a device in ${shape.layers} layers. Counts of the experts say `
      + "more: python -m lib advise COUNTS.";
  }

  // a text in which commands are code
  function coded(text) {
    const parts = text.split(/(python -m lib \w+ [A-Z]+)/);
    return parts.map((part, at) => (at % 2 ? make("code", { textContent: part }) : part));
  }

  function sentences(known, asked, rows) {
    const [first, ...more] = advised(known, rows), engines = more.pop();
    const strong = [first, ...more].map((text) => make("p", {}, make("strong", { textContent: text })));
    const below = [engines, rests(known, asked)].map((text) => make("p", { className: "paper-caption" }, ...coded(text)));
    return [...strong, table(known, rows), ...below];
  }

  function box(place) {
    const known = JSON.parse(place.dataset.known);
    const form = make("form", {}, ...FIELDS.map((own) => field(known, own)));
    const output = make("div");
    output.setAttribute("aria-live", "polite");
    const inputs = Object.fromEntries([...form.elements].map((input) => [input.name, input]));
    const put = (asked) => Object.entries(asked).forEach(([name, value]) => { if (inputs[name]) inputs[name].value = value; });
    const read = () => Object.fromEntries(Object.entries(inputs).map(([name, input]) => [
      name, input.tagName === "SELECT" ? input.value : input.value.trim() === "" ? NaN : Number(input.value)]));

    function show() {
      const asked = read(), wrong = refused(known, asked);
      output.replaceChildren(...(wrong ? [make("p", {}, make("strong", { textContent: wrong }))]
        : sentences(known, asked, families(known, asked))));
      for (const part of output.querySelectorAll(".paper-scroll")) {
        part.dispatchEvent(new Event("paper-table", { bubbles: true }));
      }
    }

    function load() { // the state in the address; what it does not say is the example's
      const [name, state] = location.hash.slice(1).split("?");
      const given = name === WHERE ? new URLSearchParams(state || "") : new URLSearchParams();
      put(known.example);
      put(Object.fromEntries([...given].filter(([field, value]) =>
        inputs[field] && (inputs[field].tagName !== "SELECT" || [...inputs[field].options].some((o) => o.value === value)))));
      show();
      if (name === WHERE) place.scrollIntoView();
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target === inputs.shape) {
        const { experts, k } = known.shapes[inputs.shape.value];
        put({ experts, k });
      }
      history.replaceState(null, "", `#${WHERE}?${new URLSearchParams(Object.entries(inputs).map(([n, i]) => [n, i.value]))}`);
      show();
    });
    addEventListener("hashchange", () => location.hash.startsWith(`#${WHERE}`) && load());
    document.head.append(make("style", { textContent: STYLE }));
    place.replaceChildren(make("p", {}, make("strong", { textContent: "What about my model?" })), form, output);
    load();
  }

  function start() { document.querySelectorAll(".paper-advice").forEach(box); }
  globalThis.paperAdvice = { answer, families, refused, advised, rests };
  if (typeof document === "undefined") return;
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start); else start();
})();
