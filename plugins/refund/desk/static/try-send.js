// Sends photos to be classified: with the upload's progress, waiting when the server asks for it, ended at any moment.
//
// Each photo goes in a request of its own, a few at a time, and not all in one to /api/classify/batch: so each has a
// progress bar of its own and its verdict as soon as that is there, a line that breaks or a limit that is reached costs
// one photo and not ten, and one can be sent again alone. XMLHttpRequest, because fetch tells nothing of an upload's
// progress.
"use strict";

const trySend = (() => {
  const TRIES = 6; // of one photo, where the server answers "later"
  const LONGEST_WAIT_S = 120;
  const LONGEST_REQUEST_MS = 180000;
  let notBefore = 0; // by performance.now(): the server asked for this, whichever photo it was that it asked

  const ended = () => new DOMException("cancelled", "AbortError");

  // When a Retry-After header allows the next try, in seconds from now; null where there is none.
  function waitOf(header) {
    if (!header) return null;
    const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
    return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 1), LONGEST_WAIT_S) : null;
  }

  function pause(milliseconds, signal) {
    return new Promise((resolve, reject) => {
      const stop = () => { clearTimeout(timer); reject(ended()); };
      const timer = setTimeout(() => { signal.removeEventListener("abort", stop); resolve(); }, milliseconds);
      signal.addEventListener("abort", stop, { once: true });
    });
  }

  // until: how long this photo must wait, told every second.
  async function untilAllowed(signal, tell) {
    for (;;) {
      if (signal.aborted) throw ended();
      const left = notBefore - performance.now();
      if (left <= 0) return;
      tell({ step: "told_to_wait", seconds: Math.ceil(left / 1000) });
      await pause(Math.min(left, 1000), signal);
    }
  }

  function post(file, fields, signal, tell) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      const lost = () => reject(new desk.DeskError({
        error: "connection",
        message: "The connection broke off before the verdict came.",
        what_to_do: "Look at the network, and whether the file is still where it was; then send it again.",
      }, 0));
      request.open("POST", `${desk.root}/api/classify`);
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("X-Refund-Desk", "1");
      request.timeout = LONGEST_REQUEST_MS;
      request.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) tell({ step: "sending", share: event.loaded / event.total });
      });
      request.upload.addEventListener("load", () => tell({ step: "deciding" }));
      request.addEventListener("load", () => {
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch { /* a proxy's page: the status has to do */ }
        resolve({ status: request.status, answer, wait: waitOf(request.getResponseHeader("Retry-After")) });
      });
      request.addEventListener("error", lost);
      request.addEventListener("timeout", lost);
      request.addEventListener("abort", () => reject(ended()));
      request.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
      signal.addEventListener("abort", stop, { once: true });
      const form = new FormData();
      for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
      form.append("image", file, file.name); // last: the fields are known before the photo has arrived
      tell({ step: "sending", share: 0 });
      request.send(form);
    });
  }

  // The verdict on one photo. tell: what happens meanwhile, {step: "told_to_wait" | "sending" | "deciding", …}.
  // Throws desk.DeskError, or an AbortError once signal says so.
  async function classify(file, fields, { signal, tell }) {
    for (let tried = 1; ; tried += 1) {
      await untilAllowed(signal, tell);
      const { status, answer, wait } = await post(file, fields, signal, tell);
      if (status === 200) return answer;
      if ((status !== 429 && status !== 503) || wait === null || tried === TRIES) throw new desk.DeskError(answer, status);
      notBefore = Math.max(notBefore, performance.now() + wait * 1000);
    }
  }

  // Runs work(item) for every item, so many at a time; resolves when all are through. work must not throw.
  async function several(items, count, work) {
    const waiting = [...items];
    const worker = async () => { while (waiting.length) await work(waiting.shift()); };
    await Promise.all(Array.from({ length: Math.min(count, items.length) }, worker));
  }

  return { classify, several };
})();
