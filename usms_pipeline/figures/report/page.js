"use strict";
// Draws the page of the counts that it holds; see periods.py for what they are and embedded.py for
// how they are written. Texts get in by textContent and attributes alone, so no name can act.
(async () => {
const page = JSON.parse(document.getElementById("figures").textContent);
const tables = await unpacked();
const $ = (id) => document.getElementById(id);
const DAY = 24, END = DAY * page.days, FIRST = Date.parse(page.lastDay) - (page.days - 1) * 864e5;
const LAST_HOUR = tables.counts.hour.reduce((a, b) => Math.max(a, b), 0);
const FIRST_HOUR = tables.counts.hour.reduce((a, b) => Math.min(a, b), END);
const state = { period: page.period, by: 0, only: new Map() };  // only: column → place of its value

async function unpacked() {
  const raw = Uint8Array.from(atob(document.getElementById("packed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const made = {};
  let at = 0;
  for (const [name, { rows, columns }] of Object.entries(page.tables)) {
    made[name] = { rows };
    for (const column of columns) { made[name][column] = new Uint32Array(buffer, at, rows); at += 4 * rows; }
  }
  return made;
}

// ---- elements -------------------------------------------------------------------------------
const SVG = new Set("svg g path line rect circle text title polyline".split(" "));
function el(tag, given = {}, ...children) {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== ""));
  return made;
}
const svg = (width, height, label, ...parts) =>
  el("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, ...parts);
const label = (x, y, text, given = {}) => el("text", { x, y, ...given }, text);
const line = (x1, y1, x2, y2, kind) => el("line", { x1, y1, x2, y2, class: kind });
const path = (points, kind) => el("path", { d: points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), class: kind });

// ---- words ----------------------------------------------------------------------------------
const count = (n) => Math.round(n).toLocaleString("en-US");
const percent = (rate) => {
  if (rate === null || Number.isNaN(rate)) return "–";
  if (rate === 0 || rate === 1) return `${100 * rate}%`;
  if (rate > 0.9995 && rate < 1) return ">99.9%";
  if (rate < 0.0005 && rate > 0) return "<0.1%";
  return (100 * rate).toFixed(1) + "%";
};
const points = (change) => {
  const written = Math.abs(100 * change).toFixed(1);
  return written === "0.0" ? "0.0" : (change < 0 ? "−" : "+") + written;
};
const plural = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;
const date = (hour) => new Date(FIRST + hour * 36e5);
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const day = (hour) => `${date(hour).getUTCDate()} ${MONTHS[date(hour).getUTCMonth()]}`;
const clock = (hour) => `${day(hour)} ${String(date(hour).getUTCHours()).padStart(2, "0")}:00`;
const periodName = () => (state.period === 1 ? "24 hours" : `${state.period} days`);
const usually = () => (state.period === 7 ? "weeks" : `spans of ${state.period} days`);

// ---- counting -------------------------------------------------------------------------------
function span(isBefore) {
  const length = state.period * DAY, end = state.period === 1 ? LAST_HOUR + 1 : END;
  return isBefore ? [end - 2 * length, end - length] : [end - length, end];
}
const nothing = () => ({ messages: 0, delivered: 0, lost: 0, waiting: 0, fast: 0 });
function starts(table, hour) {  // rows ascend by hour
  let low = 0, high = table.rows;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (table.hour[middle] < hour) low = middle + 1; else high = middle;
  }
  return low;
}
let matched = new Map();  // of one drawing, in which the same spans are counted several times
function matching(table, [from, to]) {
  const key = `${table === tables.counts} ${from} ${to}`;
  if (!matched.has(key)) {
    const only = [...state.only].map(([column, place]) => [table["v" + column], place]), rows = [];
    for (let n = starts(table, from), end = starts(table, to); n < end; n++) {
      if (only.every(([column, place]) => column[n] === place)) rows.push(n);
    }
    matched.set(key, rows);
  }
  return matched.get(key);
}
function counted(hours, keyOf) {
  const made = new Map(), { messages, delivered, lost, waiting, fast } = tables.counts;
  for (const n of matching(tables.counts, hours)) {
    const key = keyOf(n);
    let sums = made.get(key);
    if (!sums) made.set(key, (sums = nothing()));
    sums.messages += messages[n];
    sums.delivered += delivered[n];
    sums.lost += lost[n];
    sums.waiting += waiting[n];
    sums.fast += fast[n];
  }
  return made;
}
const total = (hours) => counted(hours, () => 0).get(0) ?? nothing();
const known = (c) => c.delivered + c.lost;
const rate = (c) => (known(c) ? c.delivered / known(c) : null);
const worst = (c) => (c.messages ? c.delivered / c.messages : null);
const best = (c) => (c.messages ? (c.messages - c.lost) / c.messages : null);

// What SQL has made for the selection: of everything or of a single value. A country beside one of
// its operators says nothing more: operators are named with their country.
function single(extra = null) {
  const only = new Map(state.only);
  if (extra) only.set(...extra);
  const operator = page.columns.findIndex((one) => one.name === "operator");
  const place = only.get(operator);
  if (place > 0 && place !== page.columns[operator].unknown) only.delete(page.columns.findIndex((one) => one.name === "country"));
  if (only.size > 1) return null;
  const [[column, value]] = only.size ? only : [[-1, 0]];
  return `${column}:${value}`;
}
function expected(isBefore, c, extra = null) {
  const cohort = single(extra), made = cohort && page.guesses[`${state.period}:${isBefore ? 1 : 0}:${cohort}`];
  if (!made) return { rate: rate(c), low: null, high: null, chanceLow: null, chanceHigh: null, isMade: false };
  const [value, low, high, chanceLow, chanceHigh] = made;
  return { rate: value, low, high, chanceLow, chanceHigh, isMade: c.waiting === 0 || value !== null };
}

// ---- the answer -----------------------------------------------------------------------------
function said(now, before, guess, former) {
  const [from, to] = span(false);
  const when = state.period === 1 ? `from ${clock(from)} to ${clock(to)}` : `${day(from)} – ${day(to - 1)}`;
  const whom = state.only.size ? ` for ${chosen().join(", ")}` : "";
  const begun = `Of ${plural(now.messages, "message")} sent ${when}${whom}`;
  if (now.messages < page.floor) return `${begun}: too few to judge.`;
  if (guess.rate === null) return `${begun}, no final status is in yet.`;
  const isYoung = now.waiting > 0 && guess.low !== null;
  const told = isYoung
    ? `${begun}, we expect ${percent(guess.rate)} to be delivered in the end`
    : `${begun}, ${percent(guess.rate)} of those with a final status were delivered`;
  if (!isComparable(before) || former.rate === null) return `${told}. ${noBefore(before)}`;
  const change = guess.rate - former.rate, written = points(change);
  const than = `the ${periodName()} before`;
  const compared = written === "0.0" ? `as many as in ${than}` : `${written.slice(1)} points ${change < 0 ? "less" : "more"} than in ${than}`;
  const [first] = groups(before).rows, isWhere = first?.extra >= 5 && first.guess.chanceHigh !== null && first.former.rate > first.guess.chanceHigh;
  const where = isWhere && !state.only.has(state.by) ? ` Most extra failures: ${page.columns[state.by].values[first.place]} (+${count(first.extra)}).` : "";
  return `${told}, ${compared}. ${judged().text}${where}`;
}
const isComparable = (before) => before.messages >= page.floor;
const noBefore = (before) => (before.messages
  ? `Only ${plural(before.messages, "message")} in the ${periodName()} before: too few to compare.`
  : `There is nothing from the ${periodName()} before to compare with.`);
function judged() {
  if (state.period === 1) return { text: "A single day is not judged against another; alerts do that by the hour.", is: "" };
  const cohort = single();
  if (cohort === null) return { text: "Whether that is unusual is not worked out for this selection.", is: "" };
  const [, low, high] = page.changes[`${state.period}:0:${cohort}`] ?? [];
  if (low == null) return { text: "There are too few days to tell whether that is unusual.", is: "" };
  if (low <= 0 && high >= 0) return { text: `That is within what ${usually()} usually differ by.`, is: "usual" };
  return { text: `That is more than ${usually()} usually differ by.`, is: high < 0 ? "worse" : "better" };
}
function chosen() {
  return [...state.only].map(([column, place]) => page.columns[column].values[place]);
}

function tile(title, value, remark, change, verdict, spark) {
  return el("div", { class: "tile" },
    el("dt", {}, title),
    el("dd", {}, el("strong", {}, value), spark ?? "", el("span", { class: `change ${verdict}` }, change), el("span", {}, remark)));
}
function changed(now, former, before, verdict = "") {
  if (!isComparable(before) || now === null || former == null) return "nothing before to compare with";
  const written = points(now - former), than = `the ${periodName()} before`;
  if (written === "0.0") return `≈ as in ${than}`;
  const told = { usual: "; weeks often differ so", worse: "; more than usual", better: "; more than usual" }[verdict] ?? "";
  return `${written.startsWith("−") ? "▼" : "▲"} ${written.slice(1)} points on ${than}${state.period === 7 ? told : told.replace("weeks often differ so", "as usual")}`;
}
function tiles(now, before, guess, former, buckets) {
  const verdict = judged().is, share = (c, name) => (c.messages ? c[name] / c.messages : null);
  const young = now.waiting > 0;
  let remark = !young && guess.chanceLow !== null
    ? `of those with a final status; chance alone: ${percent(guess.chanceLow)}–${percent(guess.chanceHigh)}`
    : `so far ${percent(rate(now))}; at worst ${percent(worst(now))}, at best ${percent(best(now))} of all`;
  if (young && guess.low !== null) remark = `expected, ${percent(guess.low)}–${percent(guess.high)} (19 times in 20); so far ${percent(rate(now))}`;
  else if (young && single() === null) remark += "; a forecast is not made for this selection";
  const costs = state.only.size ? [] : page.costs[state.period];
  const row = (title, name, value, remarks, change = changed(share(now, name), share(before, name), before)) =>
    tile(title, value, remarks, change, "", sparkline(buckets, (c) => share(c, name), title));
  // those before have been settled since: what waited then is asked of SQL, of all messages only
  const then = page.waits[state.period];
  const waits = state.only.size ? "no comparison for this selection" : then == null && isComparable(before) ? "what waited then is not known" : changed(share(now, "waiting"), then, before);
  return [
    tile("Delivered", percent(guess.rate), remark, changed(guess.rate, former.rate, before, verdict), verdict,
      sparkline(buckets, rate, "Delivered")),
    row(`Within ${page.fastSeconds} s`, "fast", percent(share(now, "fast")), "of all messages; who waits for a code gives up after that"),
    row("Still waiting", "waiting", count(now.waiting), `${percent(share(now, "waiting"))} of all have no receipt yet`, waits),
    row("Not delivered", "lost", count(now.lost), `${percent(share(now, "lost"))} of all: failed, rejected or expired` + (costs.length ? `; they cost ${costs.join(", ")}` : "")),
  ];
}
function sparkline(buckets, valueOf, title) {
  const width = 120, height = 28;
  const seen = buckets.map((b, n) => [n, b.c.messages >= page.floor ? valueOf(b.c) : null]).filter(([, v]) => v !== null);
  if (seen.length < 2) return null;
  const values = seen.map(([, v]) => v), low = Math.min(...values), high = Math.max(...values);
  const at = ([n, v]) => [2 + (n / (buckets.length - 1)) * (width - 4), height - 3 - ((v - low) / (high - low || 1)) * (height - 6)];
  return svg(width, height, `${title} over time, from ${percent(low)} to ${percent(high)}`, path(seen.map(at), "line thin"));
}

// ---- over time ------------------------------------------------------------------------------
function bucketed(hours) {
  const [from, to] = hours;
  const made = (step) => {
    const found = counted(hours, (n) => Math.floor((tables.counts.hour[n] - from) / step));
    return Array.from({ length: Math.ceil((to - from) / step) }, (_, n) => ({ at: from + n * step, step, c: found.get(n) ?? nothing() }));
  };
  const steps = state.period > 30 ? [24] : state.period === 1 ? [1, 3, 6] : state.period === 7 ? [1, 3, 6, 24] : [6, 24];
  let buckets;
  for (const step of steps) {  // the shortest of which half have enough messages to be drawn firmly
    buckets = made(step);
    const sizes = buckets.map((b) => b.c.messages).filter((n) => n).sort((a, b) => a - b);
    if (sizes[Math.floor(sizes.length / 2)] >= 5 * page.floor) break;
  }
  return buckets;
}
function overTime(buckets, former, before, width) {
  const height = 230, below = 46, left = 44, right = 8, [from] = [buckets[0].at];
  const step = buckets[0].step, to = from + buckets.length * step;
  const x = (hour) => left + ((hour - from) / (to - from)) * (width - left - right);
  const firm = (b) => known(b.c) >= page.floor;
  const cohort = single();
  const guesses = [];
  for (let d = Math.floor(from / DAY); d < Math.ceil(to / DAY); d++) {
    const made = cohort && page.daily[`day:${d}:${cohort}`];
    const c = counted([Math.max(from, d * DAY), Math.min(to, (d + 1) * DAY)], () => 0).get(0);
    if (made && made[0] !== null && c && c.messages >= page.floor && c.waiting > 0.02 * c.messages) guesses.push([d * DAY, made]);
  }
  const seen = [...buckets.filter(firm).map((b) => rate(b.c)), ...guesses.map(([, made]) => made[0])];
  if (isComparable(before) && former.rate !== null) seen.push(former.rate);
  if (!seen.length) return el("p", {}, `Fewer than ${page.floor} messages with a final status at any time: nothing to draw.`);
  const low = Math.max(0, Math.floor((Math.min(0.95, ...seen) - 0.01) * 20) / 20);
  const y = (r) => 10 + ((1 - Math.max(low, r)) / (1 - low)) * (height - 20);
  const parts = [];
  for (const alert of page.alerts) {  // shaded, where the alert is of what is shown
    const isOurs = alert.column < 0 || !state.only.has(alert.column) || state.only.get(alert.column) === alert.place;
    if (alert.kind === "mix" || !isOurs || alert.to <= from || alert.from >= to) continue;
    const begin = x(Math.max(from, alert.from));
    parts.push(el("rect", { x: begin, y: 6, width: Math.max(3, x(Math.min(to, alert.to)) - begin), height: height - 12, class: "alerted" },
      el("title", {}, `${alert.who}, ${alert.when}`)));
  }
  for (const tick of ticks(low)) {
    parts.push(line(left, y(tick), width - right, y(tick), "grid"), label(left - 8, y(tick) + 4, `${Math.round(100 * tick)}%`, { "text-anchor": "end" }));
  }
  if (isComparable(before) && former.rate !== null) parts.push(line(left, y(former.rate), width - right, y(former.rate), "before"));
  const isYoung = (b) => b.c.waiting > 0.02 * b.c.messages;
  const drawn = (keep, kind) => {  // lines over gaps would say what nobody counted
    let run = [];
    for (const b of [...buckets, null]) {
      if (b && firm(b) && keep(b)) run.push([x(b.at + step / 2), y(rate(b.c))]);
      else { if (run.length > 1) parts.push(path(run, kind)); run = []; }
    }
  };
  drawn(() => true, "line young");
  drawn((b) => !isYoung(b), "line");
  for (const [at, [value, lowest, highest]] of guesses) {
    const begin = x(Math.max(from, at)), end = x(Math.min(to, at + DAY));
    parts.push(el("rect", { x: begin, width: end - begin, y: y(highest), height: Math.max(2, y(lowest) - y(highest)), class: "guess" },
      el("title", {}, `${day(at)}: ${percent(value)} expected, ${percent(lowest)}–${percent(highest)}`)));
  }
  const most = Math.max(...buckets.map((b) => b.c.messages), 1);
  for (const b of buckets) {
    if (!b.c.messages) continue;
    const name = step === 24 ? day(b.at) : clock(b.at);
    const tip = el("title", {}, `${name}: ${percent(rate(b.c))} delivered of ${plural(known(b.c), "message")} with a final status` +
      (b.c.waiting ? `; ${count(b.c.waiting)} waiting` : "") + (firm(b) ? "" : "; too few to judge"));
    if (rate(b.c) !== null) {
      parts.push(el("circle", { cx: x(b.at + step / 2), cy: y(rate(b.c)), r: buckets.length > 60 ? 2.2 : 3.5, class: firm(b) ? (isYoung(b) ? "dot young" : "dot") : "dot faint" }, tip));
    }
    const tall = (b.c.messages / most) * (below - 8), wide = x(b.at + step) - x(b.at);
    parts.push(el("rect", { x: x(b.at) + wide * 0.1, width: wide * 0.8, y: height + below - tall, height: tall, class: "volume" },
      el("title", {}, `${name}: ${plural(b.c.messages, "message")}`)));
  }
  if (isComparable(before) && former.rate !== null) parts.push(label(left + 4, y(former.rate) - 6, `before: ${percent(former.rate)}`, { class: "halo" }));
  parts.push(label(left - 8, height + 14, count(most), { "text-anchor": "end" }));
  const every = Math.max(1, Math.ceil((to - from) / DAY / (width / 80)));
  for (let hour = Math.ceil(from / DAY) * DAY; hour < to; hour += every * DAY) {
    if (x(hour) < width - 40) parts.push(label(x(hour), height + below + 16, day(hour), {}));
  }
  if (to - from <= 24) for (let hour = from; hour < to; hour += 6) {
    if (hour % 24 && Math.abs(x(hour) - x(Math.ceil(from / DAY) * DAY)) > 50) parts.push(label(x(hour), height + below + 16, clock(hour).slice(-5), {}));
  }
  return svg(width, height + below + 24, `Delivery rate over time, from ${percent(Math.min(...seen))} to ${percent(Math.max(...seen))}`, ...parts);
}
const ticks = (low) => {
  const step = low >= 0.8 ? 0.05 : low >= 0.5 ? 0.1 : 0.2;
  return Array.from({ length: 1 + Math.round((1 - Math.ceil(low / step) * step) / step) }, (_, n) => 1 - n * step);
};

// ---- what changed ---------------------------------------------------------------------------
function groups(before) {
  const at = tables.counts["v" + state.by];
  const lately = counted(span(false), (n) => at[n]), formerly = counted(span(true), (n) => at[n]);
  const rows = [...lately].map(([place, c]) => {
    const b = formerly.get(place) ?? nothing(), guess = expected(false, c, [state.by, place]), former = expected(true, b, [state.by, place]);
    const hasBoth = known(c) >= page.floor && known(b) >= page.floor;
    return { place, c, b, guess, former, hasBoth, extra: hasBoth ? (former.rate - guess.rate) * (known(c) + c.waiting) : null };
  });
  const enough = rows.filter((row) => known(row.c) >= page.floor && row.guess.rate !== null);
  if (isComparable(before)) enough.sort((a, b) => (b.extra ?? 0) - (a.extra ?? 0) || b.c.messages - a.c.messages);
  else enough.sort((a, b) => b.c.lost - a.c.lost);
  return { rows: enough.slice(0, 12), hidden: Math.max(0, enough.length - 12), small: rows.length - enough.length };
}
function whatChanged(before) {
  const { rows, hidden, small } = groups(before), compares = isComparable(before);
  const column = page.columns[state.by];
  $("by").replaceChildren(...page.columns.map((one, n) => el("button", {
    type: "button", "aria-pressed": String(n === state.by), onclick: () => { state.by = n; store(); },
  }, one.label)));
  $("changed-title").textContent = compares ? "What changed" : "Where messages are not delivered";
  $("changed-note").textContent = (compares
    ? "Sorted by extra failures: how many more were not delivered than at the rate before. Grey: before. "
    : `${noBefore(before)} Sorted by how many were not delivered. `) +
    (single([state.by, 1]) === null ? "Line: from none to all of those without a final status delivered." : "Line: what chance makes of as many messages (19 times in 20).");
  if (!rows.length) return $("changed").replaceChildren(el("p", {}, `No ${column.label} has ${page.floor} messages with a final status.`));
  const shown = rows.map((row) => ({ ...row, low: row.guess.chanceLow ?? worst(row.c), high: row.guess.chanceHigh ?? best(row.c) }));
  const seen = shown.flatMap((row) => [row.low, row.guess.rate, row.hasBoth ? row.former.rate : null]).filter((v) => v !== null);
  const low = Math.max(0, Math.floor((Math.min(0.95, ...seen) - 0.005) * 20) / 20);
  const narrow = innerWidth < 640, width = narrow ? 110 : 160, x = (r) => 6 + ((Math.max(low, r) - low) / (1 - low)) * (width - 12);
  const body = shown.map((row) => {
    const name = column.values[row.place], dots = [line(x(0), 11, x(1), 11, "grid"), line(x(row.low), 11, x(row.high), 11, "range")];
    if (row.hasBoth) dots.push(el("circle", { cx: x(row.former.rate), cy: 11, r: 4.5, class: "dot before" }));
    dots.push(el("circle", { cx: x(row.guess.rate), cy: 11, r: 5, class: "dot" }));
    const told = `${percent(row.guess.rate)} now` + (row.hasBoth ? `, ${percent(row.former.rate)} before` : "");
    const pick = () => { only(state.by, row.place); store(); };
    return el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "drill", onclick: pick, title: `Only ${name}` }, el("bdi", {}, name))),
      el("td", { class: "dots" }, svg(width, 22, told, ...dots)),
      el("td", { class: "figure" }, percent(row.guess.rate)),
      el("td", { class: "figure wide-only" }, row.hasBoth ? percent(row.former.rate) : "–"),
      el("td", { class: "figure wide-only" }, count(row.c.messages)),
      el("td", { class: "figure" }, compares ? (row.extra === null ? "–" : (row.extra > 0.5 ? "+" : row.extra < -0.5 ? "−" : "") + count(Math.abs(row.extra))) : count(row.c.lost)));
  });
  const scale = el("th", { scope: "col", class: "dots" }, svg(width, 14, `Scale from ${percent(low)} to 100%`, label(6, 11, `${Math.round(100 * low)}%`), label(width - 6, 11, "100%", { "text-anchor": "end" })));
  const head = el("tr", {}, el("th", { scope: "col" }, column.label), scale, el("th", { scope: "col", class: "figure" }, "Rate"),
    el("th", { scope: "col", class: "figure wide-only" }, "Before"), el("th", { scope: "col", class: "figure wide-only" }, "Messages"),
    el("th", { scope: "col", class: "figure" }, compares ? "Extra failures" : "Not delivered"));
  const left = [hidden ? `${plural(hidden, "more group")} with less change` : "", small ? `${plural(small, "group")} under ${page.floor} messages` : ""].filter((one) => one);
  $("changed").replaceChildren(
    el("table", {}, el("caption", { class: "unseen" }, `Delivery by ${column.label}`), el("thead", {}, head), el("tbody", {}, ...body)),
    left.length ? el("p", { class: "aside" }, `Not shown: ${left.join(", ")}.`) : "");
}

