// The page for trying photos: choosing them in any way, sending them, and what came of it.
"use strict";

(() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const at = (id) => document.getElementById(id);
  const showTrials = () => tryTrials.show(at("trials"), words);
  showTrials();
  if (!at("try")) return; // whoever may only read has no form

  const count = (number, noun = "photo") => `${number} ${noun}${number === 1 ? "" : "s"}`;
  let cards = [];
  let running = null; // an AbortController while photos are being sent

  const open = () => cards.filter((card) => card.state === "chosen" || card.state === "failed");

  function update() {
    const left = open().length;
    at("go").disabled = running !== null || left === 0;
    at("go").textContent = left ? `Classify ${count(left)}` : "Classify";
    at("cancel").hidden = running === null;
    at("clear").hidden = running !== null || cards.length === 0;
    at("result").hidden = cards.length === 0;
    at("overall").hidden = running === null;
    for (const name of ["photos", "top_k", "keep"]) at(name).disabled = running !== null;
    at("drop").classList.toggle("busy", running !== null);
  }

  function refuse(...lines) {
    at("refused").replaceChildren(...lines.map((line) => desk.make("p", { class: "hostile" }, line)));
    at("refused").hidden = lines.length === 0;
  }

  function remove(card) {
    const place = cards.indexOf(card);
    cards = cards.filter((other) => other !== card);
    card.element.remove();
    update();
    const next = cards[place] || cards[place - 1]; // the keyboard stays where it was
    const button = next && next.element.querySelector("button.out:not([hidden])");
    (button || at("photos")).focus();
  }

  function check(card) {
    const problem = (reason, message) => card.problem("refused", words.reasons[reason].title, message, words.reasons[reason].what_to_do);
    if (card.file.size === 0) problem("empty_file", "The file holds nothing. It was not sent.");
    else if (card.file.size > words.max_bytes) problem("file_too_large", `It has ${tryCard.size(card.file.size)}, and ${words.largest} is the limit. It was not sent.`);
  }

  function add(files, folders = 0) {
    if (running) { desk.say("Photos are being sent: wait until they are through, or cancel.", { bad: true }); return; }
    const told = [];
    if (folders) told.push("A folder cannot be dropped here: open it and choose the photos in it.");
    if (files.length && open().length === 0) { // a new round: what came of the last one stands below, among the trials
      cards = [];
      at("cards").replaceChildren();
      at("doing").textContent = "";
    }
    const room = words.max_photos - open().length;
    const taken = files.slice(0, Math.max(room, 0));
    const left = files.slice(taken.length);
    if (left.length) {
      told.push(`At most ${words.max_photos} photos at once: ${count(taken.length)} of these ${files.length} taken. `
        + `Left out, to be tried afterwards: ${left.map((file) => desk.visible(file.name)).join(", ")}`);
    }
    for (const file of taken) {
      const card = tryCard.create(file, words, remove);
      check(card);
      cards.push(card);
      at("cards").append(card.element);
    }
    refuse(...told);
    update();
    if (taken.length) at("doing").textContent = `${count(open().length)} ready to be sent.`;
    if (taken.length && !at("go").disabled) at("go").focus(); // so that Enter is all that is left to do
  }

  function fail(card, error) {
    const reason = words.reasons[error.answer.error];
    if (reason) card.problem("refused", reason.title, error.message, reason.what_to_do);
    else if (error.status === 401) card.problem("failed", "You are signed out", "Airflow no longer knows your login.", "Sign in to Airflow in another tab, then press Classify here.");
    else if (error.status === 413) card.problem("refused", words.reasons.file_too_large.title, error.message, words.reasons.file_too_large.what_to_do);
    else card.problem("failed", "It could not be classified", error.message, error.answer.what_to_do || "Try again in a moment; if it fails again, tell whoever runs this Airflow.");
  }

  function progress(batch, isOver = false) {
    const through = batch.filter((card) => ["done", "refused", "failed"].includes(card.state));
    at("bar").value = (100 * batch.reduce((sum, card) => sum + card.share, 0)) / batch.length;
    const bad = through.filter((card) => card.state !== "done").length;
    const result = `${through.length} of ${count(batch.length)} through${bad ? `, ${bad} of them with a problem` : ""}.`;
    const text = isOver && running.signal.aborted ? `Cancelled: ${result} The others can be sent again.` : result;
    if (at("doing").textContent !== text) at("doing").textContent = text; // told aloud, so only where it changed
  }

  async function run() {
    const batch = open();
    const fields = { top_k: at("top_k").value, keep: at("keep").checked };
    const hadFocus = document.activeElement === at("go");
    running = new AbortController();
    const { signal } = running;
    refuse();
    for (const card of batch) card.waits();
    update();
    if (hadFocus) at("cancel").focus();
    progress(batch);
    await trySend.several(batch, words.at_once, async (card) => {
      if (signal.aborted) { card.chosen("Cancelled before it was sent."); return; }
      let isSent = false;
      try {
        card.done(await trySend.classify(card.file, fields, {
          signal,
          tell: (step) => {
            isSent = step.step === "deciding";
            card.tell(step);
            progress(batch);
          },
        }));
      } catch (error) {
        if (error.name !== "AbortError") fail(card, error.answer ? error : new desk.DeskError({ message: String(error.message || error) }, 0));
        else card.chosen(isSent ? "Cancelled. It had been sent already, so it may be among your last trials." : "Cancelled.");
      }
      progress(batch);
    });
    progress(batch, true);
    const lostFocus = document.activeElement === at("cancel") || document.activeElement === document.body;
    running = null;
    update();
    if (lostFocus) at("chosen").focus();
    showTrials();
  }

  at("try").addEventListener("submit", (event) => { event.preventDefault(); if (!at("go").disabled) run(); });
  at("cancel").addEventListener("click", () => running?.abort());
  at("clear").addEventListener("click", () => {
    cards = [];
    at("cards").replaceChildren();
    refuse();
    update();
    at("photos").focus();
  });
  at("photos").addEventListener("change", () => {
    add([...at("photos").files]);
    at("photos").value = ""; // so that the same file may be chosen again
  });

  const holdsFiles = (event) => [...event.dataTransfer.types].includes("Files");
  let inside = 0; // dragenter and dragleave come for every element under the pointer
  document.addEventListener("dragenter", (event) => { if (holdsFiles(event)) { inside += 1; at("drop").classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (holdsFiles(event)) { inside -= 1; at("drop").classList.toggle("over", inside > 0); } });
  document.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => { // anywhere: missing the box must not leave the page for the photo
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside = 0;
    at("drop").classList.remove("over");
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory);
    const files = items.filter((item) => !folders.includes(item)).map((item) => item.getAsFile()).filter(Boolean);
    add(files, folders.length);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
  update();
})();
