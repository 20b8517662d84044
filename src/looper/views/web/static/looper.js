// What pages do beside being read: follow, act after a confirmation, keys, charts, chat. Everything is set as text, never as markup,
// except pages of this server that are swapped in: those were escaped where they were made.
"use strict";

const one = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function made(tag, text = "", classes = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (classes) node.className = classes;
  return node;
}

// Theme -----------------------------------------------------------------------------------------------------------------------

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const now = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  localStorage.setItem("theme", now);
  drawCharts();
}

// Following -------------------------------------------------------------------------------------------------------------------

let swapping = false;
let again = null;
let took = 0;

// `now` asks for what changes all the time, where a page has such a part; else everything that may be swapped. What is swapped
// together comes from one answer, which is of one moment of the run.
async function refresh(now) {
  if (swapping) { again = again === false ? false : Boolean(now); return; }
  swapping = true;
  try {
    const answer = await fetch(now ? `${location.pathname}?part=now` : location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 404) return gone();
    if (!answer.ok) return;
    took = Number((answer.headers.get("Server-Timing") || "").match(/dur=([\d.]+)/)?.[1] || 0);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Who reads at the end of a page goes on reading there.
    const atEnd = scrollY > 0 && innerHeight + scrollY >= document.documentElement.scrollHeight - 60;
    for (const old of all(now ? "[data-swap=now]" : "[data-swap]")) {
      const now = fresh.getElementById(old.id);
      if (!now || now.innerHTML === old.innerHTML) continue;
      const open = new Set(all("details[open]", old).map((node) => node.id).filter(Boolean));
      const focused = old.contains(document.activeElement) ? document.activeElement : null;
      const key = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.getAttribute("href") ? `[href="${CSS.escape(focused.getAttribute("href"))}"]` : null);
      const scrolled = all(".scroll", old).map((node) => node.scrollLeft);
      old.replaceChildren(...document.importNode(now, true).childNodes);
      for (const node of all("details", old)) if (open.has(node.id)) node.open = true;
      all(".scroll", old).forEach((node, at) => { node.scrollLeft = scrolled[at] || 0; });
      if (key) one(key, old)?.focus({ preventScroll: true });
    }
    if (atEnd && one("#all-steps[data-follow]")) scrollTo(0, document.documentElement.scrollHeight);
  } catch { /* The server is gone or comes back; the stream says so. */ } finally {
    swapping = false;
    if (again !== null) { setTimeout(refresh, 300, again); again = null; }
  }
}

// What changed is fetched more seldom the more of the processor that takes, so that being watched costs a run no more than a hundredth
// of a core.
const SHARE = 0.01;
const rounds = [{ due: 0, soonest: 0 }, { due: 0, soonest: 0 }];

function refreshLater(atOnce) {
  if (!follows()) return;
  const parts = one("[data-swap=now]") ? [true, false] : [false];
  for (const now of parts) {
    const round = rounds[Number(now)];
    if (round.due && !atOnce) continue;
    clearTimeout(round.due);
    if (now && atOnce) { round.due = 0; continue; }
    round.due = setTimeout(async () => {
      await refresh(now);
      round.soonest = performance.now() + took / SHARE;
      round.due = 0;
    }, atOnce ? 0 : Math.max(now ? 300 : 1000, round.soonest - performance.now()));
  }
}

let source = null;
let first = true;
const follows = () => one("[data-follow]") || one("[data-logs]");

// Of a page of a run that is not there. Listening goes on: it may come back.
function gone() {
  say("");
  if (one("#gone")) return;
  const line = made("p", "This run is no longer there, or cannot be read any more. What stands here is what was shown last.", "notice bad");
  line.id = "gone";
  line.setAttribute("role", "alert");
  one("main h1").after(line);
  for (const button of all("[data-post]")) button.disabled = true;
}

function back() {
  one("#gone").remove();
  for (const button of all("[data-post]")) button.disabled = false;
  if (follows()) say("live");
  refreshLater(true);
}