// ---- reasons, hours -------------------------------------------------------------------------
function reasonsOf(hours) {
  const table = tables.failures, found = page.families.map(() => ({ n: 0, by: new Map() }));
  let all = 0;
  for (const n of matching(table, hours)) {
    const [, family] = page.reasons[table.reason[n]], one = found[family];
    one.n += table.messages[n];
    all += table.messages[n];
    one.by.set(table.reason[n], (one.by.get(table.reason[n]) ?? 0) + table.messages[n]);
  }
  return { all, found };
}
function reasons(now, before) {
  const lately = reasonsOf(span(false)), formerly = reasonsOf(span(true)), compares = isComparable(before);
  const ranked = lately.found.map((one, n) => [n, one]).filter(([, one]) => one.n).sort((a, b) => b[1].n - a[1].n);
  if (!ranked.length) return $("reasons").replaceChildren(el("p", {}, "No message has failed, been rejected or expired."));
  $("reasons").replaceChildren(el("ul", { class: "families" }, ...ranked.map(([n, one]) => {
    const family = page.families[n], was = formerly.found[n].n / before.messages;
    const most = [...one.by].sort((a, b) => b[1] - a[1]).slice(0, 3).map(([reason, times]) => `${page.reasons[reason][0]} (${count(times)})`);
    return el("li", {},
      el("h3", {}, family.name, el("span", { class: "figure" }, ` ${count(one.n)} · ${percent(one.n / lately.all)}`)),
      el("div", { class: "share" }, el("div", { style: `width:${(100 * one.n) / ranked[0][1].n}%` })),
      el("p", {}, `${family.meaning} ${family.remedy}`),
      el("p", { class: "aside" }, `${family.whose}. `,
        compares ? `${percent(one.n / now.messages)} of messages, before ${percent(was)}. ` : "", `Mostly: `, el("bdi", {}, most.join(", ")), "."));
  })));
}
function heatmap(width) {
  const begin = END - DAY * Math.min(page.hourlyDays, Math.max(7, state.period)), to = END;
  const found = counted([begin, to], (n) => { const h = tables.counts.hour[n]; return ((date(h).getUTCDay() + 6) % 7) * 24 + (h % 24); });
  const firm = [...found.values()].filter((c) => known(c) >= page.floor).map((c) => 1 - rate(c));
  if (firm.length < 12) return el("p", { class: "aside" }, `Too few hours have ${page.floor} messages.`);
  const low = Math.min(...firm), high = Math.max(...firm), left = 34, cell = (width - left) / 24, tall = Math.min(26, Math.max(16, cell)), parts = [];
  "Mon Tue Wed Thu Fri Sat Sun".split(" ").forEach((name, d) => {
    parts.push(label(0, 14 + d * tall + tall * 0.65, name));
    for (let h = 0; h < 24; h++) {
      const c = found.get(d * 24 + h), isFirm = c && known(c) >= page.floor, lost = c && 1 - rate(c);
      parts.push(el("rect", { x: left + h * cell, y: 14 + d * tall, width: cell - 1.5, height: tall - 1.5, class: isFirm ? "heat" : "few",
        "fill-opacity": isFirm ? (0.12 + 0.88 * ((lost - low) / (high - low || 1))).toFixed(2) : null },
        el("title", {}, `${name} ${h}:00: ` + (c ? `${percent(rate(c))} delivered of ${plural(c.messages, "message")}` : "no messages") + (isFirm ? "" : "; too few to judge"))));
    }
  });
  for (let h = 0; h < 24; h += 6) parts.push(label(left + h * cell, 10, `${h}:00`));
  $("heat-note").textContent = `Darker: more not delivered, from ${percent(low)} to ${percent(high)} of those with a final status. Pale grey: under ${page.floor} messages. Of the latest ${(END - begin) / DAY} days, ${page.zone}.`;
  return svg(width, 14 + 7 * tall, `Not delivered by weekday and hour, from ${percent(low)} to ${percent(high)}`, ...parts);
}

