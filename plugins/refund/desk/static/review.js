// The page Review: keys, buttons, and what is said of the work.
"use strict";

(() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const at = (id) => document.getElementById(id);
  const REFRESH_MS = 4 * 60 * 1000;
  const AWAY_MS = 8 * 60 * 1000; // who does nothing for so long lets the photos go
  const ON = "refund-desk-review-keys";
  const letters = new Map(words.categories.map(({ name, letter }) => [letter.toLowerCase(), name]));
  let today = Number(at("today").dataset.count);
  let waiting = Number(at("waiting").dataset.count);
  let shown = null;
  let lastSign = Date.now();

  const view = reviewView.create(words, decide);
  const line = reviewLine.create(words, {
    changed: render,
    written: (entry) => {
      entry.written = true;
      count(1);
    },
    undone: (entry) => {
      if (entry.written) count(-1);
      told(entry.skipped ? "It is before you again." : `Taken back: ${view.labelOf(entry.category)}.`);
    },
    ended: (left) => { waiting = left; count(0); },
    failed: (text) => desk.say(text, { bad: true }),
  });

  const told = (text) => { at("last").textContent = text; };

  function count(decided) {
    today += decided;
    waiting = Math.max(0, waiting - decided);
    at("today").textContent = today;
    at("waiting").textContent = waiting.toLocaleString("en");
  }

  function render() {
    const { current } = line;
    at("work").hidden = !current;
    at("end").hidden = Boolean(current);
    at("undo").disabled = !line.canUndo;
    if (!current) {
      shown = null;
      return showEnd();
    }
    if (shown === current) return;
    shown = current;
    view.show(current);
    at("photo").focus({ preventScroll: true }); // Enter must not press a button of the photo before
  }

  function showEnd() {
    const { skipped, isLoading, problem } = line;
    at("end-title").textContent = isLoading ? "Looking for photos…" : problem ? "The queue could not be read" : "Nothing is left for you here";
    at("end-text").textContent = isLoading ? "" : problem || [
      words.queue === "audit" ? "Every audit is decided, or before somebody else." : "Every photo of the queue is decided, or before somebody else.",
      "What others let go, and what the next night is unsure of, comes when you look again.",
    ].join(" ");
    at("again").hidden = isLoading;
    at("unskip").hidden = isLoading || !skipped;
    at("unskip").textContent = `Show the ${skipped} you skipped`;
    at("undo-end").hidden = isLoading || !line.canUndo;
    if (!isLoading) at("end").focus({ preventScroll: true });
  }

  function decide(category) {
    if (!line.current) return;
    const note = at("note").value.trim();
    told(`${view.labelOf(category)}${note ? ", with your note" : ""}.`);
    clearComplaint();
    line.decide(category, note);
  }

  function skip() {
    told("Skipped.");
    line.skip();
  }

  function undo() {
    clearComplaint();
    line.undo();
  }

  function clearComplaint() {
    if (at("said").classList.contains("bad")) desk.say("");
  }

  const shortcutsOn = () => at("shortcuts").checked;
  const isTyping = (element) => element.matches("textarea, select, [contenteditable], input:not([type=checkbox])");
  const isPressable = (element) => element.closest("button, a, summary, input") !== null;

  function press(event) {
    lastSign = Date.now();
    const { key, target } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat || at("help").open) return;
    if (isTyping(target)) {
      if (key === "Escape") at("photo").focus({ preventScroll: true });
      return;
    }
    if (!shortcutsOn() && key !== "?") return;
    const act = keyed(key, target);
    if (!act) return;
    event.preventDefault();
    act();
  }

  function keyed(key, target) {
    const { current } = line;
    const lower = key.toLowerCase();
    if (key === "?") return () => at("help").showModal();
    if (lower === "u") return line.canUndo ? undo : null;
    if (!current) return null;
    if (key === "/") return () => at("find").focus();
    if (lower === "s") return skip;
    if (key === "Enter" && isPressable(target)) return null;
    const proposed = reviewView.proposals(current.photo, words).find((each) => each.key.toLowerCase() === lower);
    if (proposed) return () => decide(proposed.category);
    if (lower === "d" && current.photo.declared_category && current.photo.declared_category === current.photo.predicted_category) {
      return () => decide(current.photo.declared_category);
    }
    return letters.has(lower) ? () => decide(letters.get(lower)) : null;
  }

  function pressInFind(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) view.mark(step);
    else if (event.key === "Escape") view.find("");
    else if (event.key === "Enter" && !event.repeat && !event.isComposing && view.marked) decide(view.marked);
    else return;
    event.preventDefault();
  }

  document.addEventListener("keydown", press);
  document.addEventListener("pointerdown", () => { lastSign = Date.now(); });
  at("find").addEventListener("keydown", pressInFind);
  at("find").addEventListener("input", () => view.find(at("find").value));
  at("find").addEventListener("focus", () => view.mark(0));
  at("find").addEventListener("blur", () => view.mark(0));
  at("skip").addEventListener("click", skip);
  at("undo").addEventListener("click", undo);
  at("undo-end").addEventListener("click", undo);
  at("keys").addEventListener("click", () => at("help").showModal());
  at("again").addEventListener("click", () => line.load());
  at("unskip").addEventListener("click", () => line.unskip());
  at("shortcuts").addEventListener("change", () => { try { localStorage.setItem(ON, String(shortcutsOn())); } catch { /* not kept, then */ } });
  try { at("shortcuts").checked = localStorage.getItem(ON) !== "false"; } catch { /* on */ }
  window.addEventListener("pagehide", () => line.leave());
  window.addEventListener("pageshow", (event) => { if (event.persisted) line.load(); });
  setInterval(() => { if (line.current && Date.now() - lastSign < AWAY_MS) line.load(); }, REFRESH_MS);
  line.load();
})();