function words(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showNumbers(run) {
  // A card says everything from one event; the page of a run swaps numbers and tables together.
  for (const place of all(`.card[data-run="${CSS.escape(run.run)}"]`)) {
    for (const node of all("[data-number]", place)) node.textContent = run[node.dataset.number];
    const bar = one("progress", place), state = one(".state", place), rest = one("[data-rest]", place);
    if (bar) { bar.max = run.planned; bar.value = run.finished; }
    if (state) { state.textContent = run.standing; state.className = `state ${run.standing}`; }
    if (rest) rest.textContent = run.left_s ? `about ${words(run.left_s[0])} left (${words(run.left_s[1])} to ${words(run.left_s[2])})` : "";
  }
}

function say(words) {
  const live = one("#live");
  if (!live) return;
  live.hidden = !words;
  live.textContent = words;
}

function follow() {
  const runs = new Set(all("[data-follow]").map((node) => node.dataset.follow));
  const of = one("[data-of]");
  if (of) runs.add(of.dataset.of);
  const logs = one("[data-logs]");
  if (!runs.size && !logs) return;
  source = new EventSource(logs ? logs.dataset.logs : "/events");
  if (follows()) {
    source.onopen = () => say("live");
    source.onerror = () => say(source.readyState === EventSource.CLOSED ? "not live: reload to follow" : "reconnecting …");
  }
  if (logs) {
    const names = ["spawn", "lab_status", "lab_done", "gate", "promote", "rollback", "timeout", "stop", "challenged", "reviewed", "activated"];
    let timer = 0;
    for (const name of names) source.addEventListener(name, () => { clearTimeout(timer); timer = setTimeout(refresh, 200, false); });
    return;
  }
  // Everything comes first, and once more whenever the connection was lost in between.
  source.addEventListener("status", (event) => {
    const there = JSON.parse(event.data).runs;
    if (!runs.has("*") && ![...runs].every((name) => there.some((run) => run.run === name))) return gone();
    there.forEach(showNumbers);
    if (one("#gone")) back();
    else if (!first) { refreshLater(true); if (one("#curves")) loadCurves(); }
    first = false;
  });
  source.addEventListener("changed", (event) => {
    const changed = JSON.parse(event.data);
    const names = [...changed.runs.map((run) => run.run), ...changed.gone];
    if (!runs.has("*") && !names.some((name) => runs.has(name))) return;
    if (changed.gone.some((name) => runs.has(name))) return gone();
    changed.runs.forEach(showNumbers);
    if (one("#gone")) return back();
    // A run that is new here, or has come to its end, is shown whole at once.
    const known = (run) => one(`[data-run="${CSS.escape(run.run)}"]`) || !runs.has("*");
    refreshLater(changed.gone.length > 0 || changed.runs.some((run) => run.standing !== "running" || !known(run)));
    if (one("#curves")) loadCurves();
  });
}

// A browser holds few connections to one server, and a page that none looks at needs none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source?.close();
  else if (source?.readyState === EventSource.CLOSED) follow();
});

// Acting ----------------------------------------------------------------------------------------------------------------------

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error ? `${said.error.message} ${said.error.hint}`.trim() : `The server said ${answer.status}.`);
  return said;
}

function confirmed(question) {
  return new Promise((resolve) => {
    const dialog = made("dialog");
    const form = made("form");
    form.method = "dialog";
    const yes = made("button", "Yes"), no = made("button", "No");
    yes.value = "yes";
    no.value = "no";
    const row = made("p", "", "actions");
    row.append(yes, no);
    form.append(made("p", question), row);
    dialog.append(form);
    dialog.addEventListener("close", () => { const said = dialog.returnValue === "yes"; dialog.remove(); resolve(said); });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}

function told(where, words, bad) {
  // What was pressed may have been swapped for what came of it in the meantime.
  const near = where.isConnected ? where : one("main h1");
  near.parentElement.querySelector(".told")?.remove();
  const line = made("p", words, bad ? "told notice bad" : "told notice");
  line.setAttribute("role", "status");
  near.after(line);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-post]");
  if (!button || !(await confirmed(button.dataset.ask))) return;
  const row = button.closest(".actions");
  button.disabled = true;
  try {
    const said = await post(button.dataset.post, button.dataset.body);
    told(row, [said.status, said.evidence, said.goes_on_with && `Go on with: ${said.goes_on_with}`].filter(Boolean).join(". "));
    setTimeout(refresh, 300, false);
  } catch (error) {
    told(row, error.message, true);
    button.disabled = false;
  }
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.postForm && !form.dataset.chatForm) return;
  event.preventDefault();
  const row = one(".actions", form), button = one("button", row);
  if (form.dataset.ask && !(await confirmed(form.dataset.ask))) return;
  button.disabled = true;
  try {
    const said = await post(form.dataset.postForm || form.dataset.chatForm, JSON.stringify(Object.fromEntries(new FormData(form))));
    if (form.dataset.postForm) told(row, `Generation ${said.generation} is ${said.status}.`);
    else form.reset();
  } catch (error) {
    told(row, error.message, true);
  }
  button.disabled = false;
});