// ---- alerts ---------------------------------------------------------------------------------
function alertCards() {
  if (!page.alerts.length) return $("alerts").replaceChildren(el("p", { class: "fine" }, "✓ Nothing worse than usual in the last 72 hours."));
  const cards = page.alerts.slice(0, 6).map((alert) => {
    const isMix = alert.kind === "mix", rows = [];
    const did = alert.kind === "failing" ? "failed" : "had no final status in time";
    const much = isMix
      ? `${percent(alert.share)} of all messages, usually ${percent(alert.usual)}`
      : `${percent(alert.share)} ${did} (${count(alert.affected)} of ${count(alert.messages)}), usually ${percent(alert.usual)}`;
    const mostly = isMix || alert.kind !== "failing" ? "" : mainReason(alert);
    const pick = () => { state.only = new Map(); state.by = alert.column; only(alert.column, alert.place); state.period = state.period > 7 ? 7 : state.period; store(); };
    return el("li", { class: isMix ? "" : "trouble" },
      el("h3", {}, el("bdi", {}, alert.who)), el("p", { class: "aside" }, `sent ${alert.when}`), el("p", {}, much + "."),
      isMix ? "" : el("p", {}, el("strong", {}, `About ${count(Math.max(0, alert.extra))} extra ${alert.kind === "failing" ? "failures" : "late ones"}.`), " ", mostly),
      alert.place ? el("button", { type: "button", onclick: pick }, "Show only these messages") : "");
  });
  $("alerts").replaceChildren(el("ul", { class: "cards" }, ...cards),
    page.alerts.length > 6 ? el("p", { class: "aside" }, `and ${page.alerts.length - 6} more: usms rates lists them.`) : "");
}
function mainReason(alert) {
  const table = tables.failures, by = new Map(), column = table["v" + alert.column];
  for (let n = 0; n < table.rows; n++) {
    if (table.hour[n] < Math.floor(alert.from) || table.hour[n] >= alert.to || (column && column[n] !== alert.place)) continue;
    by.set(table.reason[n], (by.get(table.reason[n]) ?? 0) + table.messages[n]);
  }
  const [most] = [...by].sort((a, b) => b[1] - a[1]);
  if (!most) return "";
  const [text, family] = page.reasons[most[0]];
  return `Mostly ${text}. ${page.families[family].remedy}`;
}

// ---- controls, address, CSV -----------------------------------------------------------------
function controls() {
  $("periods").replaceChildren(...page.periods.map((days) => el("button", {
    type: "button", "aria-pressed": String(days === state.period), onclick: () => { state.period = days; store(); },
  }, days === 1 ? "24 h" : `${days} days`)));
  $("filters").replaceChildren(...page.columns.map((column, n) => {
    const order = column.values.map((name, place) => [place, name]).slice(1).sort((a, b) => a[1].localeCompare(b[1]));
    if (tables.counts["v" + n].includes(0)) order.push([0, column.values[0]]);
    return el("label", {}, el("span", {}, column.label), el("select", {
      "data-column": column.name,
      onchange: (event) => { event.target.value === "" ? state.only.delete(n) : only(n, Number(event.target.value)); store(); },
    }, el("option", { value: "" }, "all"), ...order.map(([place, name]) => el("option", { value: place, selected: state.only.get(n) === place ? "" : null }, name))));
  }));
  const clear = (column) => () => { column === null ? state.only.clear() : state.only.delete(column); store(); };
  $("crumbs").replaceChildren(...(state.only.size ? [
    el("button", { type: "button", onclick: clear(null) }, "All messages"),
    ...[...state.only].map(([column, place]) => el("button", { type: "button", onclick: clear(column), "aria-label": `Remove ${page.columns[column].values[place]}` },
      el("bdi", {}, page.columns[column].values[place]), " ×")),
  ] : []));
}
const unfiltered = (from) => page.columns.findIndex((_, n) => n >= from && !state.only.has(n));
function only(column, place) {  // and compare by the next column: of one value there is nothing to compare
  state.only.set(column, place);
  if (state.by !== column) return;
  const next = unfiltered(column);
  state.by = next >= 0 ? next : Math.max(0, unfiltered(0));
}
function store() {
  const said = new URLSearchParams({ period: state.period, by: page.columns[state.by]?.name ?? "" });
  for (const [column, place] of state.only) said.append("in." + page.columns[column].name, page.columns[column].values[place]);
  const hash = "#" + said;
  if (hash === location.hash) draw();
  else location.hash = hash;  // draws, by the event
}
function restore() {
  const said = new URLSearchParams(location.hash.slice(1));
  state.period = page.periods.includes(Number(said.get("period"))) ? Number(said.get("period")) : page.period;
  state.by = Math.max(0, page.columns.findIndex((one) => one.name === said.get("by")));
  state.only = new Map();
  page.columns.forEach((column, n) => {
    const place = column.values.indexOf(said.get("in." + column.name));
    if (place >= 0) state.only.set(n, place);
  });
  if (!said.get("by")) state.by = Math.max(0, unfiltered(0));
}
function csv() {
  const cell = (value) => {  // a spreadsheet must not take a name for a formula
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const figures = (c) => [c.messages, c.delivered, c.lost, c.waiting, c.messages - known(c) - c.waiting, c.fast, rate(c)];
  const rows = [["shown", "name", "messages", "delivered", "not_delivered", "waiting", "no_status", `within_${page.fastSeconds}_s`, "delivery_rate"]];
  const now = span(false);
  rows.push(["period", periodName(), ...figures(total(now))], ["period", `${periodName()} before`, ...figures(total(span(true)))]);
  for (const b of bucketed(now)) rows.push(["over time", date(b.at).toISOString().slice(0, 16).replace("T", " "), ...figures(b.c)]);
  page.columns.forEach((column, n) => {
    const at = tables.counts["v" + n];
    for (const [place, c] of [...counted(now, (m) => at[m])].sort((a, b) => b[1].messages - a[1].messages)) rows.push([column.name, column.values[place], ...figures(c)]);
  });
  reasonsOf(now).found.forEach((one) => one.by.forEach((times, reason) => rows.push(["reason", page.reasons[reason][0], times])));
  return "\ufeff" + rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
function download() {
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  el("a", { href: address, download: `delivery-${page.lastDay}-${state.period}d.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// ---- all of it ------------------------------------------------------------------------------
function draw() {
  restore();
  matched = new Map();
  const focus = document.activeElement?.textContent, kept = document.activeElement?.closest?.("[id]")?.id;
  const now = total(span(false)), before = total(span(true));
  const guess = expected(false, now), former = expected(true, before), buckets = bucketed(span(false));
  controls();
  $("said").textContent = said(now, before, guess, former);
  $("tiles").replaceChildren(...tiles(now, before, guess, former, buckets));
  $("over-time").replaceChildren(overTime(buckets, former, before, $("over-time").clientWidth || 700));
  whatChanged(before);
  reasons(now, before);
  $("heat-note").textContent = "";
  $("heat").replaceChildren(heatmap($("heat").clientWidth || 340));
  // what was pressed is made again: the focus stays where it was
  for (const one of $(kept)?.querySelectorAll?.("button") ?? []) if (one.textContent === focus) { one.focus(); break; }
}
$("live").hidden = false;
$("static").hidden = true;
$("csv").addEventListener("click", download);
addEventListener("hashchange", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
alertCards();
draw();
})();