// Chat ------------------------------------------------------------------------------------------------------------------------

function chat() {
  const list = one("[data-chat]");
  if (!list) return;
  const source = new EventSource(list.dataset.chat);
  source.onopen = () => say("live");
  source.onerror = () => say("reconnecting …");
  const shown = {
    chat: (data) => ["you", data.message],
    text: (data) => ["prime", data.text],
    tool_calls: (data) => ["tool", `${data.tool} ${data.argument}`],
    tool_result: (data) => [data.error ? "result bad" : "result", data.text],
    error: (data) => ["result bad", data.message],
    response: (data) => ["prime", data.text],
  };
  for (const [name, words] of Object.entries(shown)) source.addEventListener(name, (event) => {
    // A connection that breaks has an event of the same name, without data.
    if (!event.data) return;
    const [who, text] = words(JSON.parse(event.data));
    const item = made("li", "", who);
    item.append(made("b", who.split(" ")[0]), made("pre", text, "text"));
    list.append(item);
    item.scrollIntoView({ block: "nearest" });
  });
}

// Keys ------------------------------------------------------------------------------------------------------------------------

function steps(forward) {
  const items = all(".step, .pairs > .pair");
  if (!items.length) return;
  const at = items.indexOf(document.activeElement.closest?.(".step, .pairs > .pair"));
  const next = at < 0 ? (forward ? 0 : items.length - 1) : at + (forward ? 1 : -1);
  if (next < 0 || next >= items.length) {
    const link = one(forward ? "a[rel=next]" : "a[rel=prev]");
    if (link) { sessionStorage.setItem("land", forward ? "first" : "last"); link.click(); }
    return;
  }
  land(items[next]);
}

function land(item) {
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: "start" });
  if (item.id) history.replaceState(null, "", `#${item.id}`);
}

document.addEventListener("click", (event) => { if (event.target.closest?.("[data-open-all]")) toggleAll(); });

function toggleAll() {
  const nodes = all("main details"), open = !nodes.every((node) => node.open);
  for (const node of nodes) node.open = open;
}

// Where the page knows of none, one may have failed since it was made.
async function nextFailed() {
  if (!one("#next-failed") && one("[data-of]")) await refresh(false);
  one("#next-failed")?.click();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing) { if (event.key === "Escape" && !event.target.closest("dialog")) event.target.blur(); return; }
  const square = event.target.closest?.(".map a");
  if (square && event.key.startsWith("Arrow")) {
    const row = square.closest("tr"), links = all("a", row), at = links.indexOf(square);
    const rows = { ArrowUp: row.previousElementSibling, ArrowDown: row.nextElementSibling };
    const to = event.key === "ArrowRight" ? links[at + 1] : event.key === "ArrowLeft" ? links[at - 1] : rows[event.key] && all("a", rows[event.key])[at];
    if (to) { event.preventDefault(); to.focus(); }
    return;
  }
  const keys = { n: nextFailed, e: toggleAll, j: () => steps(true), k: () => steps(false), t: switchTheme, p: () => one("#patch") && land(one("#patch")), "/": () => one("#find")?.focus() };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

// Map -------------------------------------------------------------------------------------------------------------------------

// A square is small and has no text: its name stands below the map. Who has no pointer to rest on it reads that first, and opens the
// cell by touching it again.
let touching = false, touched = "";

function nameSquare(square) {
  const line = one("#square");
  if (line) line.textContent = square.title;
}

for (const kind of ["focusin", "pointerover"]) {
  document.addEventListener(kind, (event) => { const square = event.target.closest?.(".map [title]"); if (square) nameSquare(square); });
}
document.addEventListener("pointerdown", (event) => { touching = event.pointerType === "touch"; });
document.addEventListener("click", (event) => {
  const square = event.target.closest?.(".map a");
  if (!square || !touching || touched === square.href) return;
  event.preventDefault();
  touched = square.href;
  nameSquare(square);
  one("#square").append(" · touch again to open");
});

// Charts ----------------------------------------------------------------------------------------------------------------------

const LOSS = ["#3b76c4", "#c4623b"];
let data = null;
let charts = [];

async function loadCurves() {
  const answer = await fetch(one("#curves").dataset.curves);
  if (!answer.ok) return;
  data = await answer.json();
  drawCharts();
}

function chart(where, x, series, label) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: line, width: 0.5 }, ticks: { stroke: line, width: 0.5 } };
  const node = one(where);
  node.replaceChildren();
  charts.push(new uPlot({
    width: Math.max(280, node.clientWidth), height: 280,
    scales: { x: { time: false } },
    axes: [{ ...axis, label }, axis],
    series: [{ label }, ...series.map((one) => ({ label: one.name, stroke: one.colour, width: 1.6, spanGaps: true, points: { show: one.values.filter((value) => value !== null).length < 3 } }))],
  }, [x, ...series.map((one) => one.values)], node));
}

function drawCharts() {
  if (!data || typeof uPlot === "undefined") return;
  charts.forEach((each) => each.destroy());
  charts = [];
  const names = Object.keys(data.shares);
  if (names.length) {
    const longest = Math.max(...names.map((name) => data.shares[name].length));
    const x = Array.from({ length: longest }, (_, at) => at + 1);
    chart("#shares", x, names.map((name) => ({ name, colour: data.colours[name], values: x.map((_, at) => data.shares[name][at] ?? null) })), "tasks");
    const table = made("table"), body = made("tbody");
    for (const name of names) {
      const row = made("tr"), head = made("th", name), values = data.shares[name];
      head.scope = "row";
      row.append(head, made("td", `${data.rates[name]} of ${values.length} tasks`));
      body.append(row);
    }
    table.append(body);
    one("#shares-table").replaceChildren(table);
  } else one("#shares").replaceChildren(made("p", "No task has a verdict yet.", "soft"));
  const trainings = data.losses;
  one("#no-losses").hidden = trainings.length > 0;
  one("#pick").hidden = !trainings.length;
  if (!trainings.length) return;
  const select = one("#training"), before = select.value;
  if (select.options.length !== trainings.length) {
    select.replaceChildren(...trainings.map((each) => { const option = made("option", each.what); option.value = each.what; return option; }));
    if (before) select.value = before;
    select.onchange = drawCharts;
  }
  const chosen = trainings.find((each) => each.what === select.value) || trainings[0];
  const at = [...new Set([...chosen.loss, ...chosen.validation].map((point) => point[0]))].sort((a, b) => a - b);
  const along = (points) => { const known = new Map(points); return at.map((place) => known.get(place) ?? null); };
  const series = [{ name: "loss", colour: LOSS[0], values: along(chosen.loss) }];
  if (chosen.validation.length) series.push({ name: "validation", colour: LOSS[1], values: along(chosen.validation) });
  chart("#losses", at, series, "iteration");
}

// -----------------------------------------------------------------------------------------------------------------------------

one("#theme").addEventListener("click", switchTheme);
if (one("#curves")) { loadCurves(); addEventListener("resize", drawCharts); }
follow();
chat();
const landing = sessionStorage.getItem("land");
sessionStorage.removeItem("land");
if (landing) { const items = all(".step"); if (items.length) land(landing === "first" ? items[0] : items[items.length - 1]); }
else if (location.hash) { try { one(location.hash)?.focus({ preventScroll: true }); } catch { /* No selector. */ } }
